"""SavedModels: outputs as in Python, supported signatures, sizes and warm-up requests."""

import json
import subprocess
import sys

import numpy as np
import pytest
import served
import tensorflow as tf
import toys

from undivided_tf.errors import InputError
from undivided_tf.export import parts as checkpoint_parts
from undivided_tf.export import reference, saved_model, signatures, texts, warm_up
from undivided_tf.export.config import SIGNATURES, ExportConfig
from undivided_tf.export.inference import InferenceEncoder
from undivided_tf.models import checkpoints
from undivided_tf.models.classifier import Classifier
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.heads import SpanHead
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.models.span_predictor import SpanPredictor
from undivided_tf.training.classifiers import save_classifier

TEXTS = ["the cat sat on a mat", "", "one tree", "ran " * 30]


@pytest.fixture(scope="module")
def parts():
    return served.parts()


@pytest.fixture(scope="module")
def export(parts, tmp_path_factory):
    """All five signatures of a model, written: the folder and the report."""
    folder = tmp_path_factory.mktemp("export")
    return folder, saved_model.write(folder, parts, ExportConfig(top_k=3))


@pytest.fixture(scope="module")
def loaded(export):
    return tf.saved_model.load(str(export[0] / "1")).signatures


def ask(signature, **strings):
    found = signature(**{name: tf.constant(value, tf.string) for name, value in strings.items()})
    return {name: value.numpy() for name, value in found.items()}


def test_every_signature_agrees_with_the_python_path(export):
    signatures = export[1]["signatures"]
    assert tuple(signatures) == SIGNATURES
    for about in signatures.values():
        assert about["largest_difference"] < 1e-5


@pytest.mark.slow
def test_an_encoder_with_rotary_positions_and_query_key_norm_agrees(tmp_path):
    options = {"position_type": "rotary", "rotary_base": 100.0, "query_key_norm": True}
    report = saved_model.write(tmp_path, served.parts(options=options), ExportConfig(top_k=3))
    assert tuple(report["signatures"]) == SIGNATURES
    assert max(about["largest_difference"] for about in report["signatures"].values()) < 1e-5


def test_the_outputs_are_those_that_are_documented(export, loaded):
    for name, about in export[1]["signatures"].items():
        assert set(loaded[name].structured_outputs) == set(about["outputs"])
    default = set(loaded["serving_default"].structured_outputs)
    assert default == set(export[1]["signatures"]["classify"]["outputs"])


def test_a_fresh_process_without_our_sources_gives_the_same(export, loaded, tmp_path):
    code = (
        "import json, sys\n"
        "import tensorflow as tf, tensorflow_text\n"
        "model = tf.saved_model.load(sys.argv[1])\n"
        "found = model.signatures['classify'](text=tf.constant(json.loads(sys.argv[2])))\n"
        "assert not any(name.startswith('undivided') for name in sys.modules)\n"
        "print(json.dumps([found['probabilities'].numpy().tolist(),\n"
        "                  [label.decode() for label in found['label'].numpy()]]))\n"
    )
    (export[0] / "1").rename(tmp_path / "moved")
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path / "moved"), json.dumps(TEXTS)],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    (tmp_path / "moved").rename(export[0] / "1")
    assert done.returncode == 0, done.stderr
    probabilities, labels = json.loads(done.stdout.splitlines()[-1])
    here = ask(loaded["classify"], text=TEXTS)
    np.testing.assert_allclose(probabilities, here["probabilities"], atol=1e-5)
    assert labels == [label.decode() for label in here["label"]]


def test_every_output_has_the_batch_first(loaded):
    """What TensorFlow Serving's row format asks for, and what holds for an empty batch too."""
    for batch in (TEXTS, TEXTS[:1], []):
        for name, inputs in (("classify", ["text"]), ("classify_pair", ["text", "second_text"]),
                             ("embed", ["text"]), ("fill_mask", ["text"]),
                             ("answer", ["question", "context"])):  # fmt: skip
            found = ask(loaded[name], **{key: batch for key in inputs})
            assert {len(values) for values in found.values()} == {len(batch)}, name


def test_labels_stand_beside_their_probabilities(loaded):
    found = ask(loaded["classify_pair"], text=TEXTS, second_text=TEXTS[::-1])
    assert [label.decode() for label in found["labels"][1]] == ["no", "yes", "maybe"]
    np.testing.assert_allclose(found["probabilities"].sum(1), 1, atol=1e-6)
    best = found["labels"][np.arange(4), found["probabilities"].argmax(1)]
    assert (found["label"] == best).all()


