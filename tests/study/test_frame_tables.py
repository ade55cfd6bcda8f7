"""A study in several frames: what its views hold, its claims, tables and files."""

import copy
import csv
import io
import re

import made_up_study
import pytest

from undivided_tf.study import claims, frame_tables, methods, record_files, report
from undivided_tf.study.claims import NOT_SUPPORTED, SUPPORTED, UNDERPOWERED
from undivided_tf.study.results import StudyResults


def in_frames(frame="flops", shift=0.0, seeds=4, **changes):
    """A study whose reduced patterns are there once more in a frame, with other accuracies."""
    results = made_up_study.results(seeds=seeds, tasks=("wiki_topic",))
    results["config"] |= {"frames": ["steps", frame], **changes}
    for cell in list(results["cells"]):
        label = cell["label"]
        if cell["kind"] == "finetuning":
            for i, run in enumerate(cell["result"]["runs"]):
                noise = 0.001 * (i + label["pretraining_seed"] % 2)
                run["test"]["accuracy"] = 0.80 + noise
        if cell["kind"] in ("pretraining", "finetuning") and label["pattern"] != "(AI)*6":
            if label.get("start") == "scratch":
                continue
            twin = copy.deepcopy(cell)
            twin["name"] += f"/{frame}"
            twin["label"]["frame"] = twin["result"]["frame"] = frame
            for run in twin["result"].get("runs", ()):
                run["test"]["accuracy"] += shift
            if cell["kind"] == "pretraining":
                twin["result"]["steps"] = 2400
            results["cells"].append(twin)
    return results


def test_a_view_has_the_cells_of_its_frame_and_the_reference_of_equal_steps():
    study = StudyResults(in_frames(shift=0.05))
    view = study.in_frame("flops")
    assert {r["steps"] for r in study.pretraining("A*6")} == {1800}
    assert {r["steps"] for r in view.pretraining("A*6")} == {2400}
    assert {r["steps"] for r in view.pretraining("(AI)*6")} == {1800}
    difference = view.mean_score("wiki_topic", "A*6") - study.mean_score("wiki_topic", "A*6")
    assert difference == pytest.approx(0.05)


def test_a_step_takes_what_it_takes_at_equal_steps_unless_its_blocks_are_others():
    rounds = [len(StudyResults(in_frames(frame)).in_frame(frame).step_ratios("A*6"))
              for frame in ("flops", "time", "surgery", "wider_hidden")]  # fmt: skip
    assert rounds == [30, 30, 30, 0]
    assert StudyResults(in_frames("wider_hidden")).in_frame("wider_hidden").pretraining("A*6")[0][
        "step_milliseconds"] is None  # fmt: skip
    # As many blocks in another order: the encoder of equal FLOPs is that of equal steps.
    other = "(AI)*4IA*2I"
    results = made_up_study.results(patterns=("(AI)*6", other))
    results["config"]["frames"] = ["steps", "flops"]
    view = StudyResults(results).in_frame("flops")
    assert len(view.step_ratios(other)) == 30 and view.pretraining(other)


def test_a_pattern_not_begun_is_in_no_frame():
    results = in_frames()
    for cell in results["cells"]:
        if cell["label"].get("pattern") == "A*6":
            cell.update(status="not run", result=None)
    study = StudyResults(results)
    view = study.in_frame("flops")
    assert study.left_patterns == view.left_patterns == ["A*6"]
    assert study.reduced == view.reduced == ["(AAI)*3"]
    for matter, by_pattern in claims.verdicts(study).items():
        assert "A*6" not in by_pattern, matter


@pytest.mark.parametrize(
    ("shift", "accuracy", "same"),
    [(0.0, SUPPORTED, SUPPORTED), (-0.05, NOT_SUPPORTED, NOT_SUPPORTED)],
)
def test_whether_the_verdict_changes_in_another_frame(shift, accuracy, same):
    found = claims.verdicts(StudyResults(in_frames(shift=shift)))
    assert found["accuracy kept"]["A*6"].status == SUPPORTED
    assert found["accuracy kept at equal training FLOPs"]["A*6"].status == accuracy
    verdict = found["same verdict at equal training FLOPs"]["A*6"]
    assert verdict.status == same and "at equal steps supported" in verdict.reason


