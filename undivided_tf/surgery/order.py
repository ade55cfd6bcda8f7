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
        blocks: the intermediate blocks in the order in which they are cut.
        damages: damage of no cut, of the first cut, of the first two ...: one more than blocks.
        single: damage of the removal of each block alone, in the order of the pattern.
        greedy: whether the damage was measured again after every cut.
    """

    blocks: list[str]
    damages: list[float]
    single: dict[str, float]
    greedy: bool


def cut_order(pattern: BlockPattern, damage: Damage, greedy: bool = True) -> Order:
    """The order in which intermediate blocks are cut with least damage.

    Args:
        pattern: pattern of the encoder.
        damage: function from the names of dropped blocks to a number that should stay low, such as
            the held-out loss; see `surgery.damage`. A measure of your own can score
            `cut(encoder, names)`.
        greedy: after every cut, measure the removal of each remaining block again, in
            n (n + 1) / 2 + 1 calls; else rank the blocks by their single removals, in at most 2 n
            calls.
    """
    remaining, dropped = intermediate_blocks(pattern), []
    count = len(remaining)
    calls = 1 + (count * (count + 1) // 2 if greedy else max(count, 2 * count - 1))
    with bar(calls, "damage of cuts", "measurements") as progress:

        def measure(names: Sequence[str]) -> float:
            progress.update()
            return damage(names)

        damages = [measure([])]
        costs = single = {name: measure([name]) for name in remaining}
        while remaining:
            if greedy and dropped:
                costs = {name: measure([*dropped, name]) for name in remaining}
            best = min(remaining, key=costs.get)
            is_measured = greedy or not dropped
            remaining.remove(best)
            dropped.append(best)
            damages.append(costs[best] if is_measured else measure(dropped))
    return Order(dropped, damages, single, greedy)


def intermediate_blocks(pattern: BlockPattern) -> list[str]:
    """Taps of the intermediate blocks of a pattern, in their order."""
    return [block.name for block in pattern if block.kind == "intermediate"]


def by_place(pattern: BlockPattern, cut: str, count: int) -> list[str]:
    """The intermediate blocks to cut by their place.

    Args:
        pattern: pattern of the encoder.
        cut: `first` or `last`: the first or last `count` are cut; `every`: all but each
            `count`-th, so that with 2 the second, fourth ... stay.
        count: number of blocks to cut, or the step of `every`.

    Raises:
        InputError: the pattern has fewer intermediate blocks.
    """
    blocks = intermediate_blocks(pattern)
    if count > len(blocks):
        raise InputError(f"{pattern} has {len(blocks)} intermediate blocks, asked for {count}")
    if cut == "every":
        return [name for number, name in enumerate(blocks, 1) if number % count]
    return blocks[:count] if cut == "first" else blocks[len(blocks) - count :]
