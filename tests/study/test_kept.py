"""A study goes on from its kept results.json: only what is still needed runs again."""

import shutil

import made_up_cells
import pytest
from made_up_cells import cell, journal

from undivided_tf.errors import InputError
from undivided_tf.study import kept, outcomes, running
from undivided_tf.support import files

OLD = cell("old", kind=made_up_cells.MadeUpPretraining)
ENCODER = cell("encoder", kind=made_up_cells.MadeUpPretraining)
CELLS = [OLD, ENCODER, cell("probe", needs=ENCODER), cell("drawn", needs=OLD)]
LATER = [cell("other"), cell("late", needs=ENCODER, turn=1), cell("new", turn=2)]


def run(cells, workdir):
    return running.run(cells, workdir)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of a study whose `CELLS` have finished."""
    directory = tmp_path_factory.mktemp("finished")
    files.write_json(directory / "results.json", {"cells": run(CELLS, directory)})
    return directory


@pytest.fixture
def results(finished, tmp_path):
    """A results.json of `CELLS`, in another directory than where the study goes on."""
    return shutil.copytree(finished, tmp_path / "kept") / "results.json"


def test_what_is_finished_does_not_run_again_unless_its_files_are_needed(results, tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    told = kept.read(results, CELLS)
    in_turn = kept.take_up(CELLS, study, told)
    assert run(in_turn, study) == list(told.values()) and not journal(study)

    # The directory has the kept results, but not the files of the encoder that is needed now.
    in_turn = kept.take_up(CELLS + LATER, study, told)
    before = kept.filled(CELLS + LATER, outcomes.listed(CELLS + LATER, study), told)
    assert before[:4] == list(told.values())  # The encoder has not run again, and is known.
    assert [outcome["status"] for outcome in before[4:]] == ["not run"] * 3
    # What takes an old encoder comes a turn later, behind what is new.
    assert [(c.label["name"], c.turn) for c in in_turn[-3:]] == [
        ("new", 2), ("encoder", 2), ("late", 2)
    ]  # fmt: skip
    run(in_turn, study)
    assert journal(study) == ["other", "new", "encoder", "late"]
    after = outcomes.listed(CELLS + LATER, study)
    assert {outcome["status"] for outcome in after} == {"finished"}
    assert run(kept.take_up(CELLS + LATER, study, told), study)
    assert journal(study) == ["other", "new", "encoder", "late"]


def test_what_ran_again_takes_the_place_of_the_kept_one(results):
    found = outcomes.listed(CELLS, results.parent)
    old = {c.name: {"machine": "first", "result": {}} for c in CELLS[1:2]}
    assert kept.filled(CELLS, found, old) == found
    left = [found[0], {**found[1], "status": "not run"}]
    assert kept.filled(CELLS[:2], left, old) == [found[0], old[ENCODER.name]]


def test_nothing_told_changes_nothing(tmp_path):
    assert kept.take_up(CELLS + LATER, tmp_path, {}) == CELLS + LATER


@pytest.mark.parametrize("content", [None, "{", "[]", '{"cells": [{}]}', '{"cells": 3}'])
def test_a_file_that_is_no_results_is_refused(tmp_path, content):
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"results\.json is no results\.json of a study"):
        kept.read(path, CELLS)


def test_results_of_another_study_are_refused(results):
    with pytest.raises(InputError, match="no finished cell of this study: give the flags"):
        kept.read(results, LATER)
