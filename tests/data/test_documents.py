import hashlib
import pathlib

import pytest

from undivided_tf.data.corpus import documents, text_files
from undivided_tf.errors import InputError

CORPUS = pathlib.Path(__file__).parent.parent / "data_files" / "corpus.txt"


def test_blank_lines_separate_documents():
    found = list(text_files.read_file(CORPUS))
    assert [len(document.paragraphs) for document in found] == [2, 2, 1, 2, 1]
    assert found[2].text == "Bees dance to tell each other where the flowers are."
    assert {document.source for document in found} == {str(CORPUS)}
    assert "\n\n".join(document.text for document in found) + "\n" == CORPUS.read_text()


def test_bom_carriage_returns_and_leading_blank_lines_are_no_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf\r\n\r\n one \r\ntwo\r\n\r\n\r\nthree")
    assert [document.paragraphs for document in text_files.read_file(path)] == [
        ("one", "two"),
        ("three",),
    ]


def test_file_that_is_not_utf8_is_named_with_its_line(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("fine\n\ncaf\u00e9\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.txt:3: not UTF-8"):
        list(text_files.read_file(path))


def test_absent_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere.txt: cannot be read: No such file"):
        list(text_files.read_file(tmp_path / "nowhere.txt"))


def test_positions_are_uniform():
    digests = [hashlib.sha256(f"text {i}".encode()).digest() for i in range(2000)]
    positions = [documents.position(digest) for digest in digests]
    assert min(positions) >= 0 and max(positions) < 1
    assert abs(sum(p < 0.1 for p in positions) / 2000 - 0.1) < 0.03


def test_white_space_is_no_document():
    assert list(documents.from_texts("x", [" \n\t\n"])) == []
