"""LiteRT and ONNX, which take ids."""

import numpy as np
import pytest
import served
import tensorflow as tf
import toys

from undivided_tf.errors import InputError
from undivided_tf.export import litert, onnx, reference, signatures
from undivided_tf.export.config import ExportConfig
from undivided_tf.export.inference import LITERT, ONNX, InferenceEncoder

NAMES = ("classify", "answer", "fill_mask", "embed")


ROTARY = {"position_type": "rotary", "rotary_base": 100.0, "query_key_norm": True}


@pytest.mark.parametrize("options", [{}, ROTARY], ids=["plain", "rotary"])
@pytest.mark.parametrize("operations", [LITERT, ONNX], ids=["LiteRT", "ONNX"])
def test_functions_of_ids_are_those_of_the_keras_models(operations, options):
    parts = served.parts(options=options)
    made = signatures.of_ids(("classify", "classify_pair", *NAMES[1:]), parts, operations)
    assert tuple(signature.name for signature in made) == NAMES
    for signature in made:

        def run(signature=signature, **inputs):
            tensors = {name: tf.constant(value) for name, value in inputs.items()}
            found = signature.function(**tensors)
            assert set(found) == set(signature.outputs)
            return {name: value.numpy() for name, value in found.items()}

        assert reference.largest_difference_of_ids(parts, signature.name, toys.LENGTH, run) < 1e-5


@pytest.mark.parametrize(
    ("labels", "about", "output"),
    [
        ((), {"score_range": (-0.25, 0.25)}, "score"),
        (("rude", "loud"), {"kind": "multi_label"}, "probabilities"),
    ],
)
def test_ids_give_scores_within_their_range_and_sigmoids(labels, about, output):
    parts = served.parts(labels, about={**about, "max_seq_length": 9, "input": "pair"})
    (signature,) = signatures.of_ids(parts.choose(("classify_pair",)), parts, LITERT)
    assert (signature.name, signature.max_seq_length) == ("classify", 9)
    assert set(signature.outputs) == {output}
    inputs = parts.tokenizer.encode(["the cat", "a mat"], ["on", "hill tree"], max_seq_length=9)
    logits = np.asarray(parts.classifier(inputs))
    expected = 1 / (1 + np.exp(-logits)) if labels else np.clip(logits, -0.25, 0.25)
    found = signature.function(**inputs)[output].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert labels or (np.abs(logits) > 0.25).any()
    with pytest.raises(InputError, match="trained on pairs of texts, but the signature classify"):
        parts.choose(("classify",))


def test_a_difference_is_seen():
    parts = served.parts()

    def run(**inputs):
        return {"pooled": InferenceEncoder(parts.encoder)(inputs)["pooled_output"].numpy() + 0.25}

    assert reference.largest_difference_of_ids(parts, "embed", toys.LENGTH, run) == pytest.approx(
        0.25, abs=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, ROTARY], ids=["plain", "rotary"])
def test_litert_files_run_at_any_batch_and_length(tmp_path, options):
    parts = served.parts(pooling="first", options=options)
    report = litert.write(tmp_path, parts, ExportConfig(output_format="litert"))
    assert (tmp_path / "vocab.txt").exists()
    for about in report["signatures"].values():
        exact, half, eight_bits = about["differences"].values()
        assert exact < 1e-5 and half < 0.02 and eight_bits < 0.3
        assert exact < half
    sizes = [(tmp_path / name).stat().st_size for name in report["files"]]
    assert sizes == list(report["files"].values())
    # So few weights take no less room in half: the operations that widen them take more.
    half = tf.lite.Interpreter(model_path=str(tmp_path / list(report["files"])[1]))
    assert np.float16 in {tensor["dtype"] for tensor in half.get_tensor_details()}
    interpreter = tf.lite.Interpreter(model_path=str(tmp_path / "model.tflite"))
    assert set(interpreter.get_signature_list()) == set(NAMES)
    run = interpreter.get_signature_runner("embed")
    for batch, length in ((1, 3), (4, 7)):
        inputs = {name: np.ones((batch, length), np.int32) for name in signatures.IDS}
        expected = parts.encoder(inputs)["pooled_output"]
        np.testing.assert_allclose(run(**inputs)["pooled"], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, ROTARY], ids=["plain", "rotary"])
def test_onnx_files_give_what_the_keras_models_give(tmp_path, options):
    pytest.importorskip("tf2onnx", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    parts = served.parts(options=options)
    report = onnx.write(tmp_path, parts, ExportConfig(output_format="onnx"))
    assert tuple(report["signatures"]) == NAMES
    for name, about in report["signatures"].items():
        assert about["differences"][f"{name}.onnx"] < 1e-5


def test_without_the_converter_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime: pip install undivided_tf\[onnx\]"):
        onnx.write(tmp_path, served.parts(), ExportConfig(output_format="onnx"))


def test_other_formats_are_made_of_float32():
    with pytest.raises(InputError, match="litert needs float32 weights, got dtype bfloat16"):
        ExportConfig(output_format="litert", dtype="bfloat16")
