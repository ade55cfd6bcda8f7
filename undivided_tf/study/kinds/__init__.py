"""Kinds of cells: one file for each says all that a study knows of it.

A new analysis is a file here and an entry of `KINDS`; its settings are a section of the study's
config. A kind of your own need not stand here: name its class in `--kinds`.
"""

import importlib
from typing import Any

from undivided_tf.errors import InputError
from undivided_tf.study import numbers
from undivided_tf.study.cells import Kind
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.kinds.blimp import Blimp
from undivided_tf.study.kinds.cka import Cka
from undivided_tf.study.kinds.diagnostics import Diagnostics
from undivided_tf.study.kinds.finetuning import Finetuning
from undivided_tf.study.kinds.masked_loss import MaskedLoss
from undivided_tf.study.kinds.mechanism import Mechanism
from undivided_tf.study.kinds.pretraining import Pretraining
from undivided_tf.study.kinds.probing import Probing
from undivided_tf.study.kinds.records import Records
from undivided_tf.study.kinds.surgery import Surgery
from undivided_tf.study.kinds.timing import Timing
from undivided_tf.study.results import StudyResults

# In the order in which cells of one turn run.
KINDS = (
    Records(),
    Timing(),
    Surgery(),
    Pretraining(),
    Finetuning(),
    Cka(),
    Probing(),
    Diagnostics(),
    Blimp(),
    MaskedLoss(),
    Mechanism(),
)


def of(config: StudyConfig) -> tuple[Kind, ...]:
    """The kinds of a study: `KINDS` but for those left out, and those that its config names.

    Raises:
        InputError: a name is no class of kind, or two kinds have one name.
    """
    kinds = (*KINDS, *map(_load, config.kinds))
    names = [kind.name for kind in kinds]
    for kind in kinds[len(KINDS) :]:
        if names.count(kind.name) > 1:
            raise InputError(f"kinds: {kind.name!r} is the name of two kinds: {', '.join(names)}")
    return tuple(kind for kind in kinds if kind.name not in config.leave_out)


def _load(path: str) -> Kind:
    module, _, name = path.partition(":")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"kinds has {path!r}, which is no MODULE:CLASS on the Python path: {error}"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, Kind) and kind.name and kind.call):
        raise InputError(f"kinds has {path!r}, which is no subclass of Kind with name and call")
    return kind()


def read_results(raw: dict[str, Any]) -> StudyResults:
    """A study from the content of its results.json.

    Raises:
        InputError: its config is not one of this version, or names a kind that is not there.
    """
    config = StudyConfig.from_dict(raw["config"], "results.json: config")
    kinds = of(config)
    return StudyResults(raw, config, kinds, numbers.tidy(raw["cells"], kinds))
