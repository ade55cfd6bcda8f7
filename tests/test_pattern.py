import pytest
from hypothesis import given
from hypothesis import strategies as st

from undivided_tf import pattern
from undivided_tf.errors import InputError
from undivided_tf.pattern import BlockPattern


@pytest.mark.parametrize(
    ("text", "letters", "canonical"),
    [
        ("(AI)*3", "AIAIAI", "(AI)*3"),
        ("AAIAAIAAI", "AAIAAIAAI", "(AAI)*3"),
        ("A*6", "AAAAAA", "A*6"),
        (" A A (AI) * 4 II ", "AAAIAIAIAIII", "A*2(AI)*4I*2"),
        ("((AI)*2A)*2", "AIAIAAIAIA", "(AIAIA)*2"),
        ("I", "I", "I"),
    ],
)
def test_parse_and_canonical_spelling(text, letters, canonical):
    parsed = BlockPattern.parse(text)
    assert parsed.letters == letters
    assert str(parsed) == canonical
    assert BlockPattern.parse(canonical) == parsed


@given(st.text("AI", min_size=1, max_size=40))
def test_canonical_spelling_parses_back_and_is_never_longer_in_letters(letters):
    spelt = str(BlockPattern(letters))
    assert BlockPattern.parse(spelt).letters == letters
    assert sum(character in "AI" for character in spelt) <= len(letters)


@given(st.text("AI()*123 x", max_size=30))
def test_any_text_gives_a_pattern_or_an_input_error_with_a_column(text):
    try:
        parsed = BlockPattern.parse(text)
    except InputError as error:
        assert "column" in str(error)
    else:
        assert parsed.num_attention + parsed.num_intermediate == len(parsed)


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("", 1, "expected A, I or ("),
        ("(AI)*2B", 7, "unknown block 'B'"),
        ("(AI)*2 a", 8, "unknown block 'a'"),
        ("A(AI", 2, "never closed"),
        ("AI)", 3, "unexpected ')'"),
        ("A*", 3, "expected a number"),
        ("A*0", 3, "expected a number"),
        ("(AI)*999", 9, "more than 512 blocks"),
        ("A*99999999999999", 3, "expected a number"),
        ("((((A)*99)*99)*99)*99", 14, "more than 512 blocks"),
        ("(" * 40 + "A" + ")" * 40, 33, "nest deeper"),
    ],
)
def test_errors_name_column_and_reason(text, column, reason):
    with pytest.raises(InputError) as error:
        BlockPattern.parse(text)
    assert f"column {column}:" in str(error.value)
    assert reason in str(error.value)


def test_blocks_are_numbered_by_encoder_block():
    assert BlockPattern.parse("AAII").tap_names == (
        "embeddings",
        "block_00/attention",
        "block_01/attention",
        "block_01/intermediate",
        "block_02/intermediate",
    )


@given(st.text("AI", min_size=1, max_size=40))
def test_tap_names_are_unique(letters):
    names = BlockPattern(letters).tap_names
    assert len(set(names)) == len(names) == len(letters) + 1


def test_generators():
    assert str(pattern.every_k(6, 1)) == "(AI)*6"
    assert str(pattern.every_k(6, 2)) == "(AAI)*3"
    assert str(pattern.every_k(4, 9)) == "A*4"
    for (attention, share), text in {
        (6, 0.7): "A(AI)*4A", (12, 0.7): "A*2(AI)*8A*2", (3, 0.7): "(AI)*2A"
    }.items():  # fmt: skip
        assert pattern.middle(attention, share) == BlockPattern.parse(text)
    assert (str(pattern.middle(6, 0)), str(pattern.middle(6, 1))) == ("A*6", "(AI)*6")
    assert str(pattern.first_k(6, 3)) == "(AI)*3A*3"
    assert str(pattern.last_k(6, 3)) == "A*3(AI)*3"
    assert str(pattern.without_intermediate(12)) == "A*12"
    assert str(pattern.sandwich(6, 2)) == "A*2(AI)*4I*2"
    with pytest.raises(InputError, match="k must be from 0 to 6, got 7"):
        pattern.sandwich(6, 7)
    with pytest.raises(InputError, match="share must be from 0 to 1, got 1.5"):
        pattern.middle(6, 1.5)
    with pytest.raises(InputError, match="attention must be from 1"):
        pattern.every_k(0, 1)
    with pytest.raises(InputError, match="k must be from 1"):
        pattern.every_k(6, 0)


@given(st.integers(1, 60), st.data())
def test_par_keeps_the_counts_and_attention_in_the_first_two_thirds(blocks, data):
    zone = -(-2 * blocks // 3)
    attention = data.draw(st.integers(1, zone))
    made = pattern.par(blocks, attention)
    assert len(made) == blocks
    assert made.num_attention == attention
    assert made.letters[0] == "A"
    assert "A" not in made.letters[zone:]
