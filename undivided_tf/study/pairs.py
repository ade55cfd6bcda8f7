"""What encoders are called, how two are related, and CKA of their matched attention taps."""

import statistics
from typing import Any


def encoder_name(encoder: dict[str, Any]) -> str:
    """`(AI)*6, seed 1, untrained`; the seed where it is known: converted weights have none."""
    parts = [encoder["pattern"]]
    if encoder["seed"] is not None:
        parts.append(f"seed {encoder['seed']}")
    return ", ".join(parts if encoder["trained"] else [*parts, "untrained"])


def cka_relation(pair: dict[str, Any]) -> str:
    """`itself`, `untrained`, `other seed` or `other pattern`: how `second` differs from `first`."""
    first, second = pair["first"], pair["second"]
    if not (first["trained"] and second["trained"]):
        return "untrained"
    if first["pattern"] != second["pattern"]:
        return "other pattern"
    return "itself" if first["seed"] == second["seed"] else "other seed"


def matched_attention(result: dict[str, Any]) -> list[float | None]:
    """CKA of the i-th attention tap of the first encoder with the i-th of the second.

    As many entries as the encoder with fewer attention blocks has; None where CKA could not
    be computed.
    """
    rows, columns = (
        [i for i, tap in enumerate(result[key]) if tap.endswith("/attention")]
        for key in ("first_taps", "second_taps")
    )
    return [result["matrix"][i][j] for i, j in zip(rows, columns, strict=False)]


def mean_matched_attention(results: list[dict[str, Any]]) -> float | None:
    """Mean over the matrices and their matched attention taps; None when nothing is known."""
    values = [v for result in results for v in matched_attention(result) if v is not None]
    return statistics.fmean(values) if values else None
