"""All file formats give the same documents, and errors name the place."""

import gzip
import json

import pyarrow
import pytest
from pyarrow import parquet

from undivided_tf.data.corpus import corpora, text_files
from undivided_tf.errors import InputError

TEXTS = ["one\nuno", "two 猫", "three"]


def write(folder, name):
    path = folder / name
    rows = [{"id": n, "text": text, "body": text} for n, text in enumerate(TEXTS)]
    if ".parquet" in name:
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    if ".txt" in name:
        content = "\n\n".join(TEXTS).encode()
    else:
        content = "\n".join(json.dumps(row) for row in [*rows, {"text": " \n"}]).encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


NAMES = ["a.txt", "a.txt.gz", "a.jsonl", "a.ndjson", "a.json.gz", "a.parquet"]


@pytest.mark.parametrize("name", NAMES)
def test_files_of_all_kinds_give_the_same_documents(tmp_path, name):
    path = write(tmp_path, name)
    assert [d.text for d in text_files.read_file(path)] == TEXTS
    (source,) = corpora.sources([str(path)])
    assert [d.text for d in source.read()] == TEXTS


@pytest.mark.parametrize("size", [1, 5, 7, 1 << 20])
def test_documents_do_not_depend_on_how_much_is_read_at_a_time(tmp_path, monkeypatch, size):
    monkeypatch.setattr(text_files, "_BYTES", size)
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\nuno\r\n \r\n\n\ntwo 猫\n\nthree\n".encode())
    assert [d.text for d in text_files.read_file(path)] == TEXTS
    path.write_bytes("one\ntwo\n\ncaf\u00e9\nfour".encode("latin-1"))
    with pytest.raises(InputError, match=r"a\.txt:4: not UTF-8 \(.* at byte 3 of the line"):
        list(text_files.read_file(path))


def test_another_field_may_hold_the_text(tmp_path):
    for name in ("a.jsonl", "a.parquet"):
        path = write(tmp_path, name)
        rows = [d.text for d in text_files.read_file(path, "body")] if name != "a.jsonl" else TEXTS
        assert rows == TEXTS
    (tmp_path / "b.jsonl").write_text('{"body": "one"}\n')
    (source,) = corpora.sources([f"{tmp_path}/b.jsonl"], text_field="body")
    assert [d.text for d in source.read()] == ["one"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt.gz", b"no gzip at all", r"a\.txt\.gz: damaged gzip file after line 0: Not a gz"),
        (
            "a.txt.gz",
            gzip.compress(b"one\n" * 99999, mtime=0)[:-20],
            r"damaged gzip file after line \d+",
        ),
        ("a.jsonl.gz", gzip.compress(b"{}", mtime=0)[:15], "damaged gzip file"),
        ("a.jsonl", b'{"text": "one"}\n\n{"txt": "two"}', r"a\.jsonl:3: no field 'text', only txt"),
        ("a.jsonl", b'{"text": "one"}\n{"txt": "two"}', "only txt; name the field: --text_field="),
        ("a.jsonl", b'{"text": 3}', r"a\.jsonl:1: 'text' is 3, which is not text"),
        ("a.jsonl", b'{"text": null}', r"a\.jsonl:1: 'text' is null, which is not text"),
        ("a.jsonl", b"[1]", r"a\.jsonl:1: no field 'text', only a list"),
        ("a.jsonl", b'{"text": "one"}\nplain text', r"a\.jsonl:2: not JSON \(.*a JSON object"),
        ("a.json", b'{\n  "text": "one"\n}', r"a\.json:1: not JSON"),
        ("a.jsonl", rb'{"text": "a \ud83d"}', r"a\.jsonl:1: 'text' contains a lone surr"),
        ("a.parquet", b"no parquet at all", r"a\.parquet: cannot be read as Parquet"),
    ],
)
def test_invalid_files_are_named_with_the_fault(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(text_files.read_file(path))


def test_a_parquet_file_without_the_column_names_those_it_has(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"id": [1], "body": ["one"]}), path)
    message = r"a\.parquet: no column 'text' of strings, only id \(int64\), body \((large_)?string"
    with pytest.raises(InputError, match=message):
        list(text_files.read_file(path))
    with pytest.raises(InputError, match="no column 'id' of strings"):
        list(text_files.read_file(path, "id"))