def test_a_text_does_not_depend_on_the_others_of_its_batch(loaded):
    together = ask(loaded["embed"], text=TEXTS)
    for row, text in enumerate(TEXTS):
        alone = ask(loaded["embed"], text=[text])
        for name in ("mean", "pooled"):
            np.testing.assert_allclose(alone[name][0], together[name][row], atol=1e-5)


def test_masks_are_filled_with_the_likeliest_pieces(parts, loaded):
    texts = ["the [MASK] sat[MASK]on", "the cat", "[MASK]", "", "[mask] [ MASK ]"]
    found = ask(loaded["fill_mask"], text=texts)
    assert found["mask_count"].tolist() == [2, 0, 1, 0, 0]
    assert found["tokens"].shape == (5, 2, 3)
    expected = reference.fill_mask(parts, texts, toys.LENGTH)
    for row, (count, all_of) in enumerate(zip(found["mask_count"], expected, strict=True)):
        for slot in range(count):
            best = np.argsort(-all_of[slot])[:3]
            pieces = [parts.tokenizer.vocabulary[i] for i in best]
            assert [piece.decode() for piece in found["tokens"][row, slot]] == pieces
            np.testing.assert_allclose(found["scores"][row, slot], all_of[slot][best], atol=1e-5)
        assert (found["tokens"][row, count:] == b"").all()
        assert (found["scores"][row, count:] == 0).all()
    none = ask(loaded["fill_mask"], text=["the cat"])
    assert none["tokens"].tolist() == [[[b""] * 3]] and none["mask_count"].tolist() == [0]


def test_what_is_longer_than_a_model_reads_is_cut(loaded):
    text = "ran " * 14
    short, long = (ask(loaded["embed"], text=[t])["mean"] for t in (text, text + "cat " * 99))
    np.testing.assert_allclose(short, long, atol=1e-6)
    assert ask(loaded["fill_mask"], text=["ran " * 14 + "[MASK]"])["mask_count"].tolist() == [0]


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        (b"the\0mat", b"the mat"),
        (b"the \xff mat", "the \N{REPLACEMENT CHARACTER} mat".encode()),
        (b"\xe2\x82", "\N{REPLACEMENT CHARACTER}".encode()),
        (b"\0", b""),
    ],
)
def test_bytes_that_are_no_text_have_a_defined_answer(loaded, text, same_as):
    found = ask(loaded["embed"], text=[text, same_as])["mean"]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert np.isfinite(ask(loaded["classify"], text=[text])["probabilities"]).all()
    assert ask(loaded["fill_mask"], text=[text])["mask_count"].tolist() == [0]
    answer = ask(loaded["answer"], question=[b"the \xff?"], context=[text])
    assert np.isfinite(answer["score"]).all()


def test_a_regression_gives_a_score():
    parts = served.parts(labels=(), pooling="first")
    encode = InferenceEncoder(parts.encoder)
    signature = signatures.of_texts("classify", parts, encode, ExportConfig())
    assert list(signature.outputs) == ["score"]
    found = signature.function(tf.constant(TEXTS))["score"]
    expected = reference.classify(parts, TEXTS, None, toys.LENGTH)
    np.testing.assert_allclose(found, expected, atol=1e-5)


# === What a checkpoint supports ===


def save_spans(folder, run=None):
    predictor = SpanPredictor(Encoder(served.encoder_config(), seed=3), seed=3)
    folder.mkdir(parents=True)
    checkpoints.save_model(folder, predictor.weights, predictor.encoder.config, served.tokenizer())
    about = {k: v for k, v in served.WINDOWS.items() if k != "null_score_diff_threshold"}
    (folder / SpanHead.FILE).write_text(json.dumps(about))
    if run:
        (folder.parent / "run.json").write_text(json.dumps(run))


