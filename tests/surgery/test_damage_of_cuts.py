"""Damage measured with blocks scaled by 0 is that of an encoder without these blocks."""

import json

import numpy as np
import pytest
import scipy
import toys

from undivided_tf import surgery
from undivided_tf.convert import converter
from undivided_tf.data.tasks.rows import Rows
from undivided_tf.data.tasks.tasks import load_task
from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.surgery import damage, run
from undivided_tf.surgery.config import SurgeryConfig
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer
from undivided_tf.training import classifiers, finetuning

WORDS = sorted({*toys.FILLERS, "cat", "dog"})
TOKENIZER = Tokenizer((*SPECIAL_TOKENS, *WORDS))


def random_encoder():
    config = toys.encoder_for(TOKENIZER, block_pattern="(AI)*2", hidden_dropout_prob=0.0)
    encoder, random = Encoder(config, seed=3), np.random.default_rng(0)
    for layer in encoder.blocks:  # So that it matters whether LayerNorms are folded.
        layer.layer_norm.set_weights(list(random.uniform(0.3, 1.5, (2, config.hidden_size))))
    return encoder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkpoint with a masked-language-model head, one without, and a task."""
    folder = tmp_path_factory.mktemp("damage")
    encoder = random_encoder()
    for name, model in (("headed", Pretrainer(encoder)), ("bare", encoder)):
        (folder / name).mkdir()
        checkpoints.save_model(folder / name, model.weights, encoder.config, TOKENIZER)
    toys.write_task(folder / "animals")
    return folder


def config(place, **changes):
    values = {"cut": "importance", "num_cut": 1, "max_seq_length": toys.LENGTH, "batch_size": 8}
    return SurgeryConfig(task=str(place / "animals"), **{**values, **changes})


@pytest.mark.parametrize("fold", [True, False])
def test_drift_and_error_are_those_of_an_encoder_that_was_cut(place, fold):
    encoder, rows = random_encoder(), load_task(str(place / "animals")).read("validation")
    kept = damage.pooled_states(encoder, TOKENIZER, rows, 8, toys.LENGTH, fold)
    measured, error = (of(kept, kept([])) for of in (damage.drift_damage, damage.error_damage))
    assert measured([]) == pytest.approx(0, abs=1e-6) and error([]) == 0
    gone = ["block_00/intermediate"]
    small, _ = surgery.cut(encoder, gone, fold_layer_norms=fold)
    states = [
        damage.pooled_states(model, TOKENIZER, rows, 8, toys.LENGTH)([])
        for model in (encoder, small)
    ]
    first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in states)
    assert states[0].shape == (13, 8)
    expected = np.mean(1 - (first * second).sum(1))
    assert measured(gone) == pytest.approx(expected, abs=1e-6) and expected > 1e-4
    before, after = states
    expected = ((after - before) ** 2).sum() / ((before - before.mean(0)) ** 2).sum()
    assert error(gone) == pytest.approx(expected, rel=1e-4)
    assert error([]) == 0  # The LayerNorms are as they were.


@pytest.mark.parametrize("name", ["text", "task", "drift", "error"])
def test_the_cut_that_does_least_damage_is_made(place, tmp_path, name):
    about = run.run_surgery(
        config(place, input=str(place / "headed"), output_dir=str(tmp_path / "cut"),
               importance=name)
    )  # fmt: skip
    (least,) = about["dropped"]
    single = about["order"]["single"]
    assert single[least] == min(single.values()) and about["order"]["blocks"][0] == least
    assert about["order"]["damages"][1] == single[least]
    assert "animals" in about["damage"]
    found, _ = checkpoints.load_encoder(tmp_path / "cut")
    assert found.config.pattern.num_intermediate == 1
    assert json.loads((tmp_path / "cut" / "surgery.json").read_text())["kept"] == about["kept"]


def test_a_probe_is_fitted_on_training_rows_alone(place):
    asked = config(place, importance="task", max_rows=30)
    source = converter.open_checkpoint(place / "bare")
    encoder = converter.build_encoder(source)
    calls = []

    def states(rows):
        calls.append(rows)
        # The states separate the labels; on validation rows their sign is reversed.
        sign = np.where(np.arange(len(rows)) < 30, 1, -1) * (2 * rows.labels - 1)
        return lambda gone: np.float32(sign[:, None] * [[1.0, 0.0]])

    measured, words = run.measure(asked.replace(split="train"), source, encoder, states=states)
    assert measured([]) == 0 and "20 rows to fit, 10 rows of animals, train" in words
    measured, words = run.measure(asked, source, encoder, states=states)
    assert measured([]) == 1 and "30 rows to fit, 13 rows of animals, validation" in words
    task = load_task(str(place / "animals"))
    assert calls[1].first[30:] == task.read("validation").first


def test_another_whole_encoder_is_the_reference(place):
    asked = config(place, importance="drift")
    source = converter.open_checkpoint(place / "bare")
    whole = converter.build_encoder(source)
    gone = ["block_00/intermediate"]
    small, _ = surgery.cut(whole, gone)
    expected = run.measure(asked, source, whole)[0](gone)
    found, _ = run.measure(asked, source, small, whole=whole)
    assert found([]) == pytest.approx(expected, abs=1e-6) and expected > 1e-4


def test_similarity_of_texts_is_scored_without_training(place, tmp_path):
    encoder = random_encoder()
    first, second = ["the cat", "a dog", "cat dog"], ["the dog", "a dog", "dog the a"]
    rows = Rows(first, second, np.float32([1, 5, 2]))
    gone = ["block_00/intermediate"]
    small, _ = surgery.cut(encoder, gone)
    means = []
    for texts in (first, second):
        inputs = TOKENIZER.encode(texts, max_seq_length=toys.LENGTH)
        states = np.asarray(small(inputs, training=False)["sequence_output"])
        mask = np.asarray(inputs["padding_mask"])
        means.append([row[real == 1].mean(0) for row, real in zip(states, mask, strict=True)])
    cosines = [1 - scipy.spatial.distance.cosine(u, v) for u, v in zip(*means, strict=True)]
    assert cosines[1] == pytest.approx(1)
    alone = Rows([*rows.first, *rows.second])
    states = damage.pooled_states(encoder, TOKENIZER, alone, 2, toys.LENGTH)
    measured = damage.similarity_damage(states, rows.labels)
    expected = 1 - scipy.stats.spearmanr(cosines, rows.labels)[0]
    assert measured(gone) == pytest.approx(expected, abs=1e-6)
    bare = {"input": str(place / "bare"), "output_dir": str(tmp_path / "cut")}
    with pytest.raises(InputError, match="similarity needs pairs of texts with a score"):
        run.run_surgery(config(place, importance="similarity", **bare))


def test_a_fine_tuned_model_is_measured_by_its_own_head(place, tmp_path):
    tuned = toys.finetuning_config(
        tmp_path / "tuned", place / "bare", str(place / "animals"), num_runs=1, num_train_epochs=1
    )
    score = finetuning.finetune(tuned)["runs"][0]["validation"]["accuracy"]
    model = str(tmp_path / "tuned" / "model_12345")
    about = run.run_surgery(
        config(place, input=model, output_dir=str(tmp_path / "cut"), importance="task")
    )
    assert "own head" in about["damage"]
    assert 1 - about["order"]["damages"][0] == pytest.approx(score)
    classifiers.load_classifier(tmp_path / "cut")  # The head came along.


def test_what_cannot_be_measured_is_refused(place, tmp_path):
    bare = {"input": str(place / "bare"), "output_dir": str(tmp_path / "cut")}
    with pytest.raises(InputError, match="has no masked-language-model head"):
        run.run_surgery(config(place, **bare))
    with pytest.raises(InputError, match="num_cut 3: .* has 2 intermediate blocks"):
        run.run_surgery(config(place, importance="drift", **{**bare, "num_cut": 3}))
    with pytest.raises(InputError, match="block_pattern and cut all say what to cut"):
        config(place, block_pattern="AI")
