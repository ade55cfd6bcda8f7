import json

import numpy as np
import pytest
import toys
from safetensors.numpy import load_file

from undivided_tf.data import batches
from undivided_tf.data.tasks.tasks import load_task
from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.encoder import Encoder
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer
from undivided_tf.training import classifiers, finetuning

WORDS = sorted({*toys.FILLERS, "cat", "dog"})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """What a pre-training run leaves behind, with random weights."""
    tokenizer = Tokenizer((*SPECIAL_TOKENS, *WORDS))
    config = toys.encoder_for(tokenizer, hidden_dropout_prob=0.0)
    path = tmp_path_factory.mktemp("run") / "checkpoints" / "step_00000001"
    path.mkdir(parents=True)
    checkpoints.save_model(path, Encoder(config, seed=9).weights, config, tokenizer)
    return path.parents[1]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return toys.write_task(tmp_path_factory.mktemp("task") / "animals")


@pytest.fixture(scope="module")
def tuned(checkpoint, task, tmp_path_factory):
    """Two uninterrupted runs that saw enough to learn the task, and their config."""
    workdir = tmp_path_factory.mktemp("tuned") / "work"
    config = toys.finetuning_config(
        workdir,
        checkpoint,
        task,
        num_train_epochs=6,
        learning_rate=0.01,
        pooling="mean",
        classifier_dropout=0.0,
    )
    return config, finetuning.finetune(config)


def repeatable(results):
    runs = [{k: v for k, v in run.items() if k != "seconds"} for run in results["runs"]]
    return {**results, "runs": runs}


def test_results_say_what_the_contract_names(tuned, task):
    config, results = tuned
    assert set(results) == {
        "kind", "pattern", "task", "start", "split", "primary", "labels", "rows", "majority",
        "truncated", "loading", "runs",
    }  # fmt: skip
    about = [results[key] for key in ("kind", "pattern", "task", "start", "labels", "rows")]
    rows = {"train": 96, "validation": 13, "test": 11}
    assert results["split"] == "test"
    assert about == ["finetuning", "AI", "animals", "pretrained", ["no", "yes"], rows]
    # Ties in the training labels (48 of each) go to the first label.
    assert results["majority"]["test"] == np.mean(load_task(task).read("test").labels == 0)
    first, second = results["runs"]
    assert (first["seed"], second["seed"]) == (config.seed, config.seed + 1)
    for run in results["runs"]:
        assert set(run) == {
            "seed", "seconds", "training_loss", "validation_by_epoch", "validation", "test"
        }  # fmt: skip
        assert set(run["test"]) == {"accuracy", "f1_macro"}
        assert len(run["training_loss"]) == 6
        assert run["training_loss"][-1] < run["training_loss"][0]
        assert run["test"]["accuracy"] > 0.8 > results["majority"]["test"]
    assert first["training_loss"] != second["training_loss"]


def test_a_finished_call_reads_its_results(tuned, monkeypatch):
    config, results = tuned
    monkeypatch.setattr(finetuning, "_Tuner", None)  # Not even built.
    assert finetuning.finetune(config) == results


def test_an_interrupted_call_repeats_no_finished_run(tuned, tmp_path, monkeypatch):
    whole, results = tuned
    config = whole.replace(workdir=str(tmp_path / "work"))
    run = finetuning._Tuner.run

    def only_the_first(self, seed):
        if seed != config.seed:
            raise KeyboardInterrupt
        return run(self, seed)

    with monkeypatch.context() as patch:
        patch.setattr(finetuning._Tuner, "run", only_the_first)
        with pytest.raises(KeyboardInterrupt):
            finetuning.finetune(config)
    first = tmp_path / "work" / f"run_{config.seed}.json"
    before = first.stat().st_mtime_ns
    assert not (tmp_path / "work" / "results.json").exists()
    resumed = finetuning.finetune(config)
    assert first.stat().st_mtime_ns == before
    # The second run came first in this process: it starts from the same values all the same.
    assert repeatable(resumed) == repeatable(results)


