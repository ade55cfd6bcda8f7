"""Inline SVG of a block pattern: blocks that read from the residual line and add back to it."""

import xml.etree.ElementTree as ElementTree

from undivided_tf.pattern import Block, BlockPattern

ENCODER_BLOCKS_A_LINE = 6
SLOT, BOX, HEIGHT = 46, 34, 34
MARGIN, LINE, LINE_HEIGHT = 30, 62, 104
SLOTS = {"attention": 0, "intermediate": 1}
LETTERS = {"attention": "A", "intermediate": "I"}
# Also in the drawing itself, so that it keeps its colours outside of the page.
COLOURS = {"attention": "#1d5fa8", "intermediate": "#a8480b"}


def block_pattern(text: str, identifier: str) -> str:
    """Draws a pattern, from the embeddings at the left to the output at the right.

    Each encoder block has two places, attention and intermediate; an absent block leaves its
    place empty, so that drawings of several patterns line up. Colours come from the classes
    `attention`, `intermediate`, `residual` and `label` where the page styles them.

    Args:
        text: the pattern.
        identifier: start of the ids inside the drawing; unique on the page.

    Returns:
        An `<svg>` element with title and description.
    """
    pattern = BlockPattern.parse(text)
    blocks = list(pattern)
    indices = blocks[-1].index + 1
    lines = -(-indices // ENCODER_BLOCKS_A_LINE)
    columns = min(indices, ENCODER_BLOCKS_A_LINE)
    width, height = 2 * MARGIN + 2 * SLOT * columns, LINE_HEIGHT * lines
    title, description = f"{identifier}-title", f"{identifier}-description"
    svg = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "class": "pattern",
            "role": "img",
            "aria-labelledby": f"{title} {description}",
            "viewBox": f"0 0 {width} {height}",
            "width": str(width),
            "height": str(height),
        },
    )
    _add(svg, "title", str(pattern), id=title)
    _add(svg, "desc", describe(pattern), id=description)
    for line in range(lines):
        first = line * ENCODER_BLOCKS_A_LINE
        _residual(svg, line, range(first, min(first + ENCODER_BLOCKS_A_LINE, indices)))
    _arrow(svg, lines - 1, indices - (lines - 1) * ENCODER_BLOCKS_A_LINE)
    for block in blocks:
        _block(svg, block)
    return ElementTree.tostring(svg, encoding="unicode")


def describe(pattern: BlockPattern) -> str:
    """The pattern in words."""
    return (
        f"From embeddings to output: {' '.join(pattern.letters)}. "
        f"{pattern.num_attention} attention blocks (A) and {pattern.num_intermediate} "
        "intermediate blocks (I), each adding to the residual line."
    )


def _residual(svg: ElementTree.Element, line: int, indices: range) -> None:
    """The residual line of some encoder blocks, with the numbers of their taps."""
    y = line * LINE_HEIGHT + LINE
    _path(svg, f"M {MARGIN - 18} {y} H {MARGIN + 2 * SLOT * len(indices) + 12}")
    if line == 0:
        _add(svg, "circle", **_round(MARGIN - 18, y, 4), **{"class": "sum", "fill": "#555"})
    for column, index in enumerate(indices):
        _label(svg, MARGIN + 2 * SLOT * column + SLOT, y + 26, str(index))


def _arrow(svg: ElementTree.Element, line: int, columns: int) -> None:
    x, y = MARGIN + 2 * SLOT * columns + 12, line * LINE_HEIGHT + LINE
    _path(svg, f"M {x - 6} {y - 5} L {x} {y} L {x - 6} {y + 5}")


def _block(svg: ElementTree.Element, block: Block) -> None:
    line, column = divmod(block.index, ENCODER_BLOCKS_A_LINE)
    y = line * LINE_HEIGHT + LINE
    left = MARGIN + (2 * column + SLOTS[block.kind]) * SLOT + (SLOT - BOX) // 2
    top, middle, right = y - 16 - HEIGHT, y - 16 - HEIGHT // 2, left + BOX
    # Out of the line in front of the box, through it, and back onto the line behind it.
    _path(svg, f"M {left - 3} {y} V {middle} H {right + 3} V {y}")
    _add(svg, "circle", **_round(right + 3, y, 3), **{"class": "sum", "fill": "#555"})
    _add(
        svg,
        "rect",
        x=str(left),
        y=str(top),
        width=str(BOX),
        height=str(HEIGHT),
        rx="6",
        fill=COLOURS[block.kind],
        **{"class": block.kind},
    )
    _add(
        svg,
        "text",
        LETTERS[block.kind],
        x=str(left + BOX // 2),
        y=str(middle + 6),
        fill="#fff",
        **{"class": "letter", "text-anchor": "middle", "font-size": "16", "font-weight": "600"},
    )


def _path(svg: ElementTree.Element, way: str) -> None:
    style = {"class": "residual", "stroke-width": "1.5", "fill": "none", "stroke": "#777"}
    _add(svg, "path", d=way, **style)


def _label(svg: ElementTree.Element, x: int, y: int, text: str) -> None:
    style = {"class": "label", "text-anchor": "middle", "font-size": "12", "fill": "#555"}
    _add(svg, "text", text, x=str(x), y=str(y), **style)


def _round(x: int, y: int, radius: int) -> dict[str, str]:
    return {"cx": str(x), "cy": str(y), "r": str(radius)}


def _add(parent: ElementTree.Element, tag: str, text: str = "", **attributes: str) -> None:
    ElementTree.SubElement(parent, tag, attributes).text = text or None