def test_the_signatures_are_those_that_the_weights_support(tmp_path):
    encoder = Encoder(served.encoder_config(), seed=3)
    classifier = Classifier(encoder, ("no", "yes"), "max", seed=3)
    save_classifier(
        tmp_path / "classifier", classifier, served.tokenizer(), task="toy", max_seq_length=9
    )
    found = checkpoint_parts.load(str(tmp_path / "classifier"))
    assert found.signatures == ("classify", "classify_pair", "embed")
    assert (found.classifier.pooling, found.classifier_head.max_seq_length) == ("max", 9)
    np.testing.assert_array_equal(found.classifier.head.kernel, classifier.head.kernel)

    (tmp_path / "pretrained").mkdir()
    checkpoints.save_model(
        tmp_path / "pretrained", Pretrainer(encoder).weights, encoder.config, served.tokenizer()
    )
    assert checkpoint_parts.load(str(tmp_path / "pretrained")).signatures == ("fill_mask", "embed")

    save_spans(tmp_path / "run_1" / "model", {"null_score_diff_threshold": -1.5})
    found = checkpoint_parts.load(str(tmp_path / "run_1" / "model"))
    assert found.signatures == ("answer", "embed")
    assert found.span_head.null_score_diff_threshold == -1.5
    with pytest.raises(InputError, match="no head for the signature fill_mask.*answer, embed"):
        found.choose(("embed", "fill_mask"))


def test_an_unknown_signature_is_named():
    with pytest.raises(InputError, match="signatures must be one of classify, .*, got 'clasify'"):
        ExportConfig(signatures=("clasify",))


def test_a_head_that_is_not_there_is_named(tmp_path):
    save_spans(tmp_path / "model")
    (tmp_path / "model" / "classifier.json").write_text(
        json.dumps({"task": "", "labels": ["a"], "pooling": "mean", "max_seq_length": 8})
    )
    with pytest.raises(InputError, match="missing: classifier_head/kernel"):
        checkpoint_parts.load(str(tmp_path / "model"))


def test_more_word_pieces_than_positions_are_refused(parts, tmp_path):
    with pytest.raises(InputError, match="max_seq_length 17 is more than"):
        saved_model.write(tmp_path, parts, ExportConfig(max_seq_length=17))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"jit_compile": True},
        {"jit_compile": True, "pad_to": (4, 8), "batch_sizes": (1, 5)},
        {"dtype": "bfloat16"},
    ],
    ids=str,
)
def test_compiled_and_half_precision_exports_agree(changes, tmp_path):
    encoder = Encoder(served.encoder_config(), seed=3)
    classifier = Classifier(encoder, ("no", "yes"), "first", seed=3)
    save_classifier(
        tmp_path / "model", classifier, served.tokenizer(), task="toy", max_seq_length=9
    )
    config = ExportConfig(input=str(tmp_path / "model"), **changes)
    (tmp_path / "export").mkdir()
    parts = checkpoint_parts.load(config.input, config.dtype)
    report = saved_model.write(tmp_path / "export", parts, config)
    most = 1e-5 if config.dtype == "float32" else 0.1
    for about in report["signatures"].values():
        assert about["largest_difference"] < most


@pytest.mark.slow
def test_the_binary_writes_model_report_and_card(tmp_path):
    save_spans(tmp_path / "run_1" / "model")
    source = f"--input={tmp_path / 'run_1' / 'model'}"
    command = ["export_model", source, f"--output_dir={tmp_path / 'served'}"]
    done = toys.run_binary(*command)
    assert done.returncode == 0, done.stderr
    assert "answer(question, context) -> text, start, end, score, null_odds" in done.stdout
    names = {"1", "README.md", "export.json", "pattern.svg"}
    assert {path.name for path in (tmp_path / "served").iterdir()} == names
    again = toys.run_binary(*command)
    assert again.returncode == 1 and "served exists already; choose another" in again.stderr
    missing = [*command[:-1], f"--output_dir={tmp_path / 'other'}", "--signatures=fill_mask"]
    failed = toys.run_binary(*missing)
    assert failed.returncode == 1 and "no head for the signature fill_mask" in failed.stderr
    assert not (tmp_path / "other").exists()


def test_an_encoder_of_one_segment_has_no_signatures_of_two_texts():
    parts = served.parts(options={"type_vocab_size": 1})
    assert parts.choose(()) == ("classify", "fill_mask", "embed")
    for name in ("classify_pair", "answer"):
        with pytest.raises(InputError, match="needs type_vocab_size 2, but the encoder was made"):
            parts.choose((name,))