@pytest.fixture(scope="module")
def unstopped(checkpoint, task, tmp_path_factory):
    """A config of four epochs, and its results."""
    config = toys.finetuning_config(
        tmp_path_factory.mktemp("unstopped") / "whole", checkpoint, task, num_train_epochs=4,
        early_stopping_epochs=3, pooling="mean", num_runs=1, pad_to_multiple_of=8,
        classifier_dropout=0.5, save_checkpoints_steps=10,
    )  # fmt: skip
    return config, finetuning.finetune(config)


@pytest.mark.parametrize("stop_at", [10, pytest.param(30, marks=pytest.mark.slow)])
def test_a_run_stopped_within_an_epoch_ends_like_one_that_was_not(
    unstopped, tmp_path, monkeypatch, stop_at
):
    """Its loss, its scores by epoch, the best weights and the dropout go on."""
    whole, results = unstopped
    config = whole.replace(workdir=str(tmp_path / "stopped"))
    save = checkpoints.save

    def save_and_stop(workdir, state, *arguments, **options):
        save(workdir, state, *arguments, **options)
        if state["step"] == stop_at:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            finetuning.finetune(config)
    folder = tmp_path / "stopped" / f"run_{config.seed}"
    assert [path.name for path in (folder / "checkpoints").iterdir()] == [f"step_{stop_at:08d}"]
    steps = []
    make = batches.training_batches
    with monkeypatch.context() as patch:
        patch.setattr(
            batches, "training_batches",
            lambda *a, **options: steps.append(options["steps"].start) or make(*a, **options),
        )  # fmt: skip
        assert repeatable(finetuning.finetune(config)) == repeatable(results)
    assert min(steps) == stop_at and not folder.exists()
    one, other = (
        load_file(f"{c.workdir}/model_{c.seed}/weights.safetensors") for c in (whole, config)
    )
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_saved_models_give_the_scores_that_were_reported(tuned, task):
    config, results = tuned
    for run in results["runs"]:
        path = f"{config.workdir}/model_{run['seed']}"
        classifier, tokenizer = classifiers.load_classifier(path)
        assert classifier.labels == ("no", "yes") and classifier.pooling == "mean"
        rows = load_task(task).read("test")
        logits = np.asarray(classifier(tokenizer.encode(rows.first, max_seq_length=16)))
        assert np.mean(logits.argmax(-1) == rows.labels) == run["test"]["accuracy"]


def test_unlabelled_splits_are_not_scored(checkpoint, tmp_path):
    task = toys.write_task(tmp_path / "blind", test="unlabelled")
    config = toys.finetuning_config(
        tmp_path / "work", checkpoint, task, num_runs=1, num_train_epochs=1, save_models=False
    )
    results = finetuning.finetune(config)
    assert set(results["majority"]) == {"validation"}
    assert results["rows"] == {"train": 96, "validation": 13}
    assert "test" not in results["runs"][0] and "validation" in results["runs"][0]
    assert not list((tmp_path / "work").glob("model_*"))


def test_from_scratch_starts_from_random_weights(checkpoint, task, tmp_path):
    config = toys.finetuning_config(tmp_path / "work", checkpoint, task, from_scratch=True)
    tuner = finetuning._Tuner(config, load_task(task))
    stored, _ = checkpoints.load_encoder(checkpoint)
    starts = [tuner._initial_classifier(seed)[0].encoder for seed in (1, 1, 2)]
    pretrained = finetuning._Tuner(config.replace(from_scratch=False), load_task(task))
    for name in ("word_embeddings", "query/kernel"):
        first, again, other, loaded, kept = (
            next(np.asarray(w) for w in encoder.weights if name in w.path)
            for encoder in [*starts, pretrained._initial_classifier(1)[0].encoder, stored]
        )
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(loaded, kept)
        assert np.abs(first - kept).max() > 1e-3 < np.abs(first - other).max()
    results = finetuning.finetune(config.replace(num_runs=1, num_train_epochs=1))
    assert results["start"] == "scratch"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_batch_size": 128}, "has 96 training rows, fewer than one batch of 128"),
        ({"max_train_rows": 5}, "has 5 training rows, fewer than one batch of 8"),
        ({"max_seq_length": 17}, "max_seq_length 17 is more than the encoder's .* 16"),
        ({"init_checkpoint": "nowhere"}, "there is no checkpoint in nowhere"),
        ({"task": "nothing"}, "task 'nothing': neither a folder nor one of"),
        ({"new_weights": ()}, "missing: classifier_head/kernel(.|\\n)*values: --new_weights"),
        ({"new_weights": ("head",)}, "new_weights names 'head', but the model has no such"),
    ],
)
def test_what_cannot_be_used_is_refused_and_no_workdir_is_left(
    checkpoint, task, tmp_path, changes, message
):
    config = toys.finetuning_config(tmp_path / "work", checkpoint, task).replace(**changes)
    with pytest.raises(InputError, match=message):
        finetuning.finetune(config)
    assert not (tmp_path / "work").exists()


