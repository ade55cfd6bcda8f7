import functools
import hashlib
import pathlib

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
import tokenizers
from hypothesis import strategies

from undivided_tf.data import sample
from undivided_tf.data.corpus.vocabulary_training import train_vocabulary
from undivided_tf.errors import InputError
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer

BERT_VOCABULARY = (
    pathlib.Path(__file__).parents[1] / ".." / "shared" / "data" / "bert" / "vocab.txt"
)
PIECES = [*SPECIAL_TOKENS, "un", "##want", "##ed", "runn", "##ing", ",", "a", "b", "c", "wort"]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(PIECES)


def test_words_of_the_bert_paper_are_split_as_there(tokenizer):
    # The example of google-research/bert's tokenization_test.py.
    ids = tokenizer.tokenize(["UNwant\u00e9d,running", "zzz wort"]).to_list()
    assert ids == [[5, 6, 7, 10, 8, 9], [tokenizer.unk_id, 14]]


def test_encode_pairs_and_padding(tokenizer):
    batch = tokenizer.encode(["a b", "c"], ["wort", ""], max_seq_length=8)
    np.testing.assert_array_equal(
        batch["token_ids"], [[2, 11, 12, 3, 14, 3, 0, 0], [2, 13, 3, 3, 0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(
        batch["segment_ids"], [[0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(
        batch["padding_mask"], [[1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]]
    )
    assert all(value.dtype == tf.int32 for value in batch.values())


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
    strategies.integers(0, 12), strategies.integers(0, 12), strategies.integers(5, 16)
)
def test_truncation_equals_popping_the_longer_text(tokenizer, n, m, length):
    first, second = ["a"] * n, ["b"] * m
    expected_first, expected_second = first[:], second[:]
    while len(expected_first) + len(expected_second) > length - 3:
        # google-research/bert, run_classifier.py, _truncate_seq_pair.
        longer = expected_first if len(expected_first) > len(expected_second) else expected_second
        longer.pop()
    batch = tokenizer.encode([" ".join(first)], [" ".join(second)], max_seq_length=length)
    ids = [2, *[11] * len(expected_first), 3, *[12] * len(expected_second), 3]
    assert batch["token_ids"].numpy()[0].tolist() == ids + [0] * (length - len(ids))


def test_encode_in_tf_data_has_static_shapes_and_equals_eager(tokenizer):
    first, second = ["a b c wort a b", "unwanted", "a", "b"], ["a b c", "c", "a", "b"]
    for pair in (False, True):
        data = tf.data.Dataset.from_tensor_slices((first, second)).batch(2, drop_remainder=True)
        data = data.map(lambda x, y: tokenizer.encode(x, y if pair else None, max_seq_length=6))  # noqa: B023
        assert {spec.shape.as_list() == [2, 6] for spec in data.element_spec.values()} == {True}
        eager = tokenizer.encode(first, second if pair else None, max_seq_length=6)
        for name in eager:
            np.testing.assert_array_equal(np.concatenate([b[name] for b in data]), eager[name])


def test_too_short_a_sequence_is_refused(tokenizer):
    with pytest.raises(InputError, match="max_seq_length 4 is too short"):
        tokenizer.encode(["a"], ["b"], max_seq_length=4)


def test_decode_joins_pieces_and_refuses_strange_ids(tokenizer):
    ids = tokenizer.encode(["Unwanted running, zzz"], max_seq_length=12)["token_ids"]
    assert tokenizer.decode(ids.numpy()) == ["unwanted running , [UNK]"]
    assert tokenizer.decode(tokenizer.tokenize(["a b"])) == ["a b"]
    with pytest.raises(InputError, match=f"token id 15 is outside the vocabulary of {len(PIECES)}"):
        tokenizer.decode([[15]])


def test_attributes(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "vocab.txt")
    assert tokenizer.vocabulary == tuple(PIECES)
    assert tokenizer.is_special.tolist() == [True] * 5 + [False] * 10
    assert np.flatnonzero(tokenizer.is_continuation).tolist() == [6, 7, 9]
    saved = (tmp_path / "vocab.txt").read_bytes()
    assert tokenizer.vocabulary_hash == hashlib.sha256(saved).hexdigest()
    again = Tokenizer(tmp_path / "vocab.txt", do_lower_case=False)
    assert again.vocabulary_hash == tokenizer.vocabulary_hash
    assert again.tokenize(["A a"]).to_list() == [[again.unk_id, 11]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nword\n", r"vocab\.txt: the vocabulary lacks \[MASK\]"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\na\n", r"vocab\.txt:7: .*'a'.* on line 6"),
        (b"[PAD]\n[UNK]\n\n[CLS]\n[SEP]\n[MASK]\n", r"vocab\.txt:3: empty line.*\[empty_2\]"),
        (b"[PAD]\r\n[UNK]\r\n\r\n", r"vocab\.txt:3: empty line"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n\xff\n", r"vocab\.txt:5: not UTF-8"),
        (b"", r"vocab\.txt: the file is empty"),
        (
            b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n" + "\u4e2d".encode() * 100 + b"\n",
            "tensorflow-text cannot use it",
        ),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n", "no word pieces except the special tokens"),
    ],
)
def test_bad_vocabulary_files_are_refused(tmp_path, content, message):
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        Tokenizer(tmp_path / "vocab.txt")


def test_pieces_with_a_line_feed_are_refused():
    with pytest.raises(InputError, match=r"vocabulary:6: word piece 'a\\n' contains a line feed"):
        Tokenizer([*SPECIAL_TOKENS, "a\n"])


# Line 344 of Google's chinese_L-12_H-768_A-12 is U+00A0.
ODD_PIECES = ["\u00a0", "\u2028", "\u2029", "\x85", "\x1c", " ", "a b", "##\u2028", "\0", "\r",
              "\t", "\ufeff", "\u200d", "\U000e0001", "x" * 101, "\u00a0x"]  # fmt: skip


def test_unicode_pieces_make_no_line_end_and_go_out_byte_for_byte(tmp_path):
    pieces = [*SPECIAL_TOKENS, "a", *ODD_PIECES, "b", "##a", "##b"]
    raw = "".join(f"{piece}\n" for piece in pieces).encode()
    (tmp_path / "vocab.txt").write_bytes(raw)
    tokenizer = Tokenizer(tmp_path / "vocab.txt", do_lower_case=False)
    assert tokenizer.vocabulary == tuple(pieces)
    tokenizer.save(tmp_path / "again.txt")
    assert (tmp_path / "again.txt").read_bytes() == raw
    assert tokenizer.vocabulary_hash == hashlib.sha256(raw).hexdigest()


def test_pieces_of_white_space_do_not_swallow_the_space_between_words():
    pieces = [*SPECIAL_TOKENS, "a", *ODD_PIECES, "b", "##a", "##b", "x"]
    ours = Tokenizer(pieces, do_lower_case=False)
    reference = tokenizers.BertWordPieceTokenizer(
        {piece: index for index, piece in enumerate(pieces)}, lowercase=False, strip_accents=False
    )
    spaces = ["\u00a0", "\u2028", "\u2029", " ", "\t", "\r", "\n", "\u3000", "\x01 "]
    texts = [f"{a}{s}{b}" for s in spaces for a in ("a", "a ", "", "x") for b in ("b", " b", "x")]
    expected = [e.ids for e in reference.encode_batch(texts, add_special_tokens=False)]
    assert ours.tokenize(texts).to_list() == expected


def test_crlf_and_byte_order_mark_are_no_part_of_a_piece(tmp_path):
    plain = "".join(f"{piece}\n" for piece in PIECES)
    raw = b"\xef\xbb\xbf" + plain.replace("\n", "\r\n").removesuffix("\r\n").encode()
    (tmp_path / "vocab.txt").write_bytes(raw)
    tokenizer = Tokenizer(tmp_path / "vocab.txt")
    assert tokenizer.vocabulary == tuple(PIECES)
    tokenizer.save(tmp_path / "again.txt")
    assert (tmp_path / "again.txt").read_text() == plain


def test_special_tokens_under_other_names_are_not_to_be_added_to_released_weights():
    pieces = ["<pad>", "[UNK]", "[CLS]", "[SEP]", "[mask]", "a"]
    with pytest.raises(InputError) as caught:
        Tokenizer(pieces)
    message = str(caught.value)
    assert "lacks [PAD], [MASK] (it has '<pad>', '[mask]')" in message
    assert "would have no trained embedding" in message


def test_git_lfs_pointer_as_vocabulary_is_called_one(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 231508\n")
    with pytest.raises(InputError, match=r"vocab\.txt is a Git LFS pointer.*git lfs pull"):
        Tokenizer(path)


LONG = [*SPECIAL_TOKENS, *(mark + letter for letter in "ae\u0430\u304b\uac00\u1100\u1161\U0001f600"
                           for mark in ("", "##"))]  # fmt: skip


@pytest.mark.parametrize("lower", [False, True])
def test_words_have_up_to_100_characters_and_not_bytes(lower):
    tokenizer = Tokenizer(LONG, lower)
    # Cyrillic has two bytes a character, kana three, an emoji four.
    for letter in ("a", "\u0430", "\u304b", "\U0001f600"):
        for count in (34, 51, 99, 100):
            assert len(tokenizer.tokenize([letter * count]).to_list()[0]) == count
        for count in (101, 133, 134, 200, 201, 400, 401, 1000):
            assert tokenizer.tokenize([letter * count]).to_list() == [[tokenizer.unk_id]]
    assert len(tokenizer.tokenize(["\uac00" * 50]).to_list()[0]) == (100 if lower else 50)


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
    strategies.lists(
        strategies.lists(
            strategies.tuples(
                strategies.sampled_from("ae\u00e9\u0430\u304b\uac00\U0001f600z. \u00a0\u4e2d"),
                strategies.sampled_from([1, 2, 33, 34, 50, 51, 67, 99, 100, 101, 250]),
            ),
            max_size=6,
        ).map(lambda parts: "".join(letter * count for letter, count in parts)),
        max_size=6,
    ),
    strategies.booleans(),
)
def test_long_words_are_cut_as_by_the_reference(texts, lower):
    ours, reference = _both_of_long_words(lower)
    encoded = reference.encode_batch(texts, add_special_tokens=False)
    ids, starts, ends = (ragged.to_list() for ragged in ours.tokenize_with_offsets(texts))
    assert ids == ours.tokenize(texts).to_list() == [encoding.ids for encoding in encoded]
    if not lower:  # Of decomposed characters the reference has other offsets.
        theirs = [encoding.offsets for encoding in encoded]
        assert [list(zip(*row, strict=True)) for row in zip(starts, ends, strict=True)] == theirs


@functools.cache
def _both_of_long_words(lower):
    ids = {piece: index for index, piece in enumerate(LONG)}
    reference = tokenizers.BertWordPieceTokenizer(ids, lowercase=lower, strip_accents=lower)
    return Tokenizer(LONG, lower), reference


def test_long_words_in_a_graph_and_in_tf_data():
    tokenizer = Tokenizer(LONG)
    texts = ["a" * 100, "a" * 101, "e a" + "e" * 150 + " a", ""]
    eager = tokenizer.tokenize(texts).to_list()
    assert [len(row) for row in eager] == [100, 1, 3, 0]
    data = tf.data.Dataset.from_tensor_slices(texts).batch(4).map(tokenizer.tokenize)
    assert next(iter(data)).to_list() == eager
    assert tf.function(tokenizer.tokenize)(tf.constant(texts)).to_list() == eager


def test_absent_vocabulary_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere.*: cannot be read"):
        Tokenizer(tmp_path / "nowhere")


def sample_lines():
    speeches = list(sample.read_speeches())[::10]
    articles = list(sample.read_train_articles())[::10]
    return [text for document in speeches + articles for text in document.paragraphs]


@pytest.mark.parametrize(("do_lower_case", "bound"), [(True, 0.997), (False, 1.0)])
def test_agreement_with_the_reference_tokenizer_on_real_text(do_lower_case, bound):
    # Measured on all 36,066 texts of the sample: 99.82 % uncased, 100 % cased.
    lines = sample_lines()
    vocabulary = train_vocabulary(lines, 3000, do_lower_case)
    ours = Tokenizer(vocabulary, do_lower_case).tokenize(lines).to_list()
    reference = tokenizers.BertWordPieceTokenizer(
        {piece: index for index, piece in enumerate(vocabulary)},
        lowercase=do_lower_case,
        strip_accents=do_lower_case,
    )
    theirs = [encoding.ids for encoding in reference.encode_batch(lines, add_special_tokens=False)]
    assert len(lines) > 3000
    equal = np.mean([a == b for a, b in zip(ours, theirs, strict=True)])
    assert bound <= equal


def test_known_differences_to_the_reference_are_as_documented(tokenizer):
    pieces = [*PIECES, "1", "##\u2044", "##2", ".", "ss", "\u03c3", "fi", "[", "]", "mask"]
    folded = Tokenizer(pieces)
    words = ["\u00bd", "\u2026", "\u00df", "\u03c2", "\ufb01", "[MASK]", "a\x00b"]
    assert folded.decode(folded.tokenize(words)) == [
        "1\u20442", ". . .", "ss", "\u03c3", "fi", "[ mask ]", "a b",
    ]  # fmt: skip


def test_bert_vocabulary_gives_berts_ids():
    if not BERT_VOCABULARY.exists():
        pytest.skip("the shared data folder with BERT's vocabulary is absent")
    tokenizer = Tokenizer(BERT_VOCABULARY)
    special = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id)
    assert special + (tokenizer.mask_id, tokenizer.vocab_size) == (0, 100, 101, 102, 103, 30522)
    assert tokenizer.encode(["Hello, world!"], max_seq_length=7)["token_ids"].numpy().tolist() == [
        [101, 7592, 1010, 2088, 999, 102, 0]
    ]


@functools.cache
def of_case(lower):
    return Tokenizer(PIECES, do_lower_case=lower)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    strategies.lists(
        strategies.text(max_size=12) | strategies.text("aÉßﬁ…½한e\u0301\u0315\0😀İ\u1f82 ,Ǆ"),
        max_size=10,
    ),
    strategies.booleans(),
)
def test_offsets_are_characters_of_the_text_as_it_was_given(texts, lower):
    """Concatenated, the pieces without white space and controls give the whole text again."""
    tokenizer = of_case(lower)
    ids, starts, ends = (ragged.to_list() for ragged in tokenizer.tokenize_with_offsets(texts))
    assert ids == tokenizer.tokenize(texts).to_list()
    for text, first, last in zip(texts, starts, ends, strict=True):
        assert first == sorted(first) and last == sorted(last)
        assert all(0 <= start < end <= len(text) for start, end in zip(first, last, strict=True))
        covered = {i for pair in zip(first, last, strict=True) for i in range(*pair)}
        # Outside of all pieces there is nothing that a word consists of.
        outside = [character for i, character in enumerate(text) if i not in covered]
        assert tokenizer.tokenize(outside).to_list() == [[]] * len(outside), outside


def test_offsets_of_characters_that_become_several_and_of_accents(tokenizer):
    text = "UNwant\u00e9d\u0301, …b"
    tokenizer = Tokenizer([*PIECES, "."])
    ids, starts, ends = (ragged.to_list()[0] for ragged in tokenizer.tokenize_with_offsets([text]))
    shown = [
        (tokenizer.vocabulary[i], text[a:b]) for i, a, b in zip(ids, starts, ends, strict=True)
    ]
    assert shown == [
        ("un", "UN"), ("##want", "want"), ("##ed", "\u00e9d\u0301"), (",", ","), (".", "…"),
        (".", "…"), (".", "…"), ("b", "b"),
    ]  # fmt: skip


def test_offsets_can_be_had_inside_a_graph(tokenizer):
    traced = tf.function(tokenizer.tokenize_with_offsets)
    for inside, outside in zip(
        traced(tf.constant(["é a", "", "wort"])),
        tokenizer.tokenize_with_offsets(["é a", "", "wort"]), strict=True,
    ):  # fmt: skip
        assert inside.to_list() == outside.to_list()
