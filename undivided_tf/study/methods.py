"""What a study did, by its config: sentences and tables of settings."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from undivided_tf.config import Config
from undivided_tf.reporting import formatting
from undivided_tf.reporting.content import (
    Bullets,
    Code,
    Details,
    Finding,
    Findings,
    Section,
    Table,
    Text,
    Value,
    number,
)
from undivided_tf.study import budgets
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.results import StudyResults

CHAPTER = "Methods"
LONGEST_LIST = 8
_COMPILING = "compiling_seconds"


def section(study: StudyResults) -> Section:
    """How the numbers came about."""
    findings = [
        finding
        for kind in study.kinds
        if kind.included(study.config)
        for finding in kind.methods(study)
    ]
    parts = (
        Text("Written from the config of this run, which was started by:"),
        Code(study.raw["command"]),
        Findings((*findings, *_budgets(study))),
        sources(study),
        corpus(study),
        environment(study),
        Details("Settings that are not the defaults", tuple(settings(study))),
        Details("Every cell", (cells(study),)),
    )
    return Section(CHAPTER, "", parts)


# What `budgets.NAMES` leaves out.
_BUDGETS = {
    budgets.FLOPS: "equal training FLOPs: its steps are multiplied by the ratio of closed-form "
    "FLOPs of a step (matrix products, forward and backward), warm-up keeps its share",
    budgets.TIME: "equal training time: its steps are multiplied by the ratio of step times, the "
    "median of the rounds in turn",
    budgets.SURGERY: "an equal start: its blocks are cut out of the trained reference of the same "
    "seed, with their weights, and pre-trained on for a share of the steps (healing), which come "
    "on top of the reference's",
}


def _budgets(study: StudyResults) -> Iterator[Finding]:
    """How the budgets beside equal steps were met."""
    if methods := [
        _BUDGETS.get(budget, budgets.NAMES[budget]) for budget in budgets.others(study.config)
    ]:
        patterns = ", ".join(f"`{pattern}`" for pattern in budgets.compared(study.config))
        yield Finding(
            "Budgets",
            f"{patterns}: pre-trained and fine-tuned again beside `{study.reference}`, with the "
            f"same seeds and tasks, at {'; at '.join(methods)}. Equal parameters are within "
            f"{formatting.percent(budgets.TOLERANCE)} %, all else is as at equal steps. The "
            "encoders of these budgets are not analysed.",
        )


def limits(study: StudyResults) -> Section:
    """What the numbers do not show."""
    config = study.config
    _, seeds = config.seed_counts
    lines = [
        f"The encoders are small (hidden size {config.pretraining.encoder.hidden_size}) and see "
        "little text.",
        "At equal time, FLOPs or parameters the order of patterns may differ from that at equal "
        "steps.",
        "Intervals are of single comparisons; none is corrected for their number.",
        f"Times and memory are those of {formatting.plural(len(study.machines), 'machine')}.",
    ]
    if study.tasks:
        lines.append(
            f"A score is averaged over the fine-tuning runs of each encoder; n is {seeds} at most."
            if seeds > 1
            else "One pre-training seed: intervals cover fine-tuning seeds only."
        )
    return Section("Limits", "", (Bullets(tuple(lines)),))


def sources(study: StudyResults) -> Table:
    """Where the text comes from."""
    rows = (
        (Value(s["name"], s.get("version", "")), Value(s["licence"]), Value(s["description"]))
        for s in study.raw["sources"]
    )
    return Table("Data sources", ("source", "licence", "what it is"), tuple(rows))


def corpus(study: StudyResults) -> Table:
    """The metadata of the records, but for what `sources` shows; no rows if they failed."""
    metadata = dict(study.raw["corpus"] or {})
    shown = {source["name"]: source for source in study.raw["sources"]}
    if isinstance(metadata.get("sources"), list):
        metadata["sources"] = [
            {
                key: value
                for key, value in source.items()
                if key == "name" or shown.get(source["name"], {}).get(key) != value
            }
            for source in metadata["sources"]
        ]
    rows = ((Value(key, code=True), _value(value)) for key, value in _flat(metadata))
    return Table("Corpus and records", ("metadata", "value"), tuple(rows))


def environment(study: StudyResults) -> Table:
    """Hardware, versions, date and time."""
    hardware = study.raw["hardware"]
    known = {
        "created": str(study.raw["created"]),
        "time of the cells, added up": formatting.duration(study.raw["seconds"]),
        **_compiling(study),
        "processor": f"{hardware['cpu']}, {hardware['cores']} cores",
        "memory": formatting.memory(hardware["memory_bytes"]),
        "device": str(hardware["device"]),
        "machines": f"{len(study.machines)}; the lines above are of the one that reported",
        **{str(name): str(version) for name, version in study.raw["versions"].items()},
    }
    rows = tuple((Value(name), Value(text)) for name, text in known.items())
    return Table("Environment", ("item", "value"), rows)


def settings(study: StudyResults) -> list[Table]:
    """The settings that are not the defaults, with their meaning, one table a kind."""
    default = StudyConfig()
    sections = {kind.section: kind for kind in study.kinds if kind.section}
    rows = {"Study": _settings(study.config, default, tuple(sections))}
    for field in dataclasses.fields(study.config):
        kind = sections.get(field.name)
        if kind and kind.included(study.config):
            section, usual = (getattr(config, field.name) for config in (study.config, default))
            rows[kind.title] = _settings(section, usual, field.metadata["without"])
    columns = ("setting", "value", "meaning")
    tables = [Table(title, columns, tuple(of)) for title, of in rows.items()]
    return [table for table in tables if table.rows]


def _settings(
    config: Config, default: Config, without: tuple[str, ...], prefix: str = ""
) -> Iterator[tuple[Value, ...]]:
    """Rows of the settings that differ; those that the study itself fills in are left out."""
    for field in dataclasses.fields(config):
        value, usual = getattr(config, field.name), getattr(default, field.name)
        if field.name in without or value == usual:
            continue
        if isinstance(value, Config):
            inner = (*without, *field.metadata["without"])
            yield from _settings(value, usual, inner, f"{prefix}{field.name}.")
        else:
            shown = Value(str(value), number=value) if type(value) is int else _value(value)
            yield Value(prefix + field.name, code=True), shown, Value(field.metadata["help"])


def _compiling(study: StudyResults) -> dict[str, str]:
    """The share of the time that cells spent on compiling first steps; empty if not measured."""
    known = [cell for cell in study.cells if cell.get(_COMPILING) is not None]
    if not known:  # Older releases did not measure it.
        return {}
    compiling, all_of = (sum(cell[key] for cell in known) for key in (_COMPILING, "seconds"))
    share = formatting.percent(compiling / all_of)
    return {"of it compiling first steps": f"{formatting.duration(compiling)}, {share} %"}


def cells(study: StudyResults) -> Table:
    """Every cell of the grid, finished or failed."""
    times = {"time": "seconds"}
    if any(cell.get(_COMPILING) is not None for cell in study.cells):
        times["of it compiling first steps"] = _COMPILING
    rows = (
        (
            Value(cell["name"], code=True),
            Value(cell["kind"]),
            Value(cell["status"]),
            *(_duration(cell.get(key)) for key in times.values()),
        )
        for cell in study.cells
    )
    return Table("All cells", ("cell", "kind", "status", *times), tuple(rows))


def _duration(seconds: float | None) -> Value:
    """A time; a dash for none."""
    return number(seconds, formatting.duration) if seconds else Value("–")


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            if key == "files":  # metadata.json has their names, sizes and hashes.
                value = len(value)
            elif len(value) <= LONGEST_LIST // 2:
                value = {str(i): item for i, item in enumerate(value)}
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value(value: Any) -> Value:
    if isinstance(value, bool):
        return Value("yes" if value else "no")
    if isinstance(value, int):
        return Value(formatting.count(value), number=value)
    if isinstance(value, float):
        return Value(f"{value:g}", number=value)
    if isinstance(value, list | tuple):
        if len(value) > LONGEST_LIST:
            return Value(f"{len(value)} entries")
        return Value(", ".join(x if isinstance(x, str) else json.dumps(x) for x in value) or "none")
    return Value("–" if value in (None, "") else str(value))
