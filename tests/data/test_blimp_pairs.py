import json
import zipfile

import pytest

from undivided_tf.data import blimp
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


def test_what_is_no_archive_of_pairs_is_named(tmp_path):
    with pytest.raises(InputError, match="none.zip: cannot be read"):
        blimp.read(tmp_path / "none.zip")
    with pytest.raises(InputError, match=r"data/toy.jsonl:2: no pair of BLiMP .*sentence_bad"):
        blimp.read(write(tmp_path / "b.zip", [row("a", "b"), '{"sentence_good": "a"}']))
    with pytest.raises(InputError, match="holds no .jsonl file"):
        blimp.read(write(tmp_path / "b.zip", [], "data/toy.txt"))


def test_the_archive_of_warstadt(shared_data):
    found = blimp.read(shared_data / "blimp" / "BLiMP.zip")
    assert len(found) == 67 and {len(paradigm.pairs) for paradigm in found} == {1000}
    assert len({paradigm.phenomenon for paradigm in found}) == 13
