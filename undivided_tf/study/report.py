"""The report of a study: one self-contained HTML page, the same as Markdown, and figures.

Every number comes from the study's results. Its kinds give their own tables, figures and
sentences; what concerns the study as a whole stands here.
"""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import undivided_tf
from undivided_tf.pattern import BlockPattern
from undivided_tf.reporting import formatting, layout
from undivided_tf.reporting.content import (
    FAILED,
    Code,
    Details,
    Drawing,
    Finding,
    Findings,
    Section,
    Text,
)
from undivided_tf.study import (
    kinds,
    methods,
    multiplier_section,
    multipliers,
    overview,
    verdict_tables,
)
from undivided_tf.study.results import StudyResults
from undivided_tf.support import files

QUESTION = "Does BERT need its intermediate blocks?"
LEAD = (
    "In every layer of BERT, an intermediate (feed-forward) block follows a self-attention block. "
    "Sridhar and Sarah (https://arxiv.org/abs/2012.11881) ask whether intermediate blocks are "
    "needed. This run pre-trains encoders that differ only in their blocks, and compares them."
)
FOOTER = (
    "Every number on this page comes from `results.json` beside it; `cells.csv` has them in rows, "
    "`citation.bib` what to cite."
)
SHOWS = "What this run shows"


def write_report(results: dict[str, Any], workdir: str | os.PathLike) -> None:
    """Writes report.html, report.md, figures/*.svg, cells.csv and citation.bib.

    Args:
        results: the content of the study's results.json.
        workdir: directory of the study.

    Raises:
        InputError: the config in `results` is not one of this version.
    """
    study, workdir = kinds.read_results(results), pathlib.Path(workdir)
    kicker = f"A study with undivided_tf, {results['created']}"
    layout.write(workdir, "report", QUESTION, list(sections(study)), LEAD, kicker, FOOTER)
    files.write_text(workdir / "cells.csv", study.whole.to_csv(index=False, lineterminator="\n"))
    files.write_text(workdir / "citation.bib", bibtex(study))


def sections(study: StudyResults) -> Iterator[Section]:
    """The report, section by section."""
    if multipliers.has_curves(study.config):
        yield multiplier_section.section(study)
    yield Section(SHOWS, "", tuple(_shows(study)))
    for pattern in study.patterns:
        role = "the reference" if pattern == study.reference else f"against `{study.reference}`"
        pattern_findings = Findings(tuple(findings(study, pattern)))
        yield Section(SHOWS, f"`{pattern}`, {role}", (pattern_findings,))
    drawings = (Drawing(BlockPattern.parse(pattern)) for pattern in study.patterns)
    legend = Text(
        "`A` is an attention block, `I` an intermediate block. Numbers count the encoder blocks, "
        "as in the names of taps."
    )
    yield Section("The block patterns", "", (legend, *drawings))
    for kind in study.kinds:
        if kind.included(study.config):
            yield from kind.report(study)
    yield from overview.sections(study)
    yield methods.section(study)
    yield Section("Failed cells", "", tuple(_failed(study)))
    yield methods.limits(study)


def _shows(study: StudyResults) -> Iterator[Any]:
    """What was compared, the scope of the answer, the verdicts and their evidence."""
    config = study.config
    fewest, most = config.seed_counts
    seeds = formatting.plural(most, "seed")
    if config.arm_seeds and fewest < most:
        seeds = f"{fewest} to {seeds}"
    elif config.num_other_seeds:
        core = ", ".join(f"`{pattern}`" for pattern in config.core)
        seeds += f" (those beside {core} from {config.num_other_seeds})"
    tuned = ""
    if study.tasks:
        tasks = formatting.plural(len(study.tasks), "task")
        runs = formatting.plural(config.finetuning.num_runs, "run")
        tuned = f", then fine-tuned on {tasks}, {runs} each"
    where, these = f"hidden size {config.pretraining.encoder.hidden_size}", "this size"
    if config.sizes:
        sizes = ", ".join(config.size_name(size) for size in ("", *config.sizes))
        where, these = f"the sizes {sizes} (hidden size x attention heads)", "these sizes"
    patterns = formatting.plural(len(study.patterns), "block pattern")
    yield Text(
        f"{patterns} at {where}, each pre-trained for "
        f"{formatting.count(config.pretraining.num_train_steps)} steps from {seeds}{tuned}. "
        f"The reference is `{study.reference}`. All results hold at {these}, on this data and "
        "with this number of seeds; they claim nothing for BERT-Base. The patterns are our reading "
        "of the paper's abstract.",
        stress=True,
    )
    cells = formatting.plural(len(study.cells), "cell")
    if study.left_cells:
        yield Text(
            f"The study is not finished: {len(study.left_cells)} of {cells} have not run yet.",
            stress=True,
        )
    if study.failed_cells:
        yield Text(
            f"{len(study.failed_cells)} of {cells} failed; the chapter Failed cells gives the "
            "reasons.",
            stress=True,
        )
    if study.reduced:
        verdicts, *behind = verdict_tables.tables(study)
        yield verdicts
        yield Details("The comparisons behind the verdicts", tuple(behind))
    yield overview.overview(study)


def findings(study: StudyResults, pattern: str) -> Iterator[Finding]:
    """What the run shows of one pattern, compared with the reference."""
    if study.select("pretraining", pattern=pattern).empty:
        absent = study.absence("pretraining", pattern=pattern)
        reason = "its pre-training failed" if absent == FAILED else "it was not pre-trained"
        yield Finding("Pre-training", f"`{pattern}` has no results: {reason}.")
        return
    for kind in study.kinds:
        if kind.included(study.config):
            yield from kind.findings(study, pattern)


def _failed(study: StudyResults) -> Iterator[Any]:
    for cell in study.failed_cells:
        yield Text(f"`{cell['name']}` failed:")
        yield Code(cell["error"] or "no reason given")
    if not study.failed_cells:
        finished = "" if study.left_cells else f": all {len(study.cells)} cells finished"
        yield Text(f"None{finished}.")
    if study.left_cells:
        left = f"{formatting.plural(len(study.left_cells), 'cell')} not run yet."
        if study.left_patterns:
            names = ", ".join(f"`{pattern}`" for pattern in study.left_patterns)
            left += f" No cell has run of {names}, which no table has."
        yield Text(left)


def bibtex(study: StudyResults) -> str:
    """Entries of this software, in the version that ran, and of the paper behind the question."""
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
