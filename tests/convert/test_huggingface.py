"""Reading Hugging Face folders: every layout of weights and vocabularies, and malformed files."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
import released
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from undivided_tf import convert
from undivided_tf.config import EncoderConfig
from undivided_tf.convert import names, vocabularies
from undivided_tf.convert.config import ConversionConfig
from undivided_tf.convert.tensor_files import SafetensorsReader, write_tensors
from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.classifier import Classifier
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.heads import ClassifierHead
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.models.weights import load_weights, named_weights
from undivided_tf.training import classifiers


def arrays(model):
    return {name: np.asarray(v) for name, v in named_weights(model.weights).items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The weights of the made-up BERT, loaded from its plainest folder."""
    folder = released.write(tmp_path_factory.mktemp("plain") / "bert")
    return arrays(convert.load(folder)[0])


def test_names_and_shapes_are_those_of_the_variables():
    folder_config = {"vocab_size": 60, "hidden_size": 8, "intermediate_size": 16}
    for pattern, changes in (
        ("AIAAI", {"half_layer_norms": True}),
        ("IAI", {"norm_first": True}),
        ("AAI", {"position_type": "rotary", "query_key_norm": True}),
    ):
        config = EncoderConfig(
            **folder_config, num_attention_heads=2, block_pattern=pattern, **changes
        )
        pretrainer = Pretrainer(Encoder(config), next_sentence=True)
        classifier = Classifier(pretrainer.encoder, ["a", "b", "c"])
        expected = {
            name: tuple(v.shape)
            for model in (pretrainer, classifier)
            for name, v in named_weights(model.weights).items()
        }
        head = ClassifierHead(labels=("a", "b", "c"), max_seq_length=9)
        tensors = [
            *names.encoder_tensors(config), *names.masked_lm_tensors(config),
            *names.next_sentence_tensors(config), *names.classifier_tensors(config, head),
        ]  # fmt: skip
        assert {tensor.path: tensor.shape for tensor in tensors} == expected
        assert len({(tensor.module, tensor.part) for tensor in tensors}) == len(tensors)


# === Ways of laying out ===


def _prefixed(tensors):
    return {f"bert.{name}": value for name, value in tensors.items()}


