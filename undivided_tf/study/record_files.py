"""Files beside the report for other programs: every cell as CSV, and what to cite as BibTeX."""

import csv
import io
from collections.abc import Iterator
from typing import Any

import undivided_tf
from undivided_tf.study.results import StudyResults, primary

COLUMNS = (
    "name", "kind", "status", "seconds", "error", "pattern", "seed", "frame", "size", "task",
    "start", "second_pattern", "second_seed", "second_trained", "measure", "tap", "run", "value",
)  # fmt: skip
MEASURES = {
    "pretraining": (
        "parameters", "forward_flops", "training_flops", "steps", "tokens", "step_milliseconds",
        "tokens_per_second", "training_seconds", "latency_milliseconds", "peak_memory_bytes",
        "unigram_entropy",
    ),
}  # fmt: skip


def cells_csv(study: StudyResults) -> str:
    """One row a measure of a cell; a cell without a result has one row, which says why."""
    written = io.StringIO()
    writer = csv.DictWriter(written, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for cell in study.cells:
        label = cell["label"]
        side = label.get("first", label)
        second = label.get("second", {})
        row = {
            **{key: cell[key] for key in ("name", "kind", "status", "seconds", "error")},
            "pattern": side.get("pattern"),
            "seed": side.get("pretraining_seed", side.get("seed")),
            "frame": label.get("frame", "steps"),
            "second_pattern": second.get("pattern"),
            "second_seed": second.get("seed"),
            "second_trained": second.get("trained"),
            **{key: label.get(key) for key in ("size", "task", "start")},
        }
        for measure in list(_measures(cell)) or [{}]:
            writer.writerow(row | measure)
    return written.getvalue()


def _measures(cell: dict[str, Any]) -> Iterator[dict[str, Any]]:
    result = cell["result"]
    if not result:
        return
    for name in MEASURES.get(cell["kind"], ()):
        yield {"measure": name, "value": result[name]}
    if told := result.get("context_use"):
        yield {"measure": "context_use_loss", "value": told["loss"]}
        yield {"measure": "context_use_shuffled_rise", "value": told["shuffled"]["rise"]}
        for one in told["hidden_beyond"]:
            name = f"context_use_hidden_beyond_{one['distance']}_rise"
            yield {"measure": name, "value": one["rise"]}
    if cell["kind"] == "pretraining":
        for name, value in result["validation"].items():
            value = int(value) if isinstance(value, bool) else value
            yield {"measure": f"validation_{name}", "value": value}
    elif cell["kind"] == "timing":
        for name in ("milliseconds", "reference_milliseconds"):
            for run, value in enumerate(result[name]):
                yield {"measure": name, "run": run, "value": value}
    elif cell["kind"] == "finetuning":
        metric = primary(result)
        for run in result["runs"]:
            yield {"measure": metric, "run": run["seed"], "value": run[result["split"]][metric]}
    elif cell["kind"] == "probing":
        for name in ("accuracy", "untrained_accuracy"):
            for tap, value in zip(result["taps"], result[name], strict=True):
                yield {"measure": name, "tap": tap, "value": value}
    elif cell["kind"] == "cka":
        for tap, row in zip(result["first_taps"], result["matrix"], strict=True):
            for other, value in zip(result["second_taps"], row, strict=True):
                yield {"measure": "cka", "tap": f"{tap} x {other}", "value": value}
    elif cell["kind"] == "diagnostics":
        for name, values in result["blocks"]["collapse"].items():
            for tap, value in zip(result["taps"], values, strict=True):
                yield {"measure": name, "tap": tap, "value": value}
        for block, fit in result["blocks"]["linear_r2"].items():
            yield {"measure": "linear_r2", "tap": block, "value": fit["contribution"]}
    elif cell["kind"] == "blimp":
        yield {"measure": "accuracy", "value": result["accuracy"]}


def bibtex(study: StudyResults) -> str:
    """Entries of this software, in the version that ran, and of the paper that asks."""
    version = study.raw["versions"].get("undivided_tf", undivided_tf.__version__)
    return f"""@software{{undivided_tf,
  title   = {{undivided_tf: are intermediate blocks necessary for BERT?}},
  author  = {{{{The undivided_tf authors}}}},
  version = {{{version}}},
  year    = {{{str(study.raw["created"])[:4]}}},
  license = {{Apache-2.0}}
}}

@article{{sridhar2020undivided,
  title         = {{Undivided Attention: Are Intermediate Layers Necessary for {{BERT}}?}},
  author        = {{Sridhar, Sharath Nittur and Sarah, Anthony}},
  year          = {{2020}},
  eprint        = {{2012.11881}},
  archivePrefix = {{arXiv}},
  url           = {{https://arxiv.org/abs/2012.11881}}
}}
"""
