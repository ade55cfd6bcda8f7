"""A study in several budgets: what its views hold, its claims, tables and files."""

import copy
import re

import made_up_study
import pandas as pd
import pytest
from made_up_study import text_of

from undivided_tf.study import claims, methods, numbers, overview, report
from undivided_tf.study.judging import NOT_SUPPORTED, SUPPORTED, UNDERPOWERED
from undivided_tf.study.kinds import finetuning, read_results
from undivided_tf.study.kinds.diagnostics import Diagnostics


def in_budgets(budget="flops", shift=0.0, seeds=4, **changes):
    """A study whose reduced patterns are there once more in a budget, with other accuracies."""
    results = made_up_study.results(seeds=seeds, tasks=("wiki_topic",))
    results["config"] |= {"budgets": ["steps", budget], **changes}
    for cell in list(results["cells"]):
        label = cell["label"]
        if cell["kind"] == "finetuning" and label["start"] != "scratch":
            for i, run in enumerate(cell["result"]["runs"]):
                noise = 0.001 * (i + label["pretraining_seed"] % 2)
                run["test"]["accuracy"] = 0.80 + noise
        if cell["kind"] in ("pretraining", "finetuning") and label["pattern"] != "(AI)*6":
            if label.get("start") == "scratch":
                continue
            twin = copy.deepcopy(cell)
            twin["name"] += f"/{budget}"
            twin["label"]["budget"] = twin["result"]["budget"] = budget
            for run in twin["result"].get("runs", ()):
                run["test"]["accuracy"] += shift
            if cell["kind"] == "pretraining":
                twin["result"]["steps"] = 2400
            results["cells"].append(twin)
    return results


def steps(view, pattern):
    return view.values("pretraining", "steps", pattern=pattern)


def mean_score(view, pattern):
    return finetuning.score(view, "wiki_topic", pattern).estimate.mean


def test_a_view_has_the_cells_of_its_frame_and_the_reference_of_equal_steps():
    study = read_results(in_budgets(shift=0.05))
    view = study.seen_as("flops")
    assert set(steps(study, "A*6")) == {1800}
    assert set(steps(view, "A*6")) == {2400}
    assert set(steps(view, "(AI)*6")) == {1800}
    assert mean_score(view, "A*6") - mean_score(study, "A*6") == pytest.approx(0.05)


def test_a_step_takes_what_it_takes_at_equal_steps_unless_its_blocks_are_others():
    def rounds(view, pattern):
        return len(view.values("timing", "ratio", pattern=pattern))

    found = [
        rounds(read_results(in_budgets(budget)).seen_as(budget), "A*6")
        for budget in ("flops", "time", "surgery", "wider_hidden")
    ]
    assert found == [30, 30, 30, 0]
    wider = read_results(in_budgets("wider_hidden")).seen_as("wider_hidden")
    assert wider.mean("pretraining", "step_milliseconds", pattern="A*6") is None
    # As many blocks in another order: the encoder of equal FLOPs is that of equal steps.
    other = "(AI)*4IA*2I"
    results = made_up_study.results(patterns=("(AI)*6", other))
    results["config"]["budgets"] = ["steps", "flops"]
    view = read_results(results).seen_as("flops")
    assert rounds(view, other) == 30 and steps(view, other)


def test_a_pattern_not_begun_is_in_no_frame():
    results = in_budgets()
    for cell in results["cells"]:
        if cell["label"].get("pattern") == "A*6":
            cell.update(status="not run", result=None)
    study = read_results(results)
    view = study.seen_as("flops")
    assert study.left_patterns == view.left_patterns == ["A*6"]
    assert study.reduced == view.reduced == ["(AAI)*3"]
    for matter, by_pattern in claims.verdicts(study).items():
        assert "A*6" not in by_pattern, matter


@pytest.mark.parametrize(
    ("shift", "accuracy", "same"),
    [(0.0, SUPPORTED, SUPPORTED), (-0.05, NOT_SUPPORTED, NOT_SUPPORTED)],
)
def test_whether_the_verdict_changes_at_another_budget(shift, accuracy, same):
    found = claims.verdicts(read_results(in_budgets(shift=shift)))
    assert found["accuracy kept"]["A*6"].status == SUPPORTED
    assert found["accuracy kept at equal training FLOPs"]["A*6"].status == accuracy
    verdict = found["same verdict at equal training FLOPs"]["A*6"]
    assert verdict.status == same and "at equal steps supported" in verdict.reason


def test_patterns_that_are_no_core_are_not_compared_in_other_budgets():
    found = claims.verdicts(read_results(in_budgets(core_patterns=2)))
    verdict = found["accuracy kept at equal training FLOPs"]["A*6"]
    assert (verdict.status, verdict.reason) == (UNDERPOWERED, "not compared in this budget")


def test_a_partner_of_the_grid_stands_under_the_name_of_the_pattern():
    results = made_up_study.results(patterns=("(AI)*6", "A*6", "A*18"), tasks=("wiki_topic",))
    results["config"]["budgets"] = ["steps", "more_attention"]
    results["config"]["records"]["vocab_size"] = 1000
    view = read_results(results).seen_as("more_attention")
    plain = read_results(results)
    own, other = (
        some.values("pretraining", "parameters", pattern=pattern)
        for some, pattern in ((view, "A*6"), (plain, "A*18"))
    )
    assert own == other and len(own) == 1
    assert mean_score(view, "A*6") == mean_score(plain, "A*18")


