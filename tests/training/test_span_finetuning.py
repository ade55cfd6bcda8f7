import gzip
import json
import random

import numpy as np
import pytest
import toys

from undivided_tf.errors import InputError
from undivided_tf.metrics.squad import evaluate
from undivided_tf.models import checkpoints
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.heads import SpanHead
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer
from undivided_tf.training import span_finetuning
from undivided_tf.training.config import SquadConfig

ANIMALS = ("cat", "dog", "cow", "hen")
WORDS = sorted({*toys.FILLERS, *ANIMALS, "who"})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    tokenizer = Tokenizer((*SPECIAL_TOKENS, *WORDS))
    config = toys.encoder_for(tokenizer)
    path = tmp_path_factory.mktemp("start")
    checkpoints.save_model(path, Encoder(config, seed=9).weights, config, tokenizer)
    return path


def write_questions(path, count, negative=False, seed=0):
    """The answer is the only animal of the context; where there is none there is no answer."""
    chooser = random.Random(seed)
    paragraphs = []
    for number in range(count):
        words = [chooser.choice(toys.FILLERS) for _ in range(chooser.randint(6, 14))]
        answers = []
        if not (negative and number % 2):
            place, animal = chooser.randrange(len(words)), chooser.choice(ANIMALS)
            words[place] = animal
            start = len(" ".join([*words[:place], ""]))
            answers = [{"text": animal, "answer_start": start}]
        qas = [{"id": f"{path.name}-{number}", "question": "who", "answers": answers}]
        paragraphs.append({"context": " ".join(words).upper(), "qas": qas})
        for answer in answers:
            answer["text"] = answer["text"].upper()
    text = json.dumps({"data": [{"paragraphs": paragraphs}]}).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return str(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    files = {
        name: write_questions(folder / f"{name}.json", count, name.endswith("2"), seed)
        for seed, (name, count) in enumerate(
            {"train": 96, "dev": 20, "train2": 96, "dev2": 20, "test2": 20}.items()
        )
    }
    files["zipped"] = write_questions(folder / "train.json.gz", 96)
    return files


def config_of(workdir, checkpoint, data, **changes):
    values = {
        "train_files": (data["train"],), "predict_file": data["dev"], "max_seq_length": 12,
        "doc_stride": 4, "max_query_length": 2, "train_batch_size": 8, "learning_rate": 0.02,
        "num_train_epochs": 6, "save_checkpoints_steps": 40, "max_answer_length": 3,
        "deterministic": True, **changes,
    }  # fmt: skip
    return SquadConfig(workdir=str(workdir), init_checkpoint=str(checkpoint), **values)


@pytest.fixture(scope="module")
def tuned(checkpoint, data, tmp_path_factory):
    config = config_of(tmp_path_factory.mktemp("tuned") / "work", checkpoint, data)
    return config, span_finetuning.finetune_spans(config)


def test_answers_are_learnt_written_and_scored_officially(tuned, data, tmp_path):
    config, results = tuned
    (run,) = results["runs"]
    assert run["predict"]["f1"] > 60 and run["predict"]["total"] == 20
    assert run["training_loss"][-1] < run["training_loss"][0]
    assert results["counts"]["train"]["unreachable"] == 0
    assert results["counts"]["predict"]["windows"] > 20
    folder = f"{config.workdir}/run_{config.seed}"
    predictions = json.load(open(f"{folder}/predictions.json"))
    truths = json.load(open(data["dev"]))
    assert evaluate(truths, predictions) == run["predict"]
    contexts = {p["qas"][0]["id"]: p["context"] for a in truths["data"] for p in a["paragraphs"]}
    assert all(text and text in contexts[id] for id, text in predictions.items())
    nbest = json.load(open(f"{folder}/nbest.json"))
    assert {id: answers[0]["text"] for id, answers in nbest.items()} == predictions


def test_the_saved_model_predicts_the_same(tuned, tmp_path):
    config, results = tuned
    again = span_finetuning.finetune_spans(
        config.replace(
            workdir=str(tmp_path / "again"),
            init_checkpoint=f"{config.workdir}/run_{config.seed}/model",
            train_files=(),
        )
    )
    assert again["runs"][0]["predict"] == results["runs"][0]["predict"]
    assert "training_loss" not in again["runs"][0]


@pytest.mark.slow
def test_an_interrupted_run_ends_like_an_uninterrupted_one(tuned, data, tmp_path, monkeypatch):
    whole, results = tuned
    config = whole.replace(workdir=str(tmp_path / "work"))
    save = checkpoints.save

    def save_and_stop(*arguments, **options):
        save(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            span_finetuning.finetune_spans(config)
    assert not (tmp_path / "work" / "results.json").exists()
    assert span_finetuning.finetune_spans(config)["runs"] == results["runs"]
    assert not (tmp_path / "work" / f"run_{config.seed}" / "checkpoints").exists()


def test_no_answer_by_a_threshold_tuned_on_other_questions(checkpoint, data, tmp_path):
    config = config_of(
        tmp_path / "work", checkpoint, data, train_files=(data["train2"],),
        validation_file=data["dev2"], predict_file=data["test2"], version_2_with_negative=True,
    )  # fmt: skip
    (run,) = span_finetuning.finetune_spans(config)["runs"]
    assert run["validation"]["f1"] == pytest.approx(run["validation"]["best_f1"])
    assert run["predict"]["NoAns_total"] == run["predict"]["HasAns_total"] == 10
    folder = tmp_path / "work" / f"run_{config.seed}"
    head = SpanHead.read(folder / "model")
    assert head.null_score_diff_threshold == run["null_score_diff_threshold"]
    assert head.version_2_with_negative and head.windows["doc_stride"] == 4
    odds = json.loads((folder / "null_odds.json").read_text())
    predictions = json.loads((folder / "predictions.json").read_text())
    for id, text in predictions.items():
        assert (text == "") == (odds[id] > run["null_score_diff_threshold"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predict_file": ""}, "--predict_file=FILE"),
        ({"predict_file": "nowhere.json"}, "nowhere.json: cannot be read"),
        ({"max_seq_length": 20, "doc_stride": 9}, "max_seq_length 20 is more than the encoder's"),
        ({"train_batch_size": 999}, "windows to train on, fewer than one batch of 999"),
        ({"train_files": ()}, "span_predictor.json is missing"),
        ({"init_checkpoint": "nowhere"}, "there is no checkpoint in nowhere"),
    ],
)
def test_what_cannot_be_used_is_refused_and_no_workdir_is_left(
    checkpoint, data, tmp_path, changes, message
):
    config = config_of(tmp_path / "work", checkpoint, data).replace(**changes)
    with pytest.raises(InputError, match=message):
        span_finetuning.finetune_spans(config)
    assert not (tmp_path / "work").exists()


def test_questions_without_answer_need_version_2(checkpoint, data, tmp_path):
    config = config_of(tmp_path / "work", checkpoint, data, train_files=(data["train2"],))
    with pytest.raises(
        InputError, match="48 of 96 questions have no answer, .*version_2_with_negative"
    ):
        span_finetuning.finetune_spans(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"doc_stride": 8}, "doc_stride 8 would skip text"),
        ({"validation_file": "x.json"}, "tunes the null threshold of version_2_with_negative"),
        ({"n_best_size": 0}, "n_best_size must be above 0"),
    ],
)
def test_values_that_do_not_go_together_are_refused(data, changes, message):
    with pytest.raises(InputError, match=message):
        config_of("work", "nowhere", data, **changes)