def _old_names(tensors):
    for new, old in (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")):
        tensors = {name.replace(new, old): value for name, value in tensors.items()}
    return tensors


def _with_position_ids(tensors):
    return {**tensors, "embeddings.position_ids": np.arange(12)[np.newaxis]}


@pytest.mark.parametrize("change", [_prefixed, _old_names, _with_position_ids])
def test_layouts_give_the_same_encoder(tmp_path, plain, change):
    folder = released.write(tmp_path / "bert", change(released.weights()))
    assert_same(arrays(convert.load(folder)[0]), plain)


def test_shards_give_the_same_encoder(tmp_path, plain):
    folder, tensors = released.write(tmp_path / "bert"), released.weights()
    (folder / "model.safetensors").unlink()
    place = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for file in set(place.values()):
        save_file({n: v for n, v in tensors.items() if place[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    assert_same(arrays(convert.load(folder)[0]), plain)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_widened(tmp_path, plain, kind):
    folder = released.write(tmp_path / "bert")
    halves = {name: value.astype(kind) for name, value in released.weights().items()}
    if kind is np.float16:
        save_file(halves, folder / "model.safetensors")
    else:  # The library has no NumPy type for it.
        header, body = {}, b""
        for name, value in halves.items():
            raw = value.tobytes()
            place = [len(body), len(body) + len(raw)]
            header[name] = {"dtype": "BF16", "shape": value.shape, "data_offsets": place}
            body += raw
        text = json.dumps(header).encode()
        whole = struct.pack("<Q", len(text)) + text + body
        (folder / "model.safetensors").write_bytes(whole)
    expected = {name: value.astype(kind).astype("float32") for name, value in plain.items()}
    assert_same(arrays(convert.load(folder)[0]), expected)


# === Vocabulary and casing ===


def test_vocabulary_and_casing_come_along(tmp_path):
    folder = released.write(tmp_path / "bert")
    assert vocabularies.read_tokenizer(folder, "config.json").do_lower_case
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert not vocabularies.read_tokenizer(folder, "config.json").do_lower_case
    (folder / "tokenizer_config.json").unlink()
    assert vocabularies.read_tokenizer(folder, "config.json").do_lower_case
    (folder / "vocab.txt").unlink()
    ids = {piece: i for i, piece in enumerate(released.PIECES)}
    whole = {"model": {"type": "WordPiece", "vocab": ids}, "normalizer": {"lowercase": False}}
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    tokenizer = vocabularies.read_tokenizer(folder, "config.json")
    assert tokenizer.vocabulary == tuple(released.PIECES) and not tokenizer.do_lower_case


def test_capital_letters_in_the_vocabulary_tell_the_casing():
    assert vocabularies.guess_lower_case(("[CLS]", "[unused1]", "cat", "##s", "é", "中"), "there")
    assert not vocabularies.guess_lower_case(("[CLS]", "cat", "Paris"), "there")


# === Heads, and the checkpoint of ours ===


def converted(folder):
    output = folder.with_name("ours")
    report = convert.convert(ConversionConfig(input=str(folder), output_dir=str(output)))
    return output, report


def test_pretraining_heads_come_along(tmp_path, plain):
    tensors = released.weights(["cls"])
    tied = {"cls.predictions.decoder.weight": tensors["embeddings.word_embeddings.weight"]}
    output, report = converted(released.write(tmp_path / "bert", _prefixed({**tensors, **tied})))
    encoder, _ = checkpoints.load_encoder(output)
    assert_same(arrays(encoder), plain)
    model = Pretrainer(encoder, next_sentence=True)
    load_weights(model.weights, output)
    head = model.masked_lm_head
    name = "cls.predictions.transform"
    np.testing.assert_array_equal(head.transform.kernel, tensors[f"{name}.dense.weight"].T)
    np.testing.assert_array_equal(head.layer_norm.gamma, tensors[f"{name}.LayerNorm.weight"])
    np.testing.assert_array_equal(head.output_bias, tensors["cls.predictions.bias"])
    kernel = model.next_sentence_head.kernel
    np.testing.assert_array_equal(kernel, tensors["cls.seq_relationship.weight"].T)
    assert report["coverage"]["tied"] == ["cls.predictions.decoder.weight"]
    assert len(report["coverage"]["loaded"]) == len(tensors)
    assert not report["coverage"]["unused"]


def test_sequence_classifier_comes_along(tmp_path):
    tensors = released.weights(["classifier"])
    folder = released.write(
        tmp_path / "bert",
        tensors,
        architectures=["BertForSequenceClassification"],
        id2label={"0": "no", "1": "perhaps", "2": "yes"},
    )
    classifier, _ = classifiers.load_classifier(converted(folder)[0])
    assert classifier.labels == ("no", "perhaps", "yes")
    np.testing.assert_array_equal(classifier.head.kernel, tensors["classifier.weight"].T)


def test_unused_and_missing_weights_are_reported(tmp_path):
    tensors = {
        name: value for name, value in released.weights().items() if not name.startswith("pooler")
    }
    odd = {"regression.weight": np.zeros((2, 8), "float32")}
    output, report = converted(released.write(tmp_path / "bert", {**tensors, **odd}))
    assert report["coverage"]["unused"] == ["regression.weight"]
    assert report["coverage"]["initial"] == ["encoder/pooler/kernel", "encoder/pooler/bias"]
    assert len(report["coverage"]["loaded"]) == len(tensors)
    kernel = checkpoints.load_encoder(output)[0].pooler.kernel
    assert 0.001 < np.std(kernel) < 0.1 and json.loads((output / "conversion.json").read_text())


def test_an_existing_output_is_not_replaced(tmp_path):
    folder = released.write(tmp_path / "bert")
    converted(folder)
    with pytest.raises(InputError, match="exists already"):
        converted(folder)
    with pytest.raises(InputError, match="a directory for the results is needed: --output_dir=DIR"):
        convert.convert(ConversionConfig(input=str(folder)))


# === Bad input ===


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "roberta"}, "model_type is 'roberta'; known here: bert"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"position_embedding_type": "rotary"}, "position_embedding_type is 'rotary'; known here"),
        ({"position_type": "rotary"}, "position_type is 'rotary'; known here: 'absolute' with mod"),
        (
            {"query_key_norm": True},
            "query_key_norm is True; known here: False with model_type bert",
        ),
        (
            {"model_type": "undivided_bert", "block_pattern": "AIAI", "position_type": "rotary"},
            "position_embedding_type is 'absolute'; known here: rotary",
        ),
        ({"hidden_act": "swish"}, "hidden_act is 'swish'; known here: gelu"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers is '2'"),
        ({"num_hidden_layers": 10**12}, "expected a number from 1"),
        ({"num_hidden_layers": 3}, r"missing: encoder\.layer\.2\."),
        ({"num_hidden_layers": 1}, r"not of this architecture: encoder\.layer\.1\."),
        ({"intermediate_size": 10**15}, r"shape of encoder\.layer\.0\.intermediate"),
        ({"hidden_size": [8]}, "hidden_size must be of type int"),
        ({"vocab_size": 61}, "vocab_size is 61, but the vocabulary beside it has 60"),
        ({"id2label": {"0": "no"}, "architectures": ["BertForSequenceClassification"]}, "id2label"),
    ],
)
def test_configs_at_fault_are_refused(tmp_path, changes, message):
    folder = released.write(tmp_path / "bert", released.weights(["classifier"]), **changes)
    with pytest.raises(InputError, match=message):
        convert.load(folder)


