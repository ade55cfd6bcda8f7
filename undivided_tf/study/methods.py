"""What a study did, told from its config: sentences and tables of settings."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

from undivided_tf.config import Config
from undivided_tf.study import frames, numbers
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.findings import Finding
from undivided_tf.study.results import StudyResults, task_name
from undivided_tf.study.tables import Table, Value
from undivided_tf.training.config import TimingConfig

SECTIONS = {
    "records": "Records",
    "pretraining": "Pre-training",
    "finetuning": "Fine-tuning",
    "cka": "CKA",
    "probing": "Probing",
    "diagnostics": "Diagnostics",
    "blimp": "BLiMP",
}
LONGEST_LIST = 8


def procedure(study: StudyResults) -> list[Finding]:
    """How the numbers came about, stage by stage."""
    records, training = study.config.records, study.config.pretraining
    encoder, tuning = training.encoder, study.config.finetuning
    cka, probing, bare = study.config.cka, study.config.probing, study.config.from_scratch
    everyone = bare == study.config.canonical_patterns
    bare = "the same" if everyone else f"{', '.join(bare)} once"
    vocabulary = f"{numbers.count(records.vocab_size)} pieces, trained on the corpus"
    if records.vocab_file:
        vocabulary = "given as a file"
    return [
        Finding(
            "Records",
            f"A WordPiece vocabulary ({vocabulary}, "
            f"{'lower-cased' if records.do_lower_case else 'cased'}), records of "
            f"{records.max_seq_length} pieces; {numbers.percent(records.validation_fraction)} % "
            "of the documents are held out.",
        ),
        Finding(
            "Encoder",
            f"Hidden size {encoder.hidden_size}, {encoder.num_attention_heads} attention "
            f"heads, intermediate size {encoder.intermediate_size}, LayerNorm "
            f"{'before' if encoder.norm_first else 'behind'} each block, dropout "
            f"{encoder.hidden_dropout_prob:g}. The encoders differ in their block pattern only.",
        ),
        Finding(
            "Pre-training",
            f"Masked language modelling on {numbers.percent(training.masked_lm_prob)} % "
            f"of the word pieces, by {training.masking_unit.replace('_', ' ')}, "
            f"{numbers.count(training.num_train_steps)} steps of {training.train_batch_size} "
            f"sequences, {training.optimizer} with {_peak(study.config)} and weight decay "
            f"{training.weight_decay_rate:g}, "
            f"{numbers.count(training.num_warmup_steps)} steps of warm-up, "
            f"{training.learning_rate_schedule.replace('_', '-')} schedule to 0. No next-sentence "
            "prediction.",
        ),
        *_gate(study),
        *_timing(study),
        Finding(
            "Fine-tuning",
            f"{tuning.num_train_epochs} epochs, batch {tuning.train_batch_size}, peak "
            f"learning rate {tuning.learning_rate:g}, {tuning.pooling} pooling, {tuning.num_runs} "
            f"runs of different seeds; {bare} again from random weights. Scores are of the test "
            "split.",
        ),
        Finding(
            "CKA",
            f"Linear, on {numbers.count(cka.num_examples)} examples of the {cka.split} split of "
            f"{task_name(cka.task)}, "
            f"{cka.tokens_per_example} tokens of each, padding left out, the same for all "
            "encoders.",
        ),
        Finding(
            "Probes",
            f"Logistic regression on standardised activations of each tap, {probing.pooling} "
            "pooling, beside an untrained encoder of the same pattern and the majority class.",
        ),
        *_frames(study),
    ]


def _gate(study: StudyResults) -> Iterator[Finding]:
    """What decides whether an encoder has learnt, where it was asked."""
    if any("neighbour_model_loss" in r["validation"] for r in study.finished("pretraining")):
        yield Finding(
            "Learning",
            "An encoder has learnt from its context when its held-out loss is below that of the "
            "neighbour model under the same masks (one-sided 95 %, bootstrap over rows): counts "
            "of the two pieces beside the masked one in the training rows, smoothed as by Witten "
            "and Bell. Unless the reference has, no claim about what encoders have learnt is "
            "judged.",
        )


def _timing(study: StudyResults) -> Iterator[Finding]:
    """How steps were timed, where there is a pattern beside the reference."""
    if study.finished("timing"):
        yield Finding(
            "Timing",
            f"{study.config.num_timing_rounds} rounds of {TimingConfig().steps_per_round} compiled "
            f"training steps of a pattern and of `{study.reference}` in turn, in one process and "
            "from random weights; who begins changes with each round.",
        )


_TOLD = {
    frames.FLOPS: "equal training FLOPs: its steps are multiplied by the ratio of closed-form "
    "FLOPs of a step (matrix products, forward and backward), warm-up keeps its share",
    frames.TIME: "equal training time: its steps are multiplied by the ratio of step times, the "
    "median of the rounds in turn",
    "more_attention": "equal parameters by more attention blocks, spread evenly",
    "wider_intermediate": "equal parameters by wider intermediate blocks",
    "wider_hidden": "equal parameters by a wider hidden size at the same number of heads",
    frames.SURGERY: "an equal start: its blocks are cut out of the trained reference of the same "
    "seed, with their weights, and pre-trained on for a share of the steps (healing), which come "
    "on top of the reference's",
    "shared_intermediate": "equal parameters by one wide intermediate block that all places share",
}


def _frames(study: StudyResults) -> Iterator[Finding]:
    """How the budgets beside equal steps were met."""
    if told := [_TOLD[frame] for frame in frames.other_frames(study.config)]:
        patterns = ", ".join(f"`{pattern}`" for pattern in frames.compared(study.config))
        yield Finding(
            "Frames",
            f"{patterns}: pre-trained and fine-tuned once more with the budget of "
            f"`{study.reference}`, the same seeds and tasks, at {'; at '.join(told)}. Equal "
            f"parameters are within {numbers.percent(frames.TOLERANCE)} %, and all else is as at "
            "equal steps. The encoders of these frames are not looked into.",
        )


def limits(study: StudyResults) -> list[str]:
    """What the numbers cannot tell."""
    seeds = study.config.num_pretraining_seeds
    lines = [
        f"The encoders are small (hidden size {study.config.pretraining.encoder.hidden_size}) and "
        "see little text; what holds here need not hold for BERT-Base, and is not claimed for it.",
        "Patterns are compared at equal steps. At equal time, equal FLOPs or equal parameters "
        "their order may differ"
        + (": see the verdicts there." if frames.other_frames(study.config) else "."),
        "Intervals are of single comparisons; none is corrected for their number.",
        "Step times, tokens a second, forward passes and memory are those of "
        + ("one machine." if len(study.machines) == 1 else f"{len(study.machines)} machines.")
        + " Steps are timed in turn with the reference's, so that load and days of the machine "
        "count for both alike; a forward pass and memory are as the pre-training met them.",
        "The best tap of a probe is picked on the rows it is scored on, for trained and untrained "
        "encoders alike: the gain is comparable, the level is slightly too high.",
    ]
    if seeds == 1:
        lines.insert(
            1,
            "One pre-training seed: the intervals cover fine-tuning seeds only, not what another "
            "pre-training would have given.",
        )
    else:
        lines.insert(
            1,
            f"{seeds} pre-training seeds: a score is averaged over the fine-tuning runs of each "
            f"encoder first, so its n is {seeds} at most.",
        )
    return lines


def sources(study: StudyResults) -> Table:
    """Where the text comes from."""
    rows = (
        (Value(s["name"], s.get("version", "")), Value(s["licence"]), Value(s["description"]))
        for s in study.raw["sources"]
    )
    return Table("Data sources", ("source", "licence", "what it is"), tuple(rows))


def corpus(study: StudyResults) -> Table:
    """The metadata of the records; no rows when the records failed."""
    rows = (
        (Value(key, code=True), _value(value)) for key, value in _flat(study.raw["corpus"] or {})
    )
    return Table("Corpus and records", ("metadata", "value"), tuple(rows))


def environment(study: StudyResults) -> Table:
    """Hardware, versions, date and time."""
    hardware = study.raw["hardware"]
    known = {
        "created": str(study.raw["created"]),
        "time of the cells, added up": numbers.duration(study.raw["seconds"]),
        "processor": f"{hardware['cpu']}, {hardware['cores']} cores",
        "memory": numbers.memory(hardware["memory_bytes"]),
        "device": str(hardware["device"]),
        "machines": f"{len(study.machines)}; the lines above are of the one that reported",
        **{str(name): str(version) for name, version in study.raw["versions"].items()},
    }
    rows = tuple((Value(name), Value(text)) for name, text in known.items())
    return Table("Environment", ("item", "value"), rows)


def settings(study: StudyResults) -> list[Table]:
    """Every setting of the study, with its meaning, one table a stage."""
    columns = ("setting", "value", "meaning")
    tables = [Table("Study", columns, tuple(_settings(study.config, tuple(SECTIONS))))]
    asked = {"diagnostics": study.config.diagnose, "blimp": bool(study.config.blimp.data)}
    for field in dataclasses.fields(study.config):
        if field.name in SECTIONS and asked.get(field.name, True):
            rows = _settings(getattr(study.config, field.name), field.metadata["without"])
            tables.append(Table(SECTIONS[field.name], columns, tuple(rows)))
    return tables


def _settings(
    config: Config, without: tuple[str, ...], prefix: str = ""
) -> Iterator[tuple[Value, ...]]:
    """Rows of the settings of a config; those that the study itself fills in are left out."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in without:
            continue
        if isinstance(value, Config):
            inner = (*without, *field.metadata["without"])
            yield from _settings(value, inner, f"{prefix}{field.name}.")
        else:
            shown = Value(str(value), number=value) if type(value) is int else _value(value)
            yield Value(prefix + field.name, code=True), shown, Value(field.metadata["help"])


