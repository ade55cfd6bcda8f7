import json
import logging
import os

import numpy as np
import pytest
from conftest import tiny_config
from safetensors.numpy import load_file, save_file
from toys import run_python

from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.classifier import Classifier
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.heads import ClassifierHead
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer
from undivided_tf.training import classifiers, optimizers, schedules

TOKENIZER = Tokenizer((*SPECIAL_TOKENS, *"abcdefghij"))


def make(seed):
    """A model and all that a checkpoint holds beside its weights, all values at random."""
    config = tiny_config(vocab_size=TOKENIZER.vocab_size, vocabulary_hash=TOKENIZER.vocabulary_hash)
    model = Pretrainer(Encoder(config, seed=seed))
    optimizer = optimizers.adamw(
        model.trainable_variables, learning_rate=schedules.WarmupDecay(0.1, 1, 9),
        weight_decay_rate=0.1,
    )  # fmt: skip
    weights = {id(weight) for weight in model.weights}
    dropout_states = [v for v in model.variables if id(v) not in weights]
    assert dropout_states
    random = np.random.default_rng(seed)
    variables = [*optimizer.variables, *dropout_states]
    for variable in [*model.weights, *variables]:
        variable.assign((random.normal(size=variable.shape) * 100).astype(variable.dtype))
    return model, variables


def values(model, variables):
    return [np.asarray(v) for v in [*model.weights, *variables]]


def save(workdir, step, made, keep=2):
    state = {"step": step, "note": 0.1 + 0.2}
    return checkpoints.save(workdir, state, *made, TOKENIZER, keep)


def assert_equal(first, second):
    for one, other in zip(values(*first), values(*second), strict=True):
        np.testing.assert_array_equal(one, other)


def test_everything_comes_back_bit_for_bit(tmp_path):
    made, other = make(1), make(2)
    assert checkpoints.restore_latest(tmp_path, *other) is None
    path = save(tmp_path, 7, made)
    assert checkpoints.restore_latest(tmp_path, *other) == {"step": 7, "note": 0.1 + 0.2}
    assert_equal(made, other)
    names = {"weights.safetensors", "training.safetensors", "state.json", "encoder.json"}
    assert set(os.listdir(path)) == {*names, "vocab.txt", "checksums.json"}


def test_the_newest_stay(tmp_path):
    made = make(1)
    for step in (8, 9, 10, 100):
        save(tmp_path, step, made)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["step_00000010", "step_00000100"]
    assert checkpoints.resolve(tmp_path).name == "step_00000100"


def test_the_best_stays_beside_the_newest(tmp_path):
    made = make(1)
    for step, best in ((8, 8), (9, 9), (10, 9), (11, 9), (12, 9)):
        state = {"step": step, "best": {"step": best, "loss": 1.0}}
        checkpoints.save(tmp_path, state, *made, TOKENIZER, 2)
    steps = [int(name[-8:]) for name in sorted(os.listdir(tmp_path / "checkpoints"))]
    assert steps == [9, 11, 12]


def test_a_flipped_bit_gives_way_to_the_checkpoint_before(tmp_path, caplog):
    """The file is read without an error; only its checksum tells."""
    made, other = make(1), make(2)
    save(tmp_path, 5, made)
    damaged = save(tmp_path, 10, make(3)) / "weights.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert load_file(damaged)
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert checkpoints.restore_latest(tmp_path, *other)["step"] == 5
    assert_equal(made, other)
    assert "weights.safetensors has changed" in caplog.text
    assert "USING THE ONE BEFORE IT" in caplog.text


def test_a_checkpoint_from_before_the_checksums_is_read_with_a_warning(tmp_path, caplog):
    made, other = make(1), make(2)
    save(tmp_path, 5, made)
    old = save(tmp_path, 10, made)
    for path in (tmp_path / "checkpoints").glob("*/checksums.json"):
        path.unlink()
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert checkpoints.restore_latest(tmp_path, *other)["step"] == 10
    assert_equal(made, other)
    assert "step_00000010 has no checksums.json: it is of an older release" in caplog.text
    # What cannot be read at all still gives way.
    weights = old / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    assert checkpoints.restore_latest(tmp_path, *other)["step"] == 5


