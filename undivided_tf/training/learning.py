"""The verdict on a run or a checkpoint: whether the encoder has learnt from its context."""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.support import files

ADVICE = (
    "what to change: --position_type=rotary --query_key_norm, with which attention finds the "
    "neighbours early, and --optimizer=muon --learning_rate=5e-3; then more --num_train_steps"
)


def verdict(scores: Mapping[str, Any]) -> str:
    """A sentence that compares the held-out loss with the neighbour model; empty if unknown.

    Args:
        scores: result of `evaluation.scores`, also of older releases.
    """
    if scores.get("learnt") is None:
        return ""
    loss, neighbours = scores["loss"], scores["neighbour_model_loss"]
    numbers = f"({loss:.2f} against {neighbours:.2f} nats)"
    if scores["learnt"]:
        return f"below the neighbour model {numbers}: this encoder has learnt from its context"
    if loss < neighbours:
        return (
            f"not shown to be below the neighbour model {numbers}: it is not certain that this "
            "encoder has learnt from its context"
        )
    return f"not below the neighbour model {numbers}: this encoder has not learnt from its context"


def of_checkpoint(path: str | pathlib.Path) -> dict[str, Any]:
    """The held-out scores of a checkpoint at the last evaluation before it was saved.

    Args:
        path: a pre-training workdir, one of its checkpoints, or the moving average in one.

    Returns:
        Result of `evaluation.scores`; empty for weights without losses of pre-training (converted,
        cut or fine-tuned), or of a release without the neighbour model.

    Raises:
        InputError: there is no checkpoint at `path`.
    """
    path = checkpoints.resolve(path)
    average = path.name == "ema"
    state = (path.parent if average else path) / checkpoints.STATE
    history = files.read_json(state).get("validation_history", []) if state.exists() else []
    scores = history[-1] if history else {}
    if average:
        scores |= {
            name.removeprefix("ema_"): value
            for name, value in scores.items()
            if name.startswith("ema_")
        }
    return scores if "learnt" in scores else {}


def warnings(paths: Iterable[str | pathlib.Path]) -> list[str]:
    """A line for each checkpoint that has not learnt; empty paths are skipped."""
    texts = [(path, warning(path)) for path in dict.fromkeys(paths) if path]
    return [f"WARNING: {path}: {text}" for path, text in texts if text]


def warning(path: str | pathlib.Path) -> str:
    """A warning if an encoder has not learnt; empty if it has learnt or this is unknown.

    Args:
        path: as for `of_checkpoint`; a missing checkpoint gives no warning.
    """
    try:
        scores = of_checkpoint(path)
    except InputError:
        return ""
    return "" if scores.get("learnt") else verdict(scores)
