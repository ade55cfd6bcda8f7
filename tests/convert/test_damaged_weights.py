"""Weights that are not finite, truncated or missing are refused in every format."""

import shutil

import h5py
import ml_dtypes
import numpy as np
import pytest
import released
from released import google_variables, write_google, write_ours
from test_formats import run

from undivided_tf import convert
from undivided_tf.convert import converter
from undivided_tf.convert.tensor_files import as_float32
from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.models.weights import WEIGHTS, load_weights

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 440473133\n"


def test_a_nan_row_in_the_word_embeddings_is_refused(tmp_path):
    tensors = released.weights()
    tensors["embeddings.word_embeddings.weight"][5] = np.nan
    folder = released.write(tmp_path / "hf", tensors)
    message = r"embeddings\.word_embeddings\.weight has 8 of 480 values .*\(8 NaN, 0 infinite\)"
    with pytest.raises(InputError, match=message):
        convert.load(folder)
    with pytest.raises(InputError, match=message):
        run(folder, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_head_that_is_not_finite_is_refused_when_it_is_written(tmp_path):
    tensors = released.weights(["cls"])
    tensors["cls.predictions.bias"][:2] = [np.inf, np.nan]
    folder = released.write(tmp_path / "hf", tensors)
    with pytest.raises(InputError, match=r"cls\.predictions\.bias has 2 of 60 .*1 NaN, 1 infinite"):
        run(folder, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_nan_in_tied_matrices_is_not_called_a_difference(tmp_path):
    tensors = released.weights(["cls"])
    tensors["embeddings.word_embeddings.weight"][5, 0] = np.nan
    tensors["cls.predictions.decoder.weight"] = tensors["embeddings.word_embeddings.weight"].copy()
    folder = released.write(tmp_path / "hf", tensors)
    with pytest.raises(InputError, match="1 of 480 values that are not finite"):
        convert.load(folder)


def test_float64_beyond_float32_and_infinite_float16_are_refused(tmp_path):
    for name, value in (("f64", np.float64(1e300)), ("f16", np.float16(np.inf))):
        tensors = released.weights()
        tensors["pooler.dense.bias"] = np.full(8, value)
        folder = released.write(tmp_path / name, tensors)
        with pytest.raises(InputError, match=r"pooler\.dense\.bias has 8 of 8 .*8 infinite"):
            convert.load(folder)


def test_largest_finite_values_of_every_type_are_taken():
    for kind in (np.float16, ml_dtypes.bfloat16, np.float32):
        largest = np.array([ml_dtypes.finfo(kind).max], kind)
        assert as_float32(largest, "a", "there") == np.float32(largest)
        with pytest.raises(InputError, match="there: a has 1 of 1 values"):
            as_float32(np.array([np.nan], kind), "a", "there")


def test_weights_that_overflow_in_half_precision_are_refused(tmp_path):
    tensors = released.weights()
    tensors["pooler.dense.bias"][0] = 3.4e38  # Infinite in float16 and, rounded, in bfloat16.
    source = converter.open_checkpoint(released.write(tmp_path / "hf", tensors))
    assert np.isfinite(np.asarray(converter.build_encoder(source).pooler.bias)).all()
    message = "the weights as bfloat16: encoder/pooler/bias has 1 of 8"
    with pytest.raises(InputError, match=message):
        converter.build_encoder(source, "bfloat16")


def test_googles_weights_that_are_not_finite_are_refused(tmp_path):
    variables = google_variables(released.weights())
    variables["bert/pooler/dense/bias"][:3] = np.inf
    folder = write_google(tmp_path / "google", variables)
    with pytest.raises(InputError, match="bert/pooler/dense/bias has 3 of 8 .*3 infinite"):
        convert.load(folder)


def test_googles_weights_in_bfloat16_are_taken(tmp_path):
    tensors = {
        name: value.astype(ml_dtypes.bfloat16)
        for name, value in google_variables(released.weights()).items()
    }
    encoder, _ = convert.load(write_google(tmp_path / "google", tensors))
    expected = tensors["bert/pooler/dense/bias"].astype("float32")
    np.testing.assert_array_equal(np.asarray(encoder.pooler.bias), expected)


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras_hub")
    write_ours(folder / "ours", hidden_activation="gelu_tanh")
    run(folder / "ours", folder / "preset", "keras_hub")
    return folder / "preset"


def test_keras_hubs_weights_that_are_not_finite_are_refused(preset, tmp_path):
    shutil.copytree(preset, tmp_path / "preset")
    with h5py.File(tmp_path / "preset/model.weights.h5", "r+") as file:
        pooler = file["layers/dense/vars/1"]
        assert pooler.shape == (8,)
        pooler[0] = np.nan
    with pytest.raises(InputError, match="pooled_dense/bias has 1 of 8 .*1 NaN"):
        convert.load(tmp_path / "preset")


def test_weights_of_ours_that_are_not_finite_are_refused(tmp_path):
    encoder = write_ours(tmp_path / "ours")
    encoder.pooler.bias.assign([np.nan, np.inf, 0, 0, 0, 0, 0, 0])
    tokenizer = checkpoints.load_encoder(tmp_path / "ours")[1]
    model = Pretrainer(encoder)
    checkpoints.save_model(tmp_path / "ours", model.weights, encoder.config, tokenizer)
    message = "encoder/pooler/bias has 2 of 8 values .*1 NaN, 1 infinite"
    for load in (checkpoints.load_encoder, convert.load):
        with pytest.raises(InputError, match=message):
            load(tmp_path / "ours")
    other = Pretrainer(Encoder(encoder.config, seed=2))
    before = np.asarray(other.encoder.pooler.kernel)
    with pytest.raises(InputError, match=message):
        load_weights(other.weights, tmp_path / "ours")
    np.testing.assert_array_equal(np.asarray(other.encoder.pooler.kernel), before)


@pytest.mark.parametrize("left", [0, 100, 3000])
def test_googles_data_file_cut_short_is_an_error_and_no_traceback(tmp_path, left):
    folder = write_google(tmp_path / "google", google_variables(released.weights()))
    path = next(folder.glob("*.data-*"))
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(InputError, match=r"bert_model\.ckpt: bert/.* truncated .*: fetch it again"):
        convert.load(folder)


def test_googles_absent_data_file_is_named(tmp_path):
    folder = write_google(tmp_path / "google", google_variables(released.weights()))
    next(folder.glob("*.data-*")).unlink()
    with pytest.raises(InputError, match=r"bert_model\.ckpt\.data-00000-of-00001; No such file"):
        convert.load(folder)


def test_git_lfs_pointers_are_called_what_they_are(tmp_path, preset):
    released.write(tmp_path / "hf")
    write_google(tmp_path / "google", google_variables(released.weights()))
    write_ours(tmp_path / "ours")
    shutil.copytree(preset, tmp_path / "preset")
    for name in (
        "hf/model.safetensors", "hf/vocab.txt", "hf/config.json",
        "google/bert_model.ckpt.data-00000-of-00001", "google/bert_model.ckpt.index",
        f"ours/{WEIGHTS}", "preset/model.weights.h5", "preset/assets/tokenizer/vocabulary.txt",
    ):  # fmt: skip
        path = tmp_path / name
        whole = path.read_bytes()
        path.write_text(POINTER)
        with pytest.raises(InputError, match=f"{path.name} is a Git LFS pointer.*git lfs pull"):
            convert.load(tmp_path / name.split("/")[0])
        path.write_bytes(whole)
    (tmp_path / "ours" / WEIGHTS).write_text(POINTER)
    with pytest.raises(InputError, match=f"{WEIGHTS} is a Git LFS pointer"):
        checkpoints.load_encoder(tmp_path / "ours")
