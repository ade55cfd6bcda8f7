"""How numbers and names are written, in one place; needs no TensorFlow."""

import dataclasses
import math
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from undivided_tf.metrics import inference

MINUS = "\N{MINUS SIGN}"


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over independent repetitions.

    Attributes:
        mean: the mean.
        interval: its 95 % interval by Student's t; None when n is 1.
        n: number of repetitions.
    """

    mean: float
    interval: tuple[float, float] | None
    n: int


def estimate(values: Iterable[float]) -> Estimate | None:
    """Mean and interval of repetitions; None if there are none."""
    values = list(values)
    if not values:
        return None
    summary = inference.summarize(values)
    interval = None if summary["n"] == 1 else (summary["low"], summary["high"])
    return Estimate(summary["mean"], interval, summary["n"])


def paired(first: Mapping[Hashable, float], second: Mapping[Hashable, float]) -> Estimate | None:
    """Estimate of `first - second` over the keys (seeds) that both have; None if there are none."""
    return estimate(first[key] - second[key] for key in first if key in second)


MEASURE_NAMES = {
    "cka": "CKA",
    "svcca": "SVCCA",
    "pwcca": "PWCCA",
    "procrustes": "Procrustes distance",
    "rsa": "RSA",
}
METRICS = {
    "f1": "F1",
    "matthews_correlation": "Matthews correlation",
    "spearman": "Spearman correlation",
}


def metric(name: str) -> str:
    """A metric's name in text; all are shown times 100."""
    return METRICS.get(name, name)


def binomial_half_width(share: float, rows: int) -> float:
    """Half the 95 % interval that an accuracy has from the sampling of `rows` alone (normal)."""
    return 1.96 * math.sqrt(share * (1 - share) / rows)


def decimals(value: float, places: int) -> str:
    """`1,234.50`, with a real minus sign and no minus zero."""
    text = f"{value:,.{places}f}"
    return (text.lstrip("-") if float(text.replace(",", "")) == 0 else text).replace("-", MINUS)


def signed(value: float, places: int) -> str:
    """As `decimals`, with a plus sign above 0."""
    text = decimals(value, places)
    return f"+{text}" if value > 0 and text.strip("0.") else text


def count(value: float) -> str:
    """A whole number with thousands separated."""
    return decimals(value, 0)


def loss(value: float) -> str:
    """Nats, three decimals."""
    return decimals(value, 3)


def loss_difference(value: float) -> str:
    """A difference in nats, with its sign and three decimals."""
    return signed(value, 3)


def multiplier(value: float) -> str:
    """A multiple, two decimals, without a sign."""
    return decimals(value, 2)


def percent(share: float) -> str:
    """A share of 1 in per cent, one decimal, without the sign."""
    return decimals(100 * share, 1)


def points(difference: float) -> str:
    """A difference of shares in percentage points."""
    return signed(100 * difference, 1)


def ratio(value: float, reference: float) -> str:
    """`0.74×`."""
    return f"{decimals(value / reference, 2)}×"


def large(value: float) -> str:
    """Three digits with an SI prefix: `12.3 M`."""
    for limit, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            scaled = value / limit
            return f"{decimals(scaled, 2 if scaled < 10 else 1 if scaled < 100 else 0)} {prefix}"
    return decimals(value, 0)


def memory(size: float) -> str:
    """Bytes as MiB, or GiB from 10 GiB on."""
    if size >= 10 * 2**30:
        return f"{decimals(size / 2**30, 1)} GiB"
    return f"{decimals(size / 2**20, 0)} MiB"


def duration(seconds: float) -> str:
    """`42.0 s`, `3 min 12 s` or `2 h 05 min`."""
    if seconds < 60:
        return f"{decimals(seconds, 1)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def between(interval: tuple[float, float], show) -> str:
    """An interval: `80.1 to 82.3`."""
    return f"{show(interval[0])} to {show(interval[1])}"


def encoder_name(encoder: dict[str, Any]) -> str:
    """`(AI)*6, seed 1, untrained`; without a seed for converted weights, which have none."""
    parts = [encoder["pattern"]]
    if encoder["seed"] is not None:
        parts.append(f"seed {encoder['seed']}")
    return ", ".join(parts if encoder["trained"] else [*parts, "untrained"])


def primary(result: dict[str, Any]) -> str:
    """The metric of a fine-tuning result that tables and figures show."""
    return result.get("primary", "accuracy")


def compared(difference: float, more: str, less: str, show, unit: str) -> str:
    """`1.2 points below`."""
    return f"{show(abs(difference))} {unit} {more if difference > 0 else less}"


def uncertainty(difference: Estimate, unit: str, show) -> str:
    """`95 % interval -1.2 to +0.3, n = 3 encoders`."""
    if difference.interval is None:
        return f"n = 1 {unit}, no interval"
    return f"95 % interval {between(difference.interval, show)}, n = {difference.n} {unit}s"


def plural(number: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"
