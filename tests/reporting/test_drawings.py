"""Drawings of block patterns show each block once, lined up, with words beside them."""

import xml.etree.ElementTree as ElementTree

import pytest

from undivided_tf.pattern import BlockPattern
from undivided_tf.reporting import drawings

SVG = "{http://www.w3.org/2000/svg}"


def boxes(text):
    """Class and left edge of each block, line by line as drawn."""
    svg = ElementTree.fromstring(drawings.block_pattern(text, "p"))
    return [
        (box.get("class"), int(box.get("x")), int(box.get("y"))) for box in svg.iter(f"{SVG}rect")
    ]


@pytest.mark.parametrize("text", ["A", "I", "(AI)*6", "A*2(AI)*4I*2", "(AAI)*6", "(IA)*20"])
def test_each_block_is_drawn_once_inside_the_picture(text):
    pattern = BlockPattern.parse(text)
    svg = ElementTree.fromstring(drawings.block_pattern(text, "p"))
    assert [box[0] for box in boxes(text)] == [block.kind for block in pattern]
    letters = [t.text for t in svg.iter(f"{SVG}text") if t.get("class") == "letter"]
    assert "".join(letters) == pattern.letters
    assert len({box[1:] for box in boxes(text)}) == len(pattern)
    _, _, width, height = map(int, svg.get("viewBox").split())
    for _, x, y in boxes(text):
        assert 0 <= x <= width - drawings.BOX and 0 <= y <= height - drawings.HEIGHT


def test_blocks_of_several_patterns_line_up():
    full, reduced = boxes("(AI)*6"), boxes("(AAI)*3")
    assert set(reduced) < set(full)


def test_words_stand_beside_the_drawing():
    svg = ElementTree.fromstring(drawings.block_pattern("(AAI)*2", "p"))
    assert svg.find(f"{SVG}title").text == "(AAI)*2"
    assert "A A I A A I" in svg.find(f"{SVG}desc").text
    assert "4 attention blocks" in svg.find(f"{SVG}desc").text
    assert svg.get("aria-labelledby") == "p-title p-description"