def test_patterns_that_are_no_core_are_not_compared_in_other_frames():
    found = claims.verdicts(StudyResults(in_frames(core_patterns=2)))
    verdict = found["accuracy kept at equal training FLOPs"]["A*6"]
    assert (verdict.status, verdict.reason) == (UNDERPOWERED, "not compared in this frame")


def test_a_partner_of_the_grid_stands_under_the_name_of_the_pattern():
    results = made_up_study.results(patterns=("(AI)*6", "A*6", "A*18"), tasks=("wiki_topic",))
    results["config"]["frames"] = ["steps", "more_attention"]
    results["config"]["records"]["vocab_size"] = 1000
    view = StudyResults(results).in_frame("more_attention")
    plain = StudyResults(results)
    [run] = view.pretraining("A*6")
    assert run["parameters"] == plain.pretraining("A*18")[0]["parameters"]
    assert view.mean_score("wiki_topic", "A*6") == plain.mean_score("wiki_topic", "A*18")


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
                ("blimp", {"accuracy": grammar[pattern] + 0.001 * (seed % 2), "pairs": 100}),
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
    results = inner(in_frames(), residual, 0.5, grammar)
    found = claims.verdicts(StudyResults(results))
    assert found["rank collapse"]["A*6"].status == SUPPORTED
    assert found["rank collapse"]["(AAI)*3"].status == NOT_SUPPORTED
    assert found["near linearity"]["A*6"].status == NOT_SUPPORTED
    assert found["grammar kept"]["A*6"].status == NOT_SUPPORTED
    assert found["grammar kept"]["(AAI)*3"].status == SUPPORTED
    nearly = claims.verdicts(StudyResults(inner(in_frames(), residual, 0.95, grammar)))
    assert nearly["near linearity"]["A*6"].status == SUPPORTED
    table = frame_tables.diagnostics(StudyResults(results))
    assert table.rows[2][4].text == "no intermediate block"


@pytest.mark.slow
def test_the_budgets_and_the_frames_stand_in_the_report(tmp_path):
    results = in_frames(shift=0.05)
    residual = dict.fromkeys(("(AI)*6", "(AAI)*3", "A*6"), 0.5)
    report.write_report(inner(results, residual, 0.5, residual), tmp_path)
    page = (tmp_path / "report.html").read_text()
    for text in ("The same patterns with other budgets", "equal training FLOPs", "BLiMP",
                 "Collapse and linearity", "Quality against cost"):  # fmt: skip
        assert text in page and text in (tmp_path / "report.md").read_text()
    table = frame_tables.budgets(StudyResults(results))
    assert [row[1].text for row in table.rows] == ["equal steps", "equal training FLOPs"] * 2
    told = " ".join(f.text for f in methods.procedure(StudyResults(results)))
    assert "closed-form FLOPs" in told
    assert re.search(r"@article\{sridhar2020undivided", (tmp_path / "citation.bib").read_text())


def test_every_cell_is_in_the_csv_with_its_measures():
    results = made_up_study.fail(in_frames(), "probing/A*6/1")
    rows = list(csv.DictReader(io.StringIO(record_files.cells_csv(StudyResults(results)))))
    assert {row["name"] for row in rows} == {cell["name"] for cell in results["cells"]}
    failed = [row for row in rows if row["status"] == "failed"]
    assert len(failed) == 1 and failed[0]["error"] and not failed[0]["measure"]
    cell = next(cell for cell in results["cells"] if cell["kind"] == "pretraining")
    [found] = [r for r in rows if r["name"] == cell["name"] and r["measure"] == "parameters"]
    assert int(found["value"]) == cell["result"]["parameters"]
    assert {row["frame"] for row in rows} == {"steps", "flops"}


def test_quality_begins_with_the_reference_and_is_nothing_without_it():
    results = in_frames()
    points = frame_tables.quality(StudyResults(results), "wiki_topic")
    assert (points[0]["pattern"], points[0]["frame"], len(points)) == ("(AI)*6", "steps", 5)
    without = made_up_study.fail(results, "pretraining/(AI)*6")
    assert frame_tables.quality(StudyResults(without), "wiki_topic") == []