@pytest.mark.parametrize(
    ("options", "lengths"),
    [
        ({}, {1: 8, 8: 8, 9: 16, 17: 20}),
        ({"pad_to_multiple_of": 3}, {1: 3, 4: 6, 20: 20}),
        ({"pad_to": (4, 6)}, {1: 4, 4: 4, 5: 6, 7: 12, 13: 18, 19: 20}),
    ],
)
def test_lengths_are_rounded_up(options, lengths):
    for longest, expected in lengths.items():
        mask = np.zeros((2, 20), np.int32)
        mask[1, :longest] = 1
        cut = texts.without_padding({"padding_mask": tf.constant(mask)}, ExportConfig(**options))
        assert cut["padding_mask"].shape == (2, expected)


def test_batches_are_filled_up_for_the_compiler(parts, monkeypatch):
    asked = []

    class Encoder:
        def __init__(self, *_):
            pass

        def __call__(self, inputs, positions=None):
            asked.append(
                (inputs["token_ids"].shape, None if positions is None else positions.shape)
            )
            return {"sequence_output": tf.cast(inputs["token_ids"], tf.float32)}

    monkeypatch.setattr(saved_model, "InferenceEncoder", Encoder)
    encode = saved_model._encode(parts, ExportConfig(jit_compile=True, batch_sizes=(1, 4)))
    for rows in (0, 1, 2, 4, 5):
        ids = tf.random.uniform([rows, 3], 0, 9, tf.int32)
        positions = tf.zeros([rows, 1], tf.int32) if rows % 2 else None
        found = encode({"token_ids": ids}, positions)["sequence_output"]
        np.testing.assert_array_equal(found, ids)
    # 2 and 4 rows are one shape, which is traced once.
    assert asked == [((1, 3), None), ((1, 3), (1, 1)), ((4, 3), None), ((8, 3), (8, 1))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_sizes": (1, 8)}, "batch_sizes need jit_compile"),
        ({"jit_compile": True, "warm_up": True, "pad_to": (8,)}, "warm_up needs pad_to and batch"),
        ({"pad_to": (32, 16)}, r"pad_to \(32, 16\): give each number once, in ascending order"),
        ({"jit_compile": True, "batch_sizes": (8, 8)}, "batch_sizes .*give each number once"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ExportConfig(**options)


def test_every_shape_has_a_request_for_the_server(parts, tmp_path):
    logs = pytest.importorskip(
        "tensorflow_serving.apis.prediction_log_pb2", reason="needs the extra serving"
    )
    config = ExportConfig(jit_compile=True, pad_to=(8, 12), batch_sizes=(1, 3), warm_up=True)
    encode = saved_model._encode(parts, config)
    made = [signatures.of_texts(name, parts, encode, config) for name in SIGNATURES]
    warm_up.write(tmp_path, made, parts, config)
    seen = set()
    for record in tf.data.TFRecordDataset(str(tmp_path / warm_up.FILE)).as_numpy_iterator():
        request = logs.PredictionLog.FromString(record).predict_log.request
        strings = {key: tf.make_ndarray(proto) for key, proto in request.inputs.items()}
        signature = next(one for one in made if one.name == request.model_spec.signature_name)
        assert set(strings) == set(signature.inputs)
        values = [list(strings[key]) for key in signature.inputs]
        mask = parts.tokenizer.encode(*values, max_seq_length=64)["padding_mask"].numpy()
        seen.add((signature.name, len(mask), int(mask.sum(axis=1).max())))
    longest = {one.name: one.max_seq_length for one in made}
    lengths = {name: {*(n for n in (8, 12) if n < most), most} for name, most in longest.items()}
    assert seen == {
        (n, batch, length) for n in longest for batch in (1, 3) for length in lengths[n]
    }


def test_without_the_servers_messages_the_extra_is_named(parts, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis.prediction_log_pb2", None)
    config = ExportConfig(jit_compile=True, pad_to=(8,), batch_sizes=(1,), warm_up=True)
    with pytest.raises(InputError, match=r"pip install 'undivided_tf\[serving\]'"):
        warm_up.write(tmp_path, [], parts, config)


def test_a_vocabulary_without_words_cannot_warm_up():
    with pytest.raises(InputError, match="a word that is one piece"):
        warm_up._word(["[CLS]", "##a", "The", "7"])
    assert warm_up._word(["[CLS]", "##a", "The", "cat"]) == "cat"