def test_a_loss_that_is_not_finite_ends_the_run(checkpoint, data, tmp_path):
    config = config_of(
        tmp_path / "work", checkpoint, data, learning_rate=1e30, warmup_proportion=0.0
    )
    with pytest.raises(FloatingPointError, match="the loss is not finite; lower --learning_rate"):
        span_finetuning.finetune_spans(config)


def test_each_epoch_sees_every_window_once_wherever_it_is_entered(checkpoint, data, tmp_path):
    config = config_of(tmp_path, checkpoint, data, train_files=(data["zipped"],))
    tuner = span_finetuning._SpanTuner(config)
    steps = tuner.steps_per_epoch

    def rows(step, count):
        batches = tuner._batches(7, step, count)
        return np.concatenate([np.asarray(inputs["token_ids"]) for inputs, _ in batches])

    first, second = rows(0, steps), rows(steps, steps)
    np.testing.assert_array_equal(np.concatenate([rows(0, 3), rows(3, steps - 3)]), first)
    left_out = len(tuner.data["train"].windows) - steps * 8
    assert left_out < 8
    if not left_out:
        assert sorted(map(tuple, first)) == sorted(map(tuple, second))
    assert (first != second).any()


def test_data_of_squad_2_is_not_scored_as_1_in_silence(checkpoint, data, tmp_path):
    config = config_of(tmp_path / "work", checkpoint, data).replace(predict_file=data["dev2"])
    with pytest.raises(
        InputError, match=r"10 of 20 questions have no answer, the first at .*dev2.json: \$.data"
    ):
        span_finetuning.finetune_spans(config)
    assert not (tmp_path / "work").exists()
