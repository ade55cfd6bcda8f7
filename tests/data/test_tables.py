import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from undivided_tf.data.tasks.tables import read_table
from undivided_tf.errors import InputError

FIELD = st.text(
    st.characters(exclude_characters="\t\n\r\0\ufeff", exclude_categories=["Cs"]), max_size=20
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(FIELD, FIELD, FIELD), min_size=1, max_size=8),
    bom=st.booleans(),
    ending=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
)
def test_any_fields_are_read_unchanged(tmp_path_factory, rows, bom, ending, last):
    path = tmp_path_factory.mktemp("t") / "a.tsv"
    text = ending.join("\t".join(row) for row in [("x", "y", "z"), *rows])
    path.write_bytes(("\ufeff" * bom + text + ending * last).encode())
    table = read_table(path)
    assert table.header == ["x", "y", "z"]
    assert [tuple(row) for row in table.rows] == rows
    assert table.lines == list(range(2, len(rows) + 2))
    assert table.column("y") == [row[1] for row in rows]


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=60))
def test_any_bytes_give_a_table_or_a_message_with_the_file(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("t") / "a.tsv"
    path.write_bytes(content)
    try:
        table = read_table(path)
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert all(len(row) == len(table.header) for row in table.rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tb\nx\ty\nz\n", r"t\.tsv:3: 1 columns, but the header has 2 \(a, b\)$"),
        (b"a\tb\nz\nx\ty\n1\t2\t3\n", r"t\.tsv:2: 1 columns.*so have 1 more of 3 rows"),
        (b"a\tb\nx\ty\0\n", r"t\.tsv:2: a NUL byte"),
        (b"a\tb\nx\t\xff\n", r"t\.tsv:2: not UTF-8"),
        (b"a\tb\n", r"t\.tsv: has no rows after its header line"),
        (b"", r"t\.tsv: has no rows"),
    ],
)
def test_damaged_files_are_refused_with_their_line(tmp_path, content, message):
    path = tmp_path / "t.tsv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_table(path)


def test_few_malformed_rows_are_dropped_counted_and_logged(tmp_path, caplog):
    path = tmp_path / "t.tsv"
    path.write_text("a\tb\n" + "x\ty\n" * 5 + "short\n" + "x\ty\n" * 4)
    table = read_table(path, tolerance=0.1)
    assert len(table.rows) == 9 and table.lines == [2, 3, 4, 5, 6, 8, 9, 10, 11]
    assert "1 of 10 rows dropped" in caplog.text and "line 7" in caplog.text
    with pytest.raises(InputError, match=r"t\.tsv:7: 1 columns"):
        read_table(path, tolerance=0.09)


def test_a_field_of_100_000_characters_is_read(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("a\tb\n" + "x" * 100_000 + '\t"never closed\n')
    assert [len(field) for field in read_table(path).rows[0]] == [100_000, 13]


def test_columns_may_be_given_for_a_file_without_header(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("x\ty\n")
    table = read_table(path, ("a", "b"))
    assert table.rows == [["x", "y"]] and table.lines == [1]
    path.write_text("")
    with pytest.raises(InputError, match="has no rows$"):
        read_table(path, ("a", "b"))
