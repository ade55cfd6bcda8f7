"""LiteRT and ONNX exports, which take token ids."""

import numpy as np
import pytest
import served
import tensorflow as tf
import tokenizers
import toys

from undivided_tf.errors import InputError
from undivided_tf.export import library_tokenizer, litert, onnx, reference, signatures
from undivided_tf.export.config import ExportConfig
from undivided_tf.export.inference import LITERT, ONNX, InferenceEncoder
from undivided_tf.reporting import model_card

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
    assert (tmp_path / "vocab.txt").exists() and (tmp_path / "tokenizer.json").exists()
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
    with pytest.raises(InputError, match=r"onnxruntime.* pip install 'undivided_tf\[onnx\]'"):
        onnx.write(tmp_path, served.parts(), ExportConfig(output_format="onnx"))


def test_other_formats_are_made_of_float32():
    with pytest.raises(InputError, match="litert needs float32 weights, got dtype bfloat16"):
        ExportConfig(output_format="litert", dtype="bfloat16")


def test_gelu_is_one_operation_of_onnxruntime():
    """onnxruntime fuses `erf(x / 1.4142)` alone; constant folding had made a product of it."""
    onnx_library = pytest.importorskip("onnx", reason="needs the extra onnx")
    make = onnx_library.helper.make_node
    graph = onnx_library.helper.make_graph(
        [make("Mul", ["x", "factor"], ["scaled"], "scale"), make("Erf", ["scaled"], ["y"])],
        "gelu",
        [],
        [],
        [onnx_library.numpy_helper.from_array(np.array(np.sqrt(0.5), np.float32), "factor")],
    )
    onnx._divide_before_erf(graph)
    divide = graph.node[0]
    values = {one.name: onnx_library.numpy_helper.to_array(one) for one in graph.initializer}
    assert divide.op_type == "Div" and values[divide.input[1]] == np.float32(np.sqrt(2))


@pytest.mark.slow
@pytest.mark.parametrize("output_format", ["litert", "onnx"])
@pytest.mark.parametrize("name", ["embed", "fill_mask", "classify"])
def test_the_code_of_the_card_runs_without_our_package(tmp_path, output_format, name):
    if output_format == "onnx":
        pytest.importorskip("tf2onnx", reason="needs the extra onnx")
    parts = served.parts()
    config = ExportConfig(output_format=output_format, signatures=(name,))
    {"litert": litert, "onnx": onnx}[output_format].write(tmp_path, parts, config)
    inputs = signatures.IDS | ({"masked_positions": ""} if name == "fill_mask" else {})
    card = model_card._use_of_ids(output_format, name, inputs)
    *code, call = card.replace("THIS_FOLDER", str(tmp_path)).splitlines()[1:-1]
    scope = {}
    exec("\n".join(code), scope)
    found = eval(call, scope)
    text = scope["rows"][0]
    ids = {"token_ids": text.ids, "segment_ids": text.type_ids, "padding_mask": text.attention_mask}
    batch = {key: np.array([value]) for key, value in ids.items()}
    if name == "embed":
        expected = parts.encoder(batch)["pooled_output"]
    elif name == "classify":
        expected = tf.nn.softmax(parts.classifier(batch))
    else:
        assert parts.tokenizer.mask_id in text.ids
        batch["masked_positions"] = np.array([[text.ids.index(parts.tokenizer.mask_id)]])
        logits = parts.masked_lm(batch)["masked_lm_logits"]
        expected = tf.nn.softmax(logits[..., : parts.tokenizer.vocab_size])
    output = {"embed": "pooled", "classify": "probabilities", "fill_mask": "scores"}[name]
    np.testing.assert_allclose(found[output], expected, atol=1e-5)


def test_tokenizer_json_gives_the_ids_of_our_tokenizer(tmp_path):
    parts = served.parts()
    made = signatures.of_ids(("embed",), parts, ONNX, 8)
    library_tokenizer.write(tmp_path, parts.tokenizer, made)
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    words = toys.FILLERS
    texts = [" ".join(words[:3]), f"{words[1]}os {words[2]}. zzz", "", " ".join(words * 3)]
    ours = parts.tokenizer.encode(texts, max_seq_length=8)
    rows = library.encode_batch(texts)
    assert [row.ids for row in rows] == ours["token_ids"].numpy().tolist()
    assert [row.attention_mask for row in rows] == ours["padding_mask"].numpy().tolist()
    pair = parts.tokenizer.encode([words[0]], [words[1]], max_seq_length=8)
    found = library.encode(words[0], words[1])
    assert found.ids == pair["token_ids"][0, : len(found.ids)].numpy().tolist()
    assert found.type_ids == pair["segment_ids"][0, : len(found.ids)].numpy().tolist()