def test_small_files_make_a_portion_together_and_others_stand_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "PORTION_BYTES", 10)
    for number, size in enumerate((4, 4, 4, 30, 1)):
        (tmp_path / f"{number}.txt").write_bytes(b"x" * size)
    found = corpora.sources([f"{tmp_path}/*.txt", "tfds:wikipedia"])
    portions = corpora.portions(found)
    names = [[source.name[-5:] for source in portion.sources] for portion in portions]
    assert names == [["0.txt", "1.txt", "2.txt"], ["3.txt"], ["4.txt"], ["pedia"]]
    assert [portion.number for portion in portions] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["a.JSONL", "a.Json.GZ", "a.TXT.GZ", "a.PARQUET", "A.TXT"])
def test_extensions_in_capitals_are_recognised(tmp_path, name):
    source = write(tmp_path, name.lower())
    path = source.rename(tmp_path / f"capitals_{name}")
    assert [d.text for d in text_files.read_file(path)] == TEXTS
    assert text_files.is_plain(str(path)) == (name == "A.TXT")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.txt.gz", "a.parquet"])
@pytest.mark.parametrize("other", ["corpus", "corpus.txt"])
def test_content_decides_the_format_of_a_file_with_another_extension(tmp_path, name, other):
    path = write(tmp_path, name).rename(tmp_path / other)
    assert [d.text for d in text_files.read_file(path)] == TEXTS


def test_text_with_a_brace_in_its_first_line_stays_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n{one}\n{two\n")
    assert [d.text for d in text_files.read_file(path)] == ["{one}\n{two"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16", "utf-32-le"])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl"])
def test_utf_16_without_a_mark_is_refused_as_a_corpus(tmp_path, encoding, name):
    path = tmp_path / name
    content = "one word\nand two".encode(encoding)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(InputError, match=rf"{name}:1: (a NUL byte.*UTF-16|not UTF-8)"):
        list(text_files.read_file(path))


def test_a_nul_byte_is_named_with_its_line_whatever_is_read_at_a_time(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ntwo\nth\0ree\n")
    for size in (1, 5, 1 << 20):
        monkeypatch.setattr(text_files, "_BYTES", size)
        with pytest.raises(InputError, match=r"a\.txt:3: a NUL byte"):
            list(text_files.read_file(path))


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"PK\x03\x04", "is a zip archive: unpack it"),
        (b"BZh9", "is compressed with bzip2"),
        (b"\xfd7zXZ\0", "is compressed with xz"),
        (b"\x28\xb5\x2f\xfd", "is compressed with zstd"),
        (b"%PDF-1.7", "is a PDF"),
    ],
)
def test_unsupported_formats_are_named(tmp_path, start, message):
    path = tmp_path / "a.txt"
    path.write_bytes(start + b" and more")
    with pytest.raises(InputError, match=rf"a\.txt: {message}"):
        list(text_files.read_file(path))


def test_missing_values_of_parquet_are_counted(tmp_path, caplog):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["one", None, None, "two"]}), path)
    assert [d.text for d in text_files.read_file(path)] == ["one", "two"]
    assert "a.parquet: 2 rows have no 'text' and are skipped" in caplog.text


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "a.parquet"])
def test_flipped_bytes_are_named_with_their_file(tmp_path, name):
    path = write(tmp_path, name)
    content = path.read_bytes()
    for place in range(0, len(content) - 1, 2):
        path.write_bytes(content[:place] + b"\xaa\x55" + content[place + 2 :])
        try:
            list(text_files.read_file(path))
        except InputError as error:
            assert str(path) in str(error)