@pytest.mark.parametrize("name", ["weights.safetensors", "training.safetensors", "state.json"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, name, caplog):
    made, other = make(1), make(2)
    save(tmp_path, 5, made)
    damaged = save(tmp_path, 10, make(3)) / name
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert checkpoints.restore_latest(tmp_path, *other)["step"] == 5
    assert_equal(made, other)
    assert "step_00000010 cannot be read" in caplog.text
    (tmp_path / "checkpoints" / "step_00000005" / name).unlink()
    with pytest.raises(InputError, match="none of the 2 checkpoints in .*checkpoints can be read"):
        checkpoints.restore_latest(tmp_path, *other)


def test_weights_that_do_not_fit_are_listed(tmp_path):
    made = make(1)
    weights = save(tmp_path, 5, made) / "weights.safetensors"
    arrays = load_file(weights)
    bias = next(name for name in arrays if name.endswith("pooler/bias"))
    kernel = next(name for name in arrays if name.endswith("pooler/kernel"))
    arrays["stranger"] = arrays.pop(bias)
    arrays[kernel] = arrays[kernel][:3]
    save_file(arrays, weights)
    checkpoints.seal(weights.parent)
    before = values(*made)
    with pytest.raises(InputError) as caught:
        checkpoints.restore_latest(tmp_path, *made)
    lines = str(caught.value).splitlines()
    assert str(weights.parent) in lines[0]
    assert [line.strip() for line in lines[1:]] == [
        f"missing: {bias}",
        "unused: stranger",
        f"shape of {kernel}: (3, 8) there, (8, 8) in the model",
    ]
    for one, other in zip(before, values(*made), strict=True):
        np.testing.assert_array_equal(one, other)  # Nothing was assigned by halves.


def test_the_encoder_is_loaded_without_the_heads(tmp_path):
    model, variables = make(1)
    save(tmp_path, 5, (model, variables))
    for path in (tmp_path, tmp_path / "checkpoints" / "step_00000005"):
        encoder, tokenizer = checkpoints.load_encoder(path)
        assert encoder.config == model.encoder.config
        assert tokenizer.vocabulary == TOKENIZER.vocabulary
        for one, other in zip(model.encoder.weights, encoder.weights, strict=True):
            assert one.path == other.path
            np.testing.assert_array_equal(one, other)
    twin, _ = checkpoints.untrained_encoder(tmp_path, seed=4)
    fresh = Encoder(model.encoder.config, seed=4)
    for one, other in zip(twin.weights, fresh.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_vocabulary_is_refused(tmp_path):
    path = save(tmp_path, 5, make(1))
    other = Tokenizer((*SPECIAL_TOKENS, *"abcdefghik"))
    other.save(path / "vocab.txt")
    with pytest.raises(InputError) as caught:
        checkpoints.load_encoder(tmp_path)
    for tokenizer in (other, TOKENIZER):
        assert tokenizer.vocabulary_hash[:12] in str(caught.value)


def test_an_absent_or_unreadable_checkpoint_is_named(tmp_path):
    with pytest.raises(InputError, match="a checkpoint is needed"):
        checkpoints.load_encoder("")
    with pytest.raises(InputError, match=f"there is no checkpoint in {tmp_path}"):
        checkpoints.load_encoder(tmp_path)
    weights = save(tmp_path, 5, make(1)) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match=r"step_00000005/weights\.safetensors cannot be read"):
        checkpoints.load_encoder(tmp_path)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path):
    """A file size limit of the process stands for the full disk: both end in an OSError."""
    code = (
        "import resource, signal, sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "import test_checkpoints as t\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "made = t.make(1)\n"
        "t.save(sys.argv[1], 5, made, keep=1)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    t.save(sys.argv[1], 10, t.make(2), keep=1)\n"
        "except OSError as error:\n"
        "    print('refused', error)\n"
        "other = t.make(3)\n"
        "assert t.checkpoints.restore_latest(sys.argv[1], *other)['step'] == 5\n"
        "t.assert_equal(made, other)\n"
    )
    done = run_python(code, tmp_path, os.path.dirname(__file__))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused") and "weights.safetensors" in done.stdout
    assert os.listdir(tmp_path / "checkpoints") == ["step_00000005"]


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_a_fine_tuned_model_comes_back_with_its_label_names(tmp_path, pooling):
    model, _ = make(1)
    classifier = Classifier(model.encoder, ["cold", "warm", "hot"], pooling, seed=1)
    checkpoints.save_model(tmp_path, classifier.weights, model.encoder.config, TOKENIZER)
    ClassifierHead(labels=classifier.labels, pooling=pooling, max_seq_length=9).write(tmp_path)
    loaded, tokenizer = classifiers.load_classifier(tmp_path)
    assert loaded.labels == ("cold", "warm", "hot")
    encoded = tokenizer.encode(["a b c", "j i h g"], max_seq_length=9)
    np.testing.assert_array_equal(classifier(encoded), loaded(encoded))
    with pytest.raises(InputError, match=r"no fine-tuned .*\(classifier\.json is missing"):
        classifiers.load_classifier(tmp_path.parent)


def test_the_state_is_plain_json(tmp_path):
    path = save(tmp_path, 5, make(1))
    assert json.loads((path / "state.json").read_text())["step"] == 5
