"""A trained encoder cut to a budget, healed, verified and exported, by one call.

WORKDIR/budget.json     how many blocks the budget takes, and what the result costs
WORKDIR/order.json      in which order blocks are cut, and what it was measured by
WORKDIR/cut             the encoder without them
WORKDIR/records         the text of healing, where no records are given
WORKDIR/healing         the run of `surgery.healing`; the result is its `model`
WORKDIR/scores          measures of the whole, the cut and the healed encoder, and of random cuts
WORKDIR/export/FORMAT   the result for serving, with its card
"""

import bisect
import functools
import math
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from absl import logging

from undivided_tf import accounting
from undivided_tf.analysis.latency import forward_milliseconds
from undivided_tf.config import EncoderConfig
from undivided_tf.convert import converter
from undivided_tf.data.corpus import records
from undivided_tf.data.tasks.probing_tasks import load_sentence_task
from undivided_tf.data.tasks.rows import Rows
from undivided_tf.errors import InputError
from undivided_tf.export import exporter, onnx, parts, reference
from undivided_tf.export.config import ExportConfig
from undivided_tf.export.texts import without_padding
from undivided_tf.models import checkpoints
from undivided_tf.models.encoder import Encoder
from undivided_tf.reporting import compress as reporting
from undivided_tf.reporting import model_card
from undivided_tf.study.config import CompressConfig
from undivided_tf.study.study import hardware
from undivided_tf.support import files
from undivided_tf.surgery import cut, healing, run
from undivided_tf.surgery.config import SurgeryConfig
from undivided_tf.surgery.order import Damage, by_place, intermediate_blocks
from undivided_tf.workdir import note_finished, once, open_workdir, results_directory

TOLERANCE = 1e-3  # Largest difference of outputs and scores of an export from the Keras model.
_BATCH = 64
_COMPARED = ("embed", "classify", "classify_pair")


def run_compress(config: CompressConfig, command: str = "") -> dict[str, Any]:
    """Cuts, heals, measures and exports; the same call resumes a stopped one.

    A call with other `max_loss`, `formats` or `random_cuts` uses what is finished in the directory.

    Args:
        config: the run; `config.workdir` receives all that the module names, results.json,
            results.md and the figure `quality` as PNG and SVG.
        command: what was called, for the results.

    Returns:
        The content of results.json: `from` and `to` (patterns), `blocks` (those that were cut),
        `budget` (see budget.json), `order` and `damage` (see `surgery.run`), `healing` (what `heal`
        returns, or None), `words` (what each measure is), `scores` (of the `whole`, the `cut` and
        the `healed` encoder the damage by measure), `random` (the damage of `random_cuts` by
        measure), `exceeded` (a sentence for each `max_loss`
        that is exceeded; `check` raises them) and `exports` (export.json by format, with `served`,
        the comparison with Keras; empty where a loss is exceeded).

    Raises:
        InputError: a budget that no number of cuts reaches, a checkpoint or a task that cannot be
            used, a workdir of another config.
        FloatingPointError: healing diverged, or an export differs from the Keras model.
    """
    path = results_directory(config.workdir) / "results.json"
    if path.exists() and files.read_json(path)["config"] == config.to_dict():
        open_workdir(config.workdir, config)
        note_finished(path)
        return files.read_json(path)
    return _Run(config).results(command)


def check(results: dict[str, Any]) -> None:
    """Raises InputError if more was lost than `max_loss` allows."""
    if results["exceeded"]:
        listed = "\n  ".join(results["exceeded"])
        workdir = results["config"]["workdir"]
        raise InputError(
            f"nothing was exported, since more was lost than max_loss allows:\n  {listed}\n"
            f"the encoders and scores are in {workdir}; allow more by --max_loss with this "
            "workdir, or cut less (--budget) or heal longer (--healing.train_pieces) in another"
        )


