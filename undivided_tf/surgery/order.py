"""Which intermediate blocks to cut: by their place, or in the order that does least damage."""

import dataclasses
from collections.abc import Callable, Sequence

from undivided_tf.errors import InputError
from undivided_tf.pattern import BlockPattern
from undivided_tf.support.progress import bar

Damage = Callable[[Sequence[str]], float]


@dataclasses.dataclass(frozen=True)
class Order:
    """An order of cuts.

    Attributes:
        blocks: the intermediate blocks, that which is cut first in front.
        damages: of no cut, of the first, of the first two ...: one more than blocks.
        single: damage of the removal of each block alone, in the order of the pattern.
        greedy: whether every further cut was measured again.
    """

    blocks: list[str]
    damages: list[float]
    single: dict[str, float]
    greedy: bool


def cut_order(pattern: BlockPattern, damage: Damage, greedy: bool = True) -> Order:
    """The order in which intermediate blocks are cut with least damage.

    Args:
        pattern: of the encoder.
        damage: what shall stay low, such as the held-out loss, without the blocks of these
            names; see `surgery.damage`, or call `cut(encoder, names)` for a measure of your own.
        greedy: measure again what each further removal costs, n (n + 1) / 2 calls and one; else
            rank all by their single removal, at most 2 n calls.
    """
    blocks = intermediate_blocks(pattern)
    left, gone, damages = list(blocks), [], []
    calls = 1 + (len(left) * (len(left) + 1) // 2 if greedy else max(len(left), 2 * len(left) - 1))
    with bar(calls, "damage of cuts", "measurements") as progress:

        def measured(names: Sequence[str]) -> float:
            progress.update()
            return damage(names)

        damages.append(measured([]))
        costs = single = {name: measured([name]) for name in left}
        while left:
            if greedy and gone:
                costs = {name: measured([*gone, name]) for name in left}
            best = min(left, key=costs.get)
            left.remove(best)
            known = greedy or not gone
            gone.append(best)
            damages.append(costs[best] if known else measured(gone))
    return Order(gone, damages, single, greedy)


def intermediate_blocks(pattern: BlockPattern) -> list[str]:
    """Taps of the intermediate blocks of a pattern, in their order."""
    return [block.name for block in pattern if block.kind == "intermediate"]


def by_place(pattern: BlockPattern, cut: str, count: int) -> list[str]:
    """The intermediate blocks to cut by their place.

    Args:
        pattern: of the encoder.
        cut: `first` or `last`: the first or last `count` are cut; `every`: all but each
            `count`-th, so that with 2 the second, fourth ... stay.
        count: number.

    Raises:
        InputError: the pattern has fewer intermediate blocks.
    """
    blocks = intermediate_blocks(pattern)
    if count > len(blocks):
        raise InputError(f"{pattern} has {len(blocks)} intermediate blocks, asked for {count}")
    if cut == "every":
        return [name for number, name in enumerate(blocks, 1) if number % count]
    return blocks[:count] if cut == "first" else blocks[len(blocks) - count :]