def test_another_config_in_the_workdir_is_refused(tuned):
    config, _ = tuned
    with pytest.raises(InputError, match="num_runs: 2 there, 3 asked for"):
        finetuning.finetune(config.replace(num_runs=3))


def test_a_loss_that_is_not_finite_ends_the_run(checkpoint, task, tmp_path):
    config = toys.finetuning_config(
        tmp_path / "work", checkpoint, task, learning_rate=1e30, warmup_proportion=0.0
    )
    with pytest.raises(FloatingPointError, match="the loss is not finite; lower --learning_rate"):
        finetuning.finetune(config)
    assert not list((tmp_path / "work").glob("*_*"))  # Neither a run's scores nor its model.


def test_predictions_depend_on_neither_batch_size_nor_padding(tuned, task):
    config, _ = tuned
    classifier, tokenizer = classifiers.load_classifier(f"{config.workdir}/model_{config.seed}")
    rows = load_task(task).read("test")
    expected = np.asarray(classifier(tokenizer.encode(rows.first, max_seq_length=16)))
    encoded = batches.encode(rows, tokenizer, 16)
    for batch_size, multiple in ((1, 0), (4, 8), (11, 0), (32, 4)):
        dataset, where = batches.prediction_batches(
            encoded, batch_size=batch_size, pad_to_multiple_of=multiple
        )
        logits = np.concatenate([np.asarray(classifier(batch)) for batch in dataset])[where]
        np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_early_stopping_keeps_the_weights_of_the_best_epoch(checkpoint, task, tmp_path):
    config = toys.finetuning_config(
        tmp_path / "work", checkpoint, task, num_train_epochs=12, early_stopping_epochs=2,
        pooling="mean", num_runs=1, pad_to_multiple_of=8,
    )  # fmt: skip
    run = finetuning.finetune(config)["runs"][0]
    by_epoch = run["validation_by_epoch"]
    assert len(by_epoch) == len(run["training_loss"]) < 12
    assert len(by_epoch) == 1 + int(np.argmax(by_epoch)) + 2
    assert run["validation"]["accuracy"] == max(by_epoch)


def test_predictions_are_written_with_text_label_and_logits(checkpoint, tmp_path):
    task = toys.write_task(tmp_path / "blind", test="unlabelled")
    config = toys.finetuning_config(
        tmp_path / "work", checkpoint, task, num_runs=1, num_train_epochs=1, save_models=False,
        write_predictions=True,
    )  # fmt: skip
    run = finetuning.finetune(config)["runs"][0]
    assert "test" not in run
    folder = tmp_path / "work" / "predictions_12345"
    for split, keys in (("validation", {"label"}), ("test", set())):
        rows = load_task(task).read(split)
        lines = [json.loads(line) for line in (folder / f"{split}.jsonl").open()]
        assert [line["text"] for line in lines] == rows.first
        assert set(lines[0]) == {"text", "prediction", "logits"} | keys
        for line in lines:
            assert line["prediction"] == ("no", "yes")[int(np.argmax(line["logits"]))]
    lines = [json.loads(line) for line in (folder / "validation.jsonl").open()]
    right = [line["label"] == line["prediction"] for line in lines]
    assert np.mean(right) == run["validation"]["accuracy"]


