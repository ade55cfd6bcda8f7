"""What a study will cost, told before it runs."""

import dataclasses
import shutil

import made_up_cells
import pytest

from undivided_tf.config import EncoderConfig
from undivided_tf.reporting import formatting
from undivided_tf.study import budgets, grid, outcomes, projection, running
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.projection import StepTimes
from undivided_tf.support import files
from undivided_tf.training.config import PretrainingConfig


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small study whose records and two of three pre-trainings are finished, as if measured."""
    config = StudyConfig(
        workdir=str(tmp_path_factory.mktemp("finished")), patterns=("(AI)*2", "A*2"),
        tasks=("wiki_topic",), budgets=("steps", "time"), diagnose=True,
    )  # fmt: skip
    cells = [c for c in grid.expand(config) if c.kind.name in ("records", "pretraining")]
    cells = made_up_cells.with_invented_results(c for c in cells if not c.timing)
    running.run(cells, config.workdir)
    return config


@pytest.fixture
def config(finished, tmp_path, monkeypatch):
    """A copy of that study; its task has few rows."""
    monkeypatch.setattr(projection, "_rows", lambda task: {"train": 100, "test": 50})
    shutil.copytree(finished.workdir, tmp_path, dirs_exist_ok=True)
    return finished.replace(workdir=str(tmp_path))


def test_step_times_lie_on_a_line_through_what_was_measured():
    one, two = StepTimes({100: 2.0}, ""), StepTimes({100: 2.0, 300: 4.0}, "")
    assert (one.seconds(100), one.seconds(50)) == (2.0, 1.0)
    assert (two.seconds(100), two.seconds(200), two.seconds(400)) == (2.0, 3.0, 5.0)
    assert two.seconds(1) > 0 and two.speed == 75


def test_finished_cells_give_the_times_of_the_others(config):
    found, source = projection.project(config)
    assert source == projection.SCALED
    assert [one.cell.name for one in found if one.finished] != []
    by_budget = {
        (one.cell.label["pattern"], one.cell.label.get("budget")): one
        for one in found
        if one.cell.kind.name == "pretraining"
    }
    full, none = by_budget["(AI)*2", None], by_budget["A*2", None]
    assert full.finished and none.finished and full.parameters > none.parameters
    assert full.flops == full.steps * budgets.step_flops(config, full.cell.recipe.encoder)
    timed = by_budget["A*2", "time"]  # 30 ms and 20 ms a step.
    assert not timed.finished and timed.steps == 1.5 * none.steps
    assert timed.seconds == pytest.approx(timed.steps * 0.02, rel=0.5)
    assert all(one.seconds > 0 for one in found)
    (in_turn,) = (one for one in found if one.cell.kind.name == "timing")
    rounds = in_turn.cell.recipe.num_rounds * in_turn.cell.recipe.steps_per_round
    assert in_turn.seconds == pytest.approx(in_turn.starting + rounds * 0.06)


def test_workers_share_all_cells_but_those_that_are_timed(config):
    found, source = projection.project(config)
    found = [dataclasses.replace(one, seconds=100.0, finished=False) for one in found]
    alone = sum(one.cell.alone for one in found)
    assert 0 < alone < len(found)
    expected = formatting.duration(100 * alone + 100 * (len(found) - alone) / 4)
    text = projection.describe(config.replace(num_workers=4), found, source)
    assert text.splitlines()[-1].endswith(f", {expected} with 4 workers")
    assert "workers" not in projection.describe(config.replace(num_workers=1), found, source)


def test_dry_run_says_what_is_left_and_where_times_come_from(config):
    text = projection.describe(config, *projection.project(config))
    assert "(finished)" in text and "projected time left" in text
    assert projection.SCALED in text and projection.RULE in text
    assert sum("pretraining_" in line for line in text.splitlines()) == 3


def test_kept_results_count_as_finished_save_what_must_be_trained_again(config, tmp_path):
    cells = grid.expand(config)
    files.remove(tmp_path / "cells")
    result = {"steps": 1, "step_milliseconds": 1.0, "milliseconds": [1.0],
              "reference_milliseconds": [1.0]}  # fmt: skip
    everything = [{**outcomes.listed([cell], tmp_path)[0], "status": "finished", "seconds": 1.0,
                   "result": result} for cell in cells]  # fmt: skip
    left = next(one for one in everything if one["kind"] == "diagnostics")
    left["status"] = "not run"
    files.write_json(tmp_path / "kept.json", {"cells": everything})
    found, _ = projection.project(config, str(tmp_path / "kept.json"))
    unfinished = [one.cell.kind.name for one in found if not one.finished]
    assert unfinished == ["records", "pretraining", "diagnostics"]


def test_the_cost_of_added_seeds_is_shown():
    config = StudyConfig(
        patterns=("(AI)*2", "A*2"), num_pretraining_seeds=3, until_decided=True, sizes=("16x2",),
        pretraining=PretrainingConfig(
            encoder=EncoderConfig(hidden_size=8, num_attention_heads=2, intermediate_size=16),
            num_train_steps=10, num_warmup_steps=1, learning_rate_schedule="trapezoid",
            cooldown_steps=(4,),
        ),
    )  # fmt: skip
    projections = [
        projection.Projection(cell, False, None, None, None, 60.0, projection.RULE, 6.0)
        for cell in grid.expand(config)
    ]
    text = projection.describe(config, projections, projection.RULE)
    assert "2 more seeds of A*2 at size 16x2: 2 min 00 s, with the reference 4 min 00 s" in text
    assert "all arms with the most seeds, 9: 36 min 00 s" in text
    (starting,) = (line for line in text.splitlines() if line.startswith("starting up"))
    assert starting.endswith(", 10% of the time left")


def test_an_assumed_rate_needs_no_timing(config, monkeypatch):
    monkeypatch.setattr(projection, "_short_timing", None)
    found, source = projection.project(config, assumed_teraflops=2.0)
    assert source == "2 teraFLOP/s, assumed"
    twice, _ = projection.project(config, assumed_teraflops=4.0)
    for one, other in zip(found, twice, strict=True):
        if one.cell.kind.name == "pretraining" and not one.finished:
            assert one.seconds >= one.flops / 2e12
            halved = other.seconds - other.starting
            assert one.seconds - one.starting == pytest.approx(2 * halved, rel=1e-6)