def test_untied_output_matrix_is_refused(tmp_path):
    tensors = released.weights(["cls"])
    tensors["cls.predictions.decoder.weight"] = np.zeros((60, 8), "float32")
    with pytest.raises(InputError, match="differs from embeddings.word_embeddings.weight"):
        convert.load(released.write(tmp_path / "bert", tensors))


def test_pickles_are_refused_with_the_remedy(tmp_path):
    folder = released.write(tmp_path / "bert")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin, a pickle.*safe_serialization=True"):
        convert.load(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"a": "../other.safetensors"}, "not a plain name"),
        ({"a": "/etc/passwd"}, "not a plain name"),
        ({"a": 3}, "not a plain name"),
        ({"a": "model-9.safetensors"}, "names the shard model-9.safetensors, which is not"),
        ({"a": "model.safetensors"}, "names a, which is not in model.safetensors"),
        ([], "no weight_map"),
    ],
)
def test_indexes_at_fault_are_refused(tmp_path, index, message):
    folder = released.write(tmp_path / "bert")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(InputError, match=message):
        convert.load(folder)


def test_integers_are_no_weights(tmp_path):
    tensors = released.weights()
    tensors["pooler.dense.bias"] = np.zeros(8, "int32")
    with pytest.raises(InputError, match=r"pooler\.dense\.bias holds I32"):
        convert.load(released.write(tmp_path / "bert", tensors))


def _header(**changes):
    values = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}
    return {"a": values}


@pytest.mark.parametrize(
    ("header", "length"),
    [
        (_header(), 2**62), (_header(), 10**6), (_header(data_offsets=[0, 4]), None),
        (_header(data_offsets=[8, 0]), None), (_header(data_offsets=[0, 10**12]), None),
        (_header(shape=[2**40, 2**40]), None), (_header(shape=[-2]), None),
        (_header(dtype="F13"), None), ({**_header(), "b": _header()["a"]}, None), ([], None),
    ],
)  # fmt: skip
def test_lying_headers_are_refused(tmp_path, header, length):
    text = json.dumps(header).encode()
    path = tmp_path / "bad.safetensors"
    path.write_bytes(struct.pack("<Q", length or len(text)) + text + bytes(8))
    with pytest.raises(InputError, match="not a complete safetensors file"):
        SafetensorsReader([path])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder to damage, with the bytes of its weights and its config."""
    folder = released.write(tmp_path_factory.mktemp("fuzz") / "bert")
    files = {name: (folder / name).read_bytes() for name in ("model.safetensors", "config.json")}
    return folder, files


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_damaged_files_give_only_our_error(whole, data):
    folder, files = whole
    name = data.draw(st.sampled_from(sorted(files)))
    raw = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 4))):
        # Most of the file is numbers, in which any bytes are good.
        place = data.draw(st.integers(0, min(len(raw), 4000) - 1))
        raw[place] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))]
    (folder / name).write_bytes(raw)
    try:
        convert.converter.open_checkpoint(folder)
    except InputError:
        pass
    finally:
        (folder / name).write_bytes(files[name])


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner)),
    max_leaves=5,
)


@settings(max_examples=25, deadline=None)
@given(key=st.sampled_from([*released.CONFIG, "id2label", "is_decoder"]), value=JSON)
def test_any_value_in_a_config_gives_only_our_error(whole, key, value):
    folder, files = whole
    (folder / "config.json").write_text(json.dumps({**released.CONFIG, key: value}))
    try:
        convert.converter.open_checkpoint(folder)
    except InputError:
        pass
    finally:
        (folder / "config.json").write_bytes(files["config.json"])


def test_nested_json_is_refused(tmp_path):
    folder = released.write(tmp_path / "bert")
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="nested too deeply"):
        convert.load(folder)


def test_writer_agrees_with_the_library(tmp_path):
    values = released.weights()
    tensors = [
        (name, value.shape, lambda v=value: v.astype("f8")) for name, value in values.items()
    ]
    write_tensors(tmp_path / "a.safetensors", tensors)
    reader = SafetensorsReader([tmp_path / "a.safetensors"])
    assert_same({name: reader.read(name) for name in reader.shapes}, values)
