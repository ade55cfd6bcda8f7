"""Block patterns: which attention and intermediate blocks an encoder has, in which order.

A pattern is a string over `A` (attention block) and `I` (intermediate block), with `(...)`
for groups and `*n` for repetition: `(AI)*12` is BERT-Base, `(AAI)*6` keeps every second
intermediate block, `A*12` is undivided attention.
"""

import dataclasses
import functools
from collections.abc import Iterator

from undivided_tf.errors import InputError

ATTENTION = "A"
INTERMEDIATE = "I"
MAX_BLOCKS = 512


@dataclasses.dataclass(frozen=True)
class Block:
    """One block of an encoder.

    Attributes:
        kind: `"attention"` or `"intermediate"`.
        index: the encoder block that it belongs to, counted from 0. An attention block opens
            a new encoder block; so does an intermediate block that follows no attention block
            directly.
    """

    kind: str
    index: int

    @property
    def name(self) -> str:
        """The tap of the block: `block_03/attention`."""
        return f"block_{self.index:02d}/{self.kind}"


@dataclasses.dataclass(frozen=True)
class BlockPattern:
    """The sequence of blocks of an encoder.

    Two patterns are equal when they spell the same blocks. `str(pattern)` is the canonical
    spelling and parses back to the same pattern. Iteration yields `Block`s, `len` counts them.

    Args:
        letters: the blocks spelt out, such as `"AAIAAI"`.

    Examples:
        >>> pattern = BlockPattern.parse("(AAI)*3")
        >>> str(pattern), pattern.num_attention, pattern.num_intermediate
        ('(AAI)*3', 6, 3)
        >>> [block.name for block in pattern][:3]
        ['block_00/attention', 'block_01/attention', 'block_01/intermediate']
    """

    letters: str

    def __post_init__(self):
        if not self.letters or set(self.letters) - {ATTENTION, INTERMEDIATE}:
            raise InputError(f"a pattern needs letters A and I, got {self.letters!r}")
        if len(self.letters) > MAX_BLOCKS:
            raise InputError(f"a pattern has at most {MAX_BLOCKS} blocks, got {len(self.letters)}")

    @classmethod
    def parse(cls, text: str) -> "BlockPattern":
        """Reads a pattern; white space is ignored.

        Args:
            text: for example `"(AI)*6"`, `"AAI AAI"`, `"A*2 (AI)*4 I*2"`.

        Raises:
            InputError: the text is no pattern; the message names the column, from 1.
        """
        return cls(_Parser(text).parse())

    @property
    def num_attention(self) -> int:
        """Number of attention blocks."""
        return self.letters.count(ATTENTION)

    @property
    def num_intermediate(self) -> int:
        """Number of intermediate blocks."""
        return self.letters.count(INTERMEDIATE)

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names of all taps in depth order, `embeddings` first."""
        return ("embeddings", *(block.name for block in self))

    def __iter__(self) -> Iterator[Block]:
        index, previous = -1, INTERMEDIATE
        for letter in self.letters:
            if letter == ATTENTION or previous == INTERMEDIATE:
                index += 1
            yield Block("attention" if letter == ATTENTION else "intermediate", index)
            previous = letter

    def __len__(self) -> int:
        return len(self.letters)

    def counterparts(self, other: "BlockPattern") -> list[str]:
        """For each block, the tap at the same place in another pattern; empty if there is none.

        A place is the number of attention blocks so far, and of intermediate blocks since the last.

        Raises:
            InputError: an intermediate block has no counterpart in `other`.
        """
        places = {place: block.name for place, block in other._places()}
        pairs = [(block, places.get(place, "")) for place, block in self._places()]
        for block, counterpart in pairs:
            if block.kind == "intermediate" and not counterpart:
                raise InputError(
                    f"{block.name} of {self} has no counterpart in {other}: an intermediate block "
                    "can only stay where that pattern has one"
                )
        return [counterpart for _, counterpart in pairs]

    def _places(self) -> Iterator[tuple[tuple[int, int], Block]]:
        """Yields ((attention blocks so far, other blocks since the last), block)."""
        attention = since = 0
        for letter, block in zip(self.letters, self, strict=True):
            attention, since = (attention + 1, 0) if letter == ATTENTION else (attention, since + 1)
            yield (attention, since), block

    def __str__(self) -> str:
        return _shortest_spelling(self.letters)


class _Parser:
    """Recursive descent over `pattern = item+; item = (letter | "(" pattern ")") ["*" number]`."""

    def __init__(self, text: str):
        self.text = text
        self.position = 0

    def parse(self) -> str:
        letters = self._sequence(depth=0)
        if self._peek():
            self._fail(f"unexpected {self._peek()!r}")
        return letters

    def _sequence(self, depth: int) -> str:
        start, letters = self.position, ""
        while (character := self._peek()) and character != ")":
            item = self._item(character, depth)
            letters += item * self._repetition(len(item))
            if len(letters) > MAX_BLOCKS:
                self._fail(f"more than {MAX_BLOCKS} blocks")
        if not letters:
            self.position = start
            self._fail("expected A, I or (")
        return letters

    def _item(self, character: str, depth: int) -> str:
        if character in (ATTENTION, INTERMEDIATE):
            self.position += 1
            return character
        if character != "(":
            self._fail(
                f"unknown block {character!r}; the letters are A (attention), I (intermediate)"
            )
        if depth == 32:
            self._fail("groups nest deeper than 32")
        opening = self.position
        self.position += 1
        letters = self._sequence(depth + 1)
        if self._peek() != ")":
            self.position = opening
            self._fail("this ( is never closed")
        self.position += 1
        return letters

    def _repetition(self, item_length: int) -> int:
        if self._peek() != "*":
            return 1
        self.position += 1
        self._peek()  # Steps over white space.
        start = self.position
        while self.text[self.position : self.position + 1] in tuple("0123456789"):
            self.position += 1
        digits = self.text[start : self.position]
        # Numbers above MAX_BLOCKS need at most four digits; longer ones could fill the memory.
        if not digits or len(digits) > 4 or int(digits) == 0:
            self.position = start
            self._fail("expected a number from 1 after *")
        if int(digits) * item_length > MAX_BLOCKS:
            self._fail(f"more than {MAX_BLOCKS} blocks")
        return int(digits)

    def _peek(self) -> str:
        while self.text[self.position : self.position + 1].isspace():
            self.position += 1
        return self.text[self.position : self.position + 1]

    def _fail(self, reason: str):
        raise InputError(
            f"block pattern {self.text!r}, column {self.position + 1}: {reason}. "
            "Examples: (AI)*12, (AAI)*6, A*12"
        )


@functools.cache
def _shortest_spelling(letters: str) -> str:
    """The spelling with the fewest letters and repetitions: dynamic programming over prefixes."""
    best = [(0, 0, "")]  # For each prefix: cost, items, spelling.
    for end in range(1, len(letters) + 1):
        cost, items, text = best[end - 1]
        choices = [(cost + 1, items + 1, text + letters[end - 1])]
        for size in range(1, end // 2 + 1):
            unit, start, times = letters[end - size : end], end - size, 1
            while start >= size and letters[start - size : start] == unit:
                start, times = start - size, times + 1
                cost, items, text = best[start]
                spelt = f"{unit}*{times}" if size == 1 else f"({unit})*{times}"
                choices.append((cost + size + 1, items + 1, text + spelt))
        # At equal cost prefer fewer items: A*2 instead of AA.
        best.append(min(choices, key=lambda choice: choice[:2]))
    return best[-1][2]


def every_k(attention: int, k: int) -> BlockPattern:
    """An intermediate block after every k-th attention block only: `every_k(6, 2)` is `(AAI)*3`.

    Args:
        attention: number of attention blocks, from 1.
        k: 1 gives BERT; above `attention` there is no intermediate block.
    """
    _require(attention, k=k, least=1)
    return _after_attention(attention, lambda i: (i + 1) % k == 0)


def first_k(attention: int, k: int) -> BlockPattern:
    """Intermediate blocks after the first k attention blocks: `first_k(6, 3)` is `(AI)*3A*3`."""
    _require(attention, k=k, most=attention)
    return _after_attention(attention, lambda i: i < k)


def last_k(attention: int, k: int) -> BlockPattern:
    """Intermediate blocks after the last k attention blocks: `last_k(6, 3)` is `A*3(AI)*3`."""
    _require(attention, k=k, most=attention)
    return _after_attention(attention, lambda i: i >= attention - k)


def middle(attention: int, share: float) -> BlockPattern:
    """Intermediate blocks in the middle share of them: `middle(6, 0.7)` is `A(AI)*4A`.

    With an odd number of blocks outside the middle, one more of them is at the end.

    Args:
        attention: number of attention blocks, from 1.
        share: of them that have an intermediate block, from 0 to 1; rounded to whole blocks.

    References:
        Where feed-forward blocks count most: arXiv 2508.17734.
    """
    _require(attention)
    if not 0 <= share <= 1:
        raise InputError(f"share must be from 0 to 1, got {share}")
    count = round(share * attention)
    first = (attention - count) // 2
    return _after_attention(attention, lambda i: first <= i < first + count)


def without_intermediate(attention: int) -> BlockPattern:
    """Undivided attention: `without_intermediate(6)` is `A*6`."""
    return first_k(attention, 0)


def sandwich(attention: int, k: int) -> BlockPattern:
    """Attention first, intermediate last: `A*k (AI)*(attention - k) I*k`.

    References:
        Press, Smith, Levy 2019, arXiv 1911.03864 (the sandwich coefficient k).
    """
    _require(attention, k=k, most=attention)
    return BlockPattern(ATTENTION * k + "AI" * (attention - k) + INTERMEDIATE * k)


def par(blocks: int, attention: int) -> BlockPattern:
    """Few attention blocks, spread over the first two thirds; all other blocks are intermediate.

    Our reading of the PAR Transformer, which replaces about 63 % of the self-attention blocks
    and finds attention useful in the first two thirds only.

    Args:
        blocks: number of blocks of both kinds.
        attention: number of attention blocks, at most two thirds of `blocks`.

    References:
        Mandava, Migacz, Florea 2020, arXiv 2009.04534.
    """
    zone = -(-2 * blocks // 3)
    _require(attention, attention=attention, most=zone)
    places = {i * zone // attention for i in range(attention)}
    return BlockPattern("".join(ATTENTION if i in places else INTERMEDIATE for i in range(blocks)))


def _after_attention(attention: int, keep) -> BlockPattern:
    return BlockPattern("".join("AI" if keep(i) else "A" for i in range(attention)))


def _require(count: int, least: int = 0, most: int = MAX_BLOCKS, **named: int) -> None:
    if not 1 <= count <= MAX_BLOCKS:
        raise InputError(f"attention must be from 1 to {MAX_BLOCKS}, got {count}")
    for name, value in named.items():
        if not least <= value <= most:
            raise InputError(f"{name} must be from {least} to {most}, got {value}")