class _Run:
    """One compression; mistakes of the user raise when it is constructed."""

    def __init__(self, config: CompressConfig):
        self.config = config
        self.workdir = results_directory(config.workdir)
        self.source = converter.open_checkpoint(converter.locate(config.input))
        self.pattern = self.source.config.pattern
        if not self.pattern.num_intermediate:
            raise InputError(f"{self.pattern} of {config.input} has no intermediate block to cut")
        head = self.source.classifier or self.source.spans
        positions = self.source.config.max_position_embeddings
        self.length = config.max_seq_length or (head.max_seq_length if head else positions)
        for length in (self.length, config.sequence_length):
            self.source.config.require_length(length)
        for measure in (config.order_measure, *config.zero_shot_measures):
            load_sentence_task(measure.task)
        if "onnx" in config.formats:
            onnx.packages()
        budget = self.workdir / "budget.json"
        self.budget = files.read_json(budget) if budget.exists() else self._budget()

    def results(self, command: str) -> dict[str, Any]:
        """Runs all stages that are not finished, and writes the results."""
        config, number = self.config, self.budget["num_cut"]
        open_workdir(config.workdir, config, self._may_follow)
        once(self.workdir / "budget.json", lambda: self.budget)
        ranking = once(self.workdir / "order.json", self._order)
        blocks = ranking["order"]["blocks"][:number]
        place = self._cut(blocks)
        healed = self._heal() if config.heal else None
        encoders = {"whole": config.input, "cut": place}
        if healed:
            encoders["healed"] = place = self.workdir / "healing" / "model"
        measured = {
            name: once(
                self.workdir / "scores" / f"{name}.json", functools.partial(self._scores, where)
            )
            for name, where in encoders.items()
        }
        results = {
            "kind": "compression",
            "command": command,
            "created": time.strftime("%Y-%m-%d"),
            "config": config.to_dict(),
            "from": str(self.pattern),
            "to": files.read_json(self.workdir / "cut" / run.REPORT)["to"],
            "blocks": blocks,
            "budget": self.budget,
            **ranking,
            "healing": healed,
            "words": measured["whole"]["words"],
            "scores": {name: of["damage"] for name, of in measured.items()},
            "random": self._random(set(blocks)),
        }
        results["exceeded"] = list(self._exceeded(results))
        results["exports"] = {}
        logging.info("%s", reporting.compression_table(results))
        if not results["exceeded"]:
            for output_format in config.formats:
                results["exports"][output_format] = self._export(place, output_format, results)
        files.write_json(self.workdir / "results.json", results)
        reporting.write_compression(results, self.workdir)
        return results

    def _may_follow(self, old: CompressConfig) -> bool:
        """Whether a directory of another config holds what this one needs."""
        free = {name: getattr(self.config, name) for name in ("max_loss", "formats", "random_cuts")}
        return old.replace(**free) == self.config.replace(workdir=old.workdir)

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The whole encoder."""
        return converter.build_encoder(self.source)

    # === Budget ===

    def _without(self, number: int) -> EncoderConfig:
        """The architecture without so many intermediate blocks; the cost is that of any choice."""
        gone = by_place(self.pattern, "last", number)
        left = zip(self.pattern.letters, self.pattern, strict=True)
        letters = "".join(letter for letter, block in left if block.name not in gone)
        if not letters:
            raise InputError(f"{self.pattern} has only intermediate blocks: none would be left")
        return self.source.config.replace(block_pattern=letters)

    def _costs(self, number: int) -> dict[str, dict[str, float]]:
        """Parameters and FLOPs of the whole encoder and of one without so many blocks."""
        length = self.config.sequence_length
        return {
            name: {
                "parameters": accounting.count_parameters(encoder),
                "flops": accounting.forward_flops(encoder, length),
            }
            for name, encoder in (("whole", self.source.config), ("cut", self._without(number)))
        }

    def _latency(self, number: int) -> dict[str, Any]:
        """Milliseconds of a forward pass of both encoders, and the median ratio of the rounds."""
        configs = {"whole": self.source.config, "cut": self._without(number)}
        times = forward_milliseconds(
            # The time does not depend on the weights.
            {name: Encoder(config) for name, config in configs.items()},
            batch_size=self.config.latency_batch_size,
            length=self.config.sequence_length,
            rounds=self.config.latency_rounds,
        )
        ratios = [b / a for a, b in zip(times["whole"], times["cut"], strict=True)]
        medians = {name: statistics.median(taken) for name, taken in times.items()}
        return {"milliseconds": medians, "share": statistics.median(ratios)}

    def _budget(self) -> dict[str, Any]:
        """The smallest number of cuts within the budget, and what both encoders cost."""
        cost, most = self.config.limit
        latency = functools.cache(self._latency)  # So that no number is timed twice.

        def share(number: int) -> float:
            if cost == "latency":
                return latency(number)["share"]
            costs = self._costs(number)
            return costs["cut"][cost] / costs["whole"][cost]

        blocks = self.pattern.num_intermediate
        lowest = share(blocks)
        if lowest > most:
            least = math.ceil(100 * lowest) / 100
            raise InputError(
                f"budget {self.config.budget}: {self.pattern} of {self.config.input} without any "
                f"of its {blocks} intermediate blocks still has {lowest:.3f} of the {cost}, the "
                f"lowest share that cuts reach: give --budget={cost}:{least:.2f} or more"
            )
        numbers = range(1, blocks + 1)
        # A share falls with every cut, so that few of them must be timed.
        number = numbers[bisect.bisect_left(numbers, True, key=lambda n: share(n) <= most)]
        taken = latency(number)
        return {
            "num_cut": number,
            "share": share(number),
            "encoders": {
                name: {**costs, "milliseconds": taken["milliseconds"][name]}
                for name, costs in self._costs(number).items()
            },
            "latency_share": taken["share"],
            "hardware": hardware(),
        }

    # === Cut and healing ===

    def _measure(self, measure: SurgeryConfig) -> SurgeryConfig:
        return measure.replace(input=self.config.input, max_seq_length=self.length)

    def _order(self) -> dict[str, Any]:
        measure = self._measure(self.config.order_measure)
        order, words = run.importance(measure, self.source, self.encoder)
        return {"order": vars(order), "damage": words}

    def _cut(self, blocks: list[str]) -> pathlib.Path:
        place = self.workdir / "cut"
        if not place.exists():
            fold = self.config.order.fold_layer_norms
            result, report = cut(self.encoder, blocks, fold_layer_norms=fold)
            about = {"kind": "surgery", "from": str(self.pattern), **vars(report)}
            run.write(place, self.source, result, {**about, "to": result.config.block_pattern})
        return place

    def _heal(self) -> dict[str, Any]:
        """Heals the cut encoder towards the whole one."""
        config, place = self.config, self.workdir / "cut"
        folder = config.healing.records_dir
        if not folder:
            folder = str(self.workdir / "records")
            made = config.records.replace(
                output_dir=folder,
                vocab_file=str(place / checkpoints.VOCABULARY),
                do_lower_case=self.source.tokenizer.do_lower_case,
            )
            records.create_records(made)
        return healing.heal(
            config.healing.replace(
                workdir=str(self.workdir / "healing"),
                init_checkpoint=str(place),
                teacher_checkpoint=config.input,
                records_dir=folder,
            )
        )

    # === Measures ===

    def _named_measures(self) -> Iterator[tuple[str, SurgeryConfig]]:
        return zip(self.config.zero_shot, self.config.zero_shot_measures, strict=True)

    def _damages(self, place: str | pathlib.Path) -> dict[str, tuple[Damage, str]]:
        """What cutting blocks out of an encoder costs, with its description, by measure."""
        source = converter.open_checkpoint(converter.locate(place))
        encoder = converter.build_encoder(source)
        return {
            name: run.measure(self._measure(measure), source, encoder, self.encoder)
            for name, measure in self._named_measures()
        }

    def _scores(self, place: str | pathlib.Path) -> dict[str, Any]:
        """The damage of a whole encoder, which is its score, and what it is, by measure."""
        logging.info("measuring %s", place)
        measures = self._damages(place)
        return {
            "words": {name: words for name, (_, words) in measures.items()},
            "damage": {name: damage([]) for name, (damage, _) in measures.items()},
        }

    def _random(self, chosen: set[str]) -> list[dict[str, float]]:
        """The damage of other cuts of as many blocks, drawn at random, or all where few exist."""
        blocks = intermediate_blocks(self.pattern)
        rng = np.random.default_rng(self.config.order.seed)
        drawn = {frozenset(chosen): 0}
        while len(drawn) <= min(self.config.random_cuts, math.comb(len(blocks), len(chosen)) - 1):
            gone = rng.choice(blocks, len(chosen), replace=False).tolist()
            drawn.setdefault(frozenset(gone), len(drawn))
        # Prepared once, and only if a cut is not measured yet.
        damages = functools.cache(lambda: self._damages(self.config.input))

        def score(gone: list[str]) -> dict[str, dict[str, float]]:
            logging.info("measuring the cut of %s, drawn at random", ", ".join(gone))
            return {"damage": {name: damage(gone) for name, (damage, _) in damages().items()}}

        return [
            once(
                self.workdir / "scores" / f"random_{number}.json",
                functools.partial(score, sorted(gone)),
            )["damage"]
            for gone, number in drawn.items()
            if number
        ]

    def _exceeded(self, results: dict[str, Any]) -> Iterator[str]:
        """A sentence for each loss that is larger than allowed."""
        scores = results["scores"]
        after = scores.get("healed", scores["cut"])
        for name, measure in self._named_measures():
            lost = 100 * (after[name] - scores["whole"][name])
            most = self.config.points(measure.importance)
            if lost > most:
                shown = (reporting.shown(name, of[name]) for of in (scores["whole"], after))
                yield "{}: {:.1f} points lost, at most {:g} allowed ({} whole, {} now)".format(
                    name, lost, most, *shown
                )

    # === Export ===

    def _export(
        self, place: pathlib.Path, output_format: str, results: dict[str, Any]
    ) -> dict[str, Any]:
        """Exports a checkpoint, compares the export with it, and writes the card."""
        output = self.workdir / "export" / output_format
        if not output.exists():
            config = ExportConfig(
                input=str(place), output_format=output_format, max_seq_length=self.length
            )
            with files.atomic_path(output) as partial:
                report = exporter.export(partial, config)
                report["served"] = self._served(partial, report, results)
                files.write_json(partial / exporter.REPORT, report)
                model_card.write(partial, report, results)
        return files.read_json(output / exporter.REPORT)

    def _served(
        self, place: pathlib.Path, report: dict[str, Any], results: dict[str, Any]
    ) -> dict[str, Any]:
        """Runs an export on the rows of the measures.

        Returns:
            `rows`, `differences` (largest difference of an output from the Keras model by
            signature) and `damage` (by measure, of those whose texts are embedded one by one).

        Raises:
            FloatingPointError: a difference of outputs or scores is above `TOLERANCE`.
        """
        keras = parts.load(report["config"]["input"])
        served = {
            name: exporter.on_texts(place, report, name)
            for name in report["signatures"]
            if name in _COMPARED
        }
        comparison: dict[str, Any] = {
            "rows": 0,
            "differences": dict.fromkeys(served, 0.0),
            "damage": {},
        }
        source = converter.open_checkpoint(pathlib.Path(report["config"]["input"]))

        def states(rows: Rows) -> Callable[[Any], np.ndarray]:
            vectors = [served["embed"](*texts)["mean"] for texts in _batches(rows)]
            return lambda gone: np.concatenate(vectors)

        for name, measure in self._named_measures():
            task = load_sentence_task(measure.task)
            rows = task.read("validation").take(measure.max_rows, measure.seed)
            comparison["rows"] += len(rows)
            for signature, serve in served.items():
                for texts in _texts_for(signature, rows):
                    inputs = keras.tokenizer.encode(*texts, max_seq_length=self.length)
                    truth = reference.of_ids(
                        keras,
                        signature.removesuffix("_pair"),
                        without_padding(inputs, ExportConfig()),
                    )
                    apart = (
                        float(np.abs(values - truth[key].reshape(values.shape)).max())
                        for key, values in serve(*texts).items()
                        if key in truth
                    )
                    largest = comparison["differences"][signature]
                    comparison["differences"][signature] = max(largest, *apart)
            alone = measure.importance == "similarity" or not task.is_pair
            of_head = measure.importance == "task" and keras.classifier is not None
            if alone and not of_head and measure.importance != "text":
                damage, _ = run.measure(
                    self._measure(measure), source, keras.encoder, self.encoder, states
                )
                comparison["damage"][name] = damage([])
        scores = results["scores"]
        after = scores.get("healed", scores["cut"])
        apart = {name: abs(value - after[name]) for name, value in comparison["damage"].items()}
        for name, value in {**comparison["differences"], **apart}.items():
            if value > TOLERANCE:
                raise FloatingPointError(
                    f"{report['config']['output_format']}: {name} differs from the Keras model by "
                    f"{value:.2g}, more than {TOLERANCE:g}; the export was not kept"
                )
        return comparison


def _texts_for(signature: str, rows: Rows) -> Iterable[tuple[list[str], ...]]:
    """Batches of the arguments of a signature, made of rows."""
    if signature == "classify_pair":
        return _batches(rows) if rows.second is not None else ()
    return _batches(Rows([*rows.first, *(rows.second or ())]))


def _batches(rows: Rows) -> Iterator[tuple[list[str], ...]]:
    for start in range(0, len(rows), _BATCH):
        both = (rows.first, rows.second)
        yield tuple(texts[start : start + _BATCH] for texts in both if texts is not None)