def inner(results, residual, linear, grammar):
    """Adds diagnostics and BLiMP of every encoder; values by pattern."""
    results["config"] |= {"diagnose": True}
    results["config"]["blimp"] |= {"data": "BLiMP.zip"}
    for seed in range(1, 5):
        for pattern in ("(AI)*6", "(AAI)*3", "A*6"):
            label = {"pattern": pattern, "pretraining_seed": seed}
            blocks = {
                "collapse": {"relative_residual": [1.0, residual[pattern] * (1 + 0.01 * seed)],
                             "effective_rank": [9.0, 5.0]},
                "linear_r2": {} if pattern == "A*6"
                else {"block_00/intermediate": {"contribution": linear + 0.001 * seed}},
            }  # fmt: skip
            for kind, result in (
                ("diagnostics", {"blocks": blocks, "untrained_blocks": blocks,
                                 "taps": ["embeddings", "block_00/attention"]}),
                (
                    "blimp",
                    {
                        "accuracy": grammar[pattern] + 0.001 * (seed % 2),
                        "margin": 10 * (grammar[pattern] - 0.5) + 0.001 * (seed % 2),
                        "pairs": 100,
                    },
                ),
            ):  # fmt: skip
                results["cells"].append(
                    {"name": f"{kind}/{pattern}/{seed}", "kind": kind, "label": label,
                     "status": "finished", "error": None, "seconds": 1.0, "machine": "",
                     "result": {"kind": kind, **result, **label}}
                )  # fmt: skip
    return results


def test_collapse_linearity_and_grammar_are_judged():
    residual = {"(AI)*6": 0.6, "(AAI)*3": 0.55, "A*6": 0.1}
    grammar = {"(AI)*6": 0.6, "(AAI)*3": 0.6, "A*6": 0.5}
    results = inner(in_budgets(), residual, 0.5, grammar)
    found = claims.verdicts(read_results(results))
    assert found["rank collapse"]["A*6"].status == SUPPORTED
    assert found["rank collapse"]["(AAI)*3"].status == NOT_SUPPORTED
    assert found["near linearity"]["A*6"].status == NOT_SUPPORTED
    assert found["grammar kept"]["A*6"].status == NOT_SUPPORTED
    assert found["grammar kept"]["(AAI)*3"].status == SUPPORTED
    assert found["grammar margin kept"]["A*6"].status == NOT_SUPPORTED
    assert found["grammar margin kept"]["(AAI)*3"].status == SUPPORTED
    nearly = claims.verdicts(read_results(inner(in_budgets(), residual, 0.95, grammar)))
    assert nearly["near linearity"]["A*6"].status == SUPPORTED
    [section] = Diagnostics().report(read_results(results))
    assert section.parts[0].rows[2][4].text == "no intermediate block"


@pytest.mark.slow
def test_the_budgets_stand_in_the_report(tmp_path):
    results = in_budgets(shift=0.05)
    residual = dict.fromkeys(("(AI)*6", "(AAI)*3", "A*6"), 0.5)
    report.write_report(inner(results, residual, 0.5, residual), tmp_path)
    page = (tmp_path / "report.html").read_text()
    for text in ("The same patterns with other budgets", "equal training FLOPs", "BLiMP",
                 "Collapse and linearity", "Quality against cost"):  # fmt: skip
        assert text in page and text in (tmp_path / "report.md").read_text()
    table = overview.other_budgets(read_results(results))
    assert [row[1].text for row in table.rows] == ["equal steps", "equal training FLOPs"] * 2
    told = text_of(methods.section(read_results(results)))
    assert "closed-form FLOPs" in told
    assert re.search(r"@article\{sridhar2020undivided", (tmp_path / "citation.bib").read_text())


def test_the_csv_is_the_frame_and_has_every_cell(tmp_path):
    results = made_up_study.fail(in_budgets(), "probing/A*6/1")
    report.write_report(results, tmp_path)
    frame = read_results(results).whole
    written = pd.read_csv(tmp_path / "cells.csv", keep_default_na=False)
    assert tuple(written) == tuple(frame) == numbers.COLUMNS and len(written) == len(frame)
    assert list(dict.fromkeys(frame["cell"])) == [cell["name"] for cell in results["cells"]]
    failed = frame[frame["status"] == "failed"]
    assert len(failed) == 1 and failed.iloc[0]["error"] and not failed.iloc[0]["metric"]
    cell = next(cell for cell in results["cells"] if cell["kind"] == "pretraining")
    [value] = frame[(frame["cell"] == cell["name"]) & (frame["metric"] == "parameters")]["value"]
    assert value == cell["result"]["parameters"]
    assert set(frame["budget"]) == {"steps", "flops"}


def test_quality_begins_with_the_reference_and_is_nothing_without_it():
    results = in_budgets()
    points = overview.quality(read_results(results), "wiki_topic")
    assert (points[0]["pattern"], points[0]["budget"], len(points)) == ("(AI)*6", "steps", 5)
    without = made_up_study.fail(results, "pretraining/(AI)*6")
    assert overview.quality(read_results(without), "wiki_topic") == []