def cells(study: StudyResults) -> Table:
    """Every cell of the grid, finished or failed."""
    rows = (
        (
            Value(cell["name"], code=True),
            Value(cell["kind"]),
            Value(cell["status"]),
            Value("–")
            if cell["seconds"] is None
            else Value(numbers.duration(cell["seconds"]), number=cell["seconds"]),
        )
        for cell in study.cells
    )
    return Table("All cells", ("cell", "kind", "status", "time"), tuple(rows))


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            if len(value) <= LONGEST_LIST // 2:
                value = {str(i): item for i, item in enumerate(value)}
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value(value: Any) -> Value:
    if isinstance(value, bool):
        return Value("yes" if value else "no")
    if isinstance(value, int):
        return Value(numbers.count(value), number=value)
    if isinstance(value, float):
        return Value(f"{value:g}", number=value)
    if isinstance(value, list | tuple):
        if len(value) > LONGEST_LIST:
            return Value(f"{len(value)} entries")
        return Value(", ".join(x if isinstance(x, str) else json.dumps(x) for x in value) or "none")
    return Value("–" if value in (None, "") else str(value))


def _peak(config: StudyConfig) -> str:
    """The peak learning rate, or that of each pattern and where it comes from."""
    if not config.learning_rates:
        return f"peak learning rate {config.pretraining.learning_rate:g}"
    rates = ", ".join(
        f"{rate:g} for `{pattern}`" for pattern, rate in config.learning_rates.items()
    )
    pilots = ", ".join(map(str, config.pilot_seeds))
    source = f" (chosen on pilot seeds {pilots}, none of which counts here)" if pilots else ""
    return f"peak learning rates {rates}{source}"