def test_a_fine_tuned_model_is_a_start_and_its_labels_are_mapped_by_name(tuned, task, tmp_path):
    config, results = tuned
    model = f"{config.workdir}/model_{config.seed}"
    for order in (["no", "yes"], ["yes", "no"]):
        folder = tmp_path / "_".join(order)
        toys.write_task(folder)
        (folder / "task.json").write_text(json.dumps({"labels": order}))
        scored = finetuning.finetune(
            config.replace(
                workdir=str(tmp_path / f"work_{order[0]}"),
                task=str(folder),
                num_runs=1,
                init_checkpoint=model,
                new_weights=(),
                num_train_epochs=0,
                save_models=False,
            )  # fmt: skip
        )
        assert scored["labels"] == order
        for split in ("validation", "test"):
            assert scored["runs"][0][split] == pytest.approx(results["runs"][0][split])
    assert scored["loading"]["new"] == scored["loading"]["unused"] == []


def test_another_task_s_head_must_be_named_as_new(tuned, tmp_path):
    config, _ = tuned
    model = f"{config.workdir}/model_{config.seed}"
    folder = tmp_path / "other"
    for name in ("train", "dev"):
        folder.mkdir(exist_ok=True)
        rows = "".join(f"the cat\tone\na dog\ttwo\na {name}\tthree\n" for _ in range(8))
        (folder / f"{name}.tsv").write_text("sentence\tlabel\n" + rows)
    changes = {"task": str(folder), "init_checkpoint": model, "num_runs": 1, "num_train_epochs": 1}
    other = config.replace(workdir=str(tmp_path / "work"), save_models=False, **changes)
    with pytest.raises(
        InputError, match="labels no, yes, the task other .* one, three, two: .*=classifier_"
    ):
        finetuning.finetune(other.replace(new_weights=()))
    results = finetuning.finetune(other)
    assert results["loading"]["new"] == ["classifier_head/kernel", "classifier_head/bias"]
    assert sorted(results["loading"]["unused"]) == sorted(results["loading"]["new"])


def test_config_and_results_lie_in_the_workdir(tuned):
    config, results = tuned
    folder = finetuning.pathlib.Path(config.workdir)
    assert json.loads((folder / "results.json").read_text()) == results
    names = {f"run_{seed}.json" for seed in (12345, 12346)}
    names |= {f"model_{seed}" for seed in (12345, 12346)}
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "inputs.json", "results.json", *names
    }  # fmt: skip


def test_scoring_alone_needs_no_training_batch(tuned, tmp_path):
    config, _ = tuned
    few = toys.write_task(tmp_path / "few", rows=4)
    config = config.replace(
        workdir=str(tmp_path / "work"), task=few, num_runs=1, save_models=False, new_weights=(),
        init_checkpoint=f"{config.workdir}/model_{config.seed}",
    )  # fmt: skip
    with pytest.raises(InputError, match="4 training rows, fewer than one batch of 8"):
        finetuning.finetune(config)
    (run,) = finetuning.finetune(config.replace(num_train_epochs=0))["runs"]
    assert run["training_loss"] == [] and 0 <= run["validation"]["accuracy"] <= 1


def test_a_declared_regression_is_trained_and_scored_by_correlations(checkpoint, tmp_path):
    folder = tmp_path / "lengths"
    toys.write_task(folder)
    for path in folder.glob("*.tsv"):
        path.write_text(path.read_text().replace("\tyes", "\t1.5").replace("\tno", "\t-0.5"))
    (folder / "task.json").write_text('{"regression": true}')
    results = finetuning.finetune(
        toys.finetuning_config(
            tmp_path / "work",
            checkpoint,
            str(folder),
            num_runs=1,
            num_train_epochs=6,
            pooling="mean",
            classifier_dropout=0.0,
            write_predictions=True,
            save_models=False,
        )  # fmt: skip
    )
    assert (results["labels"], results["primary"]) == ([], "spearman")
    (run,) = results["runs"]
    assert set(run["test"]) == {"spearman", "pearson"} and run["test"]["pearson"] > 0.5
    path = tmp_path / "work" / "predictions_12345" / "test.jsonl"
    rows = [json.loads(line) for line in path.open()]
    assert {row["label"] for row in rows} == {1.5, -0.5}
    # There is no range that predictions would keep to.
    assert [row["prediction"] for row in rows] == [row["logits"][0] for row in rows]
