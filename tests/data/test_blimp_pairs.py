import json
import zipfile

import pytest

from undivided_tf.data.tasks import blimp
from undivided_tf.errors import InputError


def write(path, rows, name="data/toy.jsonl"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__MACOSX/data/._toy.jsonl", b"\x00")
        archive.writestr("README.md", "no pairs")
        archive.writestr(name, "\n".join(rows))
    return path


def row(good, bad):
    about = {"UID": "toy", "linguistics_term": "agreement", "field": "syntax"}
    return json.dumps({"sentence_good": good, "sentence_bad": bad, **about})


def test_paradigms(tmp_path):
    path = write(tmp_path / "b.zip", [row("a b", "b a"), row("c", "d")])
    assert blimp.read(path) == [
        blimp.Paradigm("toy", "agreement", "syntax", (("a b", "b a"), ("c", "d")))
    ]


def test_an_absent_archive_or_one_without_pairs_is_refused(tmp_path):
    with pytest.raises(InputError, match="none.zip: cannot be read"):
        blimp.read(tmp_path / "none.zip")
    with pytest.raises(InputError, match="holds no .jsonl file"):
        blimp.read(write(tmp_path / "b.zip", [], "data/toy.txt"))


ABOUT = {"UID": "toy", "linguistics_term": "agreement", "field": "syntax"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"sentence_good": "a", **ABOUT}, "there is no 'sentence_bad'"),
        ({"sentence_good": "a", "sentence_bad": " ", **ABOUT}, "'sentence_bad' is \" \""),
        (
            {"sentence_good": 1, "sentence_bad": "b", **ABOUT},
            "'sentence_good' is 1 instead of a text",
        ),
        ({"sentence_good": "a", "sentence_bad": "b"}, "there is no 'UID'"),
        (
            {"sentence_good": "a", "sentence_bad": "b", **ABOUT, "UID": "x"},
            "x, agreement, syntax, b",
        ),
        ("no JSON", "not JSON"),
        ([1], "there is no 'sentence_good'"),
    ],
)
def test_a_line_without_uid_or_sentence_is_named(tmp_path, line, message):
    line = line if isinstance(line, str) else json.dumps(line)
    path = write(tmp_path / "b.zip", [row("a", "b"), line])
    with pytest.raises(InputError, match=rf"b.zip/data/toy.jsonl:2: .*{message}"):
        blimp.read(path)


def test_an_empty_file_a_foreign_encoding_and_damage_are_named(tmp_path):
    with pytest.raises(InputError, match=r"data/toy.jsonl: has no pairs"):
        blimp.read(write(tmp_path / "b.zip", [""]))
    path = tmp_path / "c.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy.jsonl", f"{row('a', 'b')}\n".encode() + b'{"UID": "caf\xe9"}')
    with pytest.raises(InputError, match=r"c.zip/toy.jsonl:2: not UTF-8"):
        blimp.read(path)
    content = bytearray(path.read_bytes())
    content[45] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"c.zip/toy.jsonl: damaged: Bad CRC"):
        blimp.read(path)


def test_two_files_of_one_paradigm_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for name in ("a.jsonl", "b.jsonl"):
            archive.writestr(name, row("a", "b"))
    with pytest.raises(InputError, match="b.zip/b.jsonl: the paradigm 'toy' is in another file"):
        blimp.read(tmp_path / "b.zip")


def test_the_archive_of_warstadt(shared_data):
    found = blimp.read(shared_data / "blimp" / "BLiMP.zip")
    assert len(found) == 67 and {len(paradigm.pairs) for paradigm in found} == {1000}
    assert len({paradigm.phenomenon for paradigm in found}) == 13
    assert sum(good == bad for paradigm in found for good, bad in paradigm.pairs) == 7
