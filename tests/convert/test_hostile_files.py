"""Malformed files raise InputError and nothing else, within little memory."""

import json
import struct
import tracemalloc

import pytest
import released
from hypothesis import given, settings
from hypothesis import strategies as st

from undivided_tf import convert
from undivided_tf.convert.tensor_files import INDEX, SafetensorsReader
from undivided_tf.errors import InputError

LIMIT = 16 * 2**20  # Bytes; the files have a few thousand.
NUMBERS = st.one_of(
    st.integers(-2, 40), st.sampled_from([2**31, 2**40, 2**63, 2**64 - 1, 10**400]), st.floats()
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner)),
    max_leaves=6,
)
DTYPES = st.sampled_from(["F32", "F16", "BF16", "F64", "I64", "BOOL", "F8_E4M3", "F4", "F13", ""])
TENSOR = st.fixed_dictionaries(
    {
        "dtype": st.one_of(DTYPES, JSON),
        "shape": st.one_of(st.lists(NUMBERS, max_size=3), JSON),
        "data_offsets": st.one_of(st.lists(NUMBERS, min_size=2, max_size=2), JSON),
    }
)
HEADER = st.one_of(
    st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), st.one_of(TENSOR, JSON)), JSON
)
NAMES = st.sampled_from(
    ["../model.safetensors", "/etc/passwd", "..", "", ".", "a/b", "\\x", "\0", "model.safetensors",
     "nothing.safetensors", "~", "C:\\x", "model.safetensors/."]
)  # fmt: skip


def bounded(call):
    """The call ends, with our error or none, without much memory."""
    tracemalloc.start()
    try:
        call()
    except InputError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < LIMIT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return released.write(tmp_path_factory.mktemp("hostile") / "bert")


def read_all(path):
    reader = SafetensorsReader([path])
    for name in reader.shapes:
        reader.read(name)


@settings(max_examples=150, deadline=None)
@given(header=HEADER, size=st.integers(0, 64), lie=st.one_of(st.none(), st.integers(0, 2**64 - 1)))
def test_headers_that_lie(folder, header, size, lie):
    text = json.dumps(header).encode()
    path = folder / "header.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if lie is None else lie) + text + bytes(size))
    bounded(lambda: read_all(path))


@settings(max_examples=60, deadline=None)
@given(offsets=st.lists(st.tuples(st.integers(0, 16), st.integers(0, 16)), min_size=2, max_size=3))
def test_tensors_never_share_bytes(folder, offsets):
    """What is read whole has tensors behind each other, without overlap or gap."""
    header = {
        f"t{i}": {"dtype": "F32", "shape": [max(0, end - start) // 4], "data_offsets": [start, end]}
        for i, (start, end) in enumerate(offsets)
    }
    text = json.dumps(header).encode()
    path = folder / "overlap.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    try:
        read_all(path)
    except InputError:
        return
    ends = sorted(offsets)
    assert [end for _, end in ends] == [start for start, _ in ends[1:]] + [16]


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 4000))
def test_truncated_files(folder, cut):
    raw = (folder / "model.safetensors").read_bytes()
    path = folder / "short.safetensors"
    path.write_bytes(raw[: min(cut, len(raw) - 1)])
    with pytest.raises(InputError):
        read_all(path)


@settings(max_examples=20, deadline=None)
@given(names=st.one_of(st.dictionaries(st.text(max_size=3), st.one_of(NAMES, JSON)), JSON))
def test_indexes_stay_in_their_folder(folder, names):
    path = folder / INDEX
    path.write_text(json.dumps({"weight_map": names}))
    try:
        with pytest.raises(InputError):
            convert.converter.open_checkpoint(folder)
    finally:
        path.unlink()


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(
        ["config.json", "tokenizer_config.json", "tokenizer.json", "added_tokens.json"]
    ),
    changes=st.dictionaries(
        st.sampled_from(
            [
                *released.CONFIG,
                "id2label",
                "do_lower_case",
                "model",
                "normalizer",
                "never_split",
                "tokenizer_class",
                "unk_token",
                "added_tokens",
                "added_tokens_decoder",
                "pre_tokenizer",
                "vocabulary_hash",
                "strip_accents",
            ]
        ),
        JSON | st.fixed_dictionaries({"vocab": JSON, "9" * 5000: JSON}),
    ),
)
def test_configs_with_any_values(folder, name, changes):
    path = folder / name
    before = path.read_bytes() if path.exists() else None
    path.write_text(json.dumps({**released.CONFIG, **changes}))
    try:
        bounded(lambda: convert.converter.open_checkpoint(folder))
    finally:
        path.unlink() if before is None else path.write_bytes(before)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", INDEX])
def test_deep_nesting(tmp_path, name):
    folder = released.write(tmp_path / "bert")
    for text in ("[" * 100_000, '{"a":' * 100_000, "[" * 5_000 + "]" * 5_000):
        (folder / name).write_text(text)
        with pytest.raises(InputError):
            convert.converter.open_checkpoint(folder)
