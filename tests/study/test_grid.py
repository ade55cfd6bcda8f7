import collections
import os
import pathlib
import signal
import subprocess
import sys
import time

import made_up_cells
import psutil
import pytest
from made_up_cells import cell

from undivided_tf import files
from undivided_tf.recipes import StudyConfig
from undivided_tf.study import grid

CONFIG = StudyConfig(
    patterns=("AI", "A*2"), tasks=("wiki_topic", "my/task"), num_pretraining_seeds=2, seed=5
)


def hashes(config):
    """By what a cell is, whatever its name."""
    return {(cell.kind, str(cell.label)): cell.hash for cell in grid.expand(config)}


def changed(config):
    """Kinds of the cells whose hash differs from that under `CONFIG`."""
    before, after = hashes(CONFIG), hashes(config)
    assert before.keys() == after.keys()
    return {kind for kind, label in before if before[kind, label] != after[kind, label]}


# === Expansion ===


def test_the_grid_has_every_cell_once():
    cells = grid.expand(CONFIG)
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names)
    # 2 patterns x 2 seeds x 2 tasks; random weights once a pattern and task; the reference
    # against all 4 trained encoders, and each of these against its untrained twin.
    assert collections.Counter(cell.kind for cell in cells) == {
        "records": 1, "pretraining": 4, "finetuning": 8 + 4, "cka": 4 + 4, "probing": 8
    }  # fmt: skip
    scratch = [c.label for c in cells if c.label.get("start") == "scratch"]
    assert collections.Counter((s["pattern"], s["task"]) for s in scratch) == {
        (pattern, task): 1 for pattern in ("AI", "A*2") for task in CONFIG.tasks
    }
    assert all(c.recipe.from_scratch == (c.label["start"] == "scratch")
               for c in cells if c.kind == "finetuning")  # fmt: skip
    assert [c.label["seed"] for c in cells if c.kind == "pretraining"] == [5, 5, 6, 6]
    assert [c.recipe.seed for c in cells if c.kind == "pretraining"] == [5, 5, 6, 6]
    for c in cells:
        assert c.isolated == (c.kind == "pretraining")
        assert set(c.name) <= set(grid.re.sub("[^A-Za-z0-9_-]", "", c.name))


def test_needs_come_before_those_that_need_them():
    seen = set()
    for c in grid.expand(CONFIG):
        assert {need.name for need in c.places.values()} <= seen
        seen.add(c.name)


def test_cka_compares_the_reference_with_all_and_all_with_their_twins():
    pairs = [c for c in grid.expand(CONFIG) if c.kind == "cka"]
    for c in pairs:
        first, second = c.label["first"], c.label["second"]
        assert first["trained"]
        need = c.places["first_checkpoint"].label
        assert need == {"pattern": first["pattern"], "seed": first["seed"]}
        assert ("second_checkpoint" in c.places) == second["trained"]
        if second["trained"]:
            assert (first["pattern"], first["seed"]) == ("AI", 5)
            need = c.places["second_checkpoint"].label
            assert need == {"pattern": second["pattern"], "seed": second["seed"]}
        else:
            assert first["pattern"] == second["pattern"]


def test_hashes_follow_recipes_and_needs_and_nothing_else():
    everything = {"records", "pretraining", "finetuning", "cka", "probing"}
    assert changed(CONFIG.replace(workdir="elsewhere", num_workers=7)) == set()
    pretraining = CONFIG.pretraining.replace(num_train_steps=20_000)
    assert changed(CONFIG.replace(pretraining=pretraining)) == everything - {"records"}
    records = CONFIG.records.replace(vocab_size=99)
    assert changed(CONFIG.replace(records=records)) == everything
    for kind in ("finetuning", "cka", "probing"):
        section = getattr(CONFIG, kind).replace(max_seq_length=9)
        assert changed(CONFIG.replace(**{kind: section})) == {kind}
    names = [cell.name for cell in grid.expand(CONFIG)]
    assert names == [cell.name for cell in grid.expand(CONFIG)]


def test_another_pattern_leaves_the_cells_of_the_others():
    names = {c.name for c in grid.expand(CONFIG)}
    more = {c.name for c in grid.expand(CONFIG.replace(patterns=("AI", "A*2", "AAI")))}
    assert names < more


# === Running ===


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study's directory; its cells do what `made_up_cells` says."""
    monkeypatch.setattr(grid, "_timed_call", made_up_cells.timed_call)
    return tmp_path


def journal(study):
    """Names of the cells that ran, in order."""
    path = study / "journal"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def outcomes(cells, study, **options):
    return {o["label"]["name"]: o for o in grid.run(cells, study, **options)}


def test_finished_cells_are_not_repeated(study):
    first = cell("first", isolated=True)
    cells = [first, cell("second", needs=first), cell("third", needs=first)]
    before = grid.run(cells, study)
    assert [o["name"] for o in before] == [c.name for c in cells]
    assert before[1] == {
        "name": cells[1].name, "kind": "probing", "label": {"name": "second"},
        "status": "finished", "error": None, "seconds": 0.25,
        "result": {"kind": "probing", "did": "succeed", "need": ["first"], "name": "second"},
    }  # fmt: skip
    assert journal(study) == ["first", "second", "third"]
    times = {p: p.stat().st_mtime_ns for p in (study / "cells").rglob("finished.json")}
    assert len(times) == 3
    assert grid.run(cells, study) == before
    files.remove(study / "cells" / cells[1].name)
    assert grid.run(cells, study) == before
    assert journal(study) == ["first", "second", "third", "second"]
    now = {p: p.stat().st_mtime_ns for p in (study / "cells").rglob("finished.json")}
    assert {p.parent.name for p in times if times[p] != now[p]} == {cells[1].name}


@pytest.mark.parametrize("isolated", [True, False])
def test_a_failed_cell_stops_only_those_that_need_it_and_is_tried_again(study, isolated):
    bad = cell("bad", "fail", isolated=isolated)
    after = cell("after", needs=bad)
    cells = [bad, cell("good"), after, cell("last", needs=after), cell("other")]
    found = outcomes(cells, study, num_workers=2)
    assert {name: o["status"] for name, o in found.items()} == {
        "bad": "failed", "good": "finished", "after": "failed", "last": "failed",
        "other": "finished",
    }  # fmt: skip
    assert found["bad"]["error"] == "InputError: no luck"
    assert found["after"]["error"] == f"needs {bad.name}"
    assert found["last"]["error"] == f"needs {after.name}"
    assert found["bad"]["result"] is None and found["bad"]["seconds"] is None
    (study / "mended").touch()
    found = outcomes(cells, study, num_workers=2)
    assert {o["status"] for o in found.values()} == {"finished"}
    assert sorted(journal(study)) == sorted(["bad", "good", "other", "bad", "after", "last"])


def test_a_cell_whose_process_dies_takes_no_other_with_it(study):
    names = [f"good{i}" for i in range(4)]
    cells = [cell("dead", "die"), cell("dead2", "die"), *map(cell, names)]
    found = outcomes(cells, study, num_workers=2)
    assert {name: o["status"] for name, o in found.items()} == {
        "dead": "failed", "dead2": "failed", **dict.fromkeys(names, "finished")
    }  # fmt: skip
    assert "its process died" in found["dead"]["error"]
    assert sorted(journal(study)) == ["dead", "dead2", *names]


def test_light_cells_share_workers_and_isolated_ones_have_their_own(study):
    cells = [cell("a", isolated=True), cell("b", isolated=True), *map(cell, "cdef")]
    grid.run(cells, study)
    lines = [line.split() for line in (study / "journal").read_text().splitlines()]
    workers = dict(lines)
    assert len({workers[name] for name in "ab"}) == 2
    assert len({workers[name] for name in "cdef"}) == 1
    assert workers["c"] not in (workers["a"], workers["b"], str(os.getpid()))


@pytest.mark.parametrize("isolated", [True, False])
def test_a_killed_study_leaves_no_worker_behind(tmp_path, isolated):
    code = (
        "import sys, made_up_cells\n"
        "from undivided_tf.study import grid\n"
        "grid._timed_call = made_up_cells.timed_call\n"
        f"grid.run([made_up_cells.cell('long', 'sleep', isolated={isolated})], sys.argv[1])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    parent = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while not journal(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        worker = psutil.Process(int((tmp_path / "journal").read_text().split()[1]))
        assert parent.pid in (worker.ppid(), worker.parents()[1].pid)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    # Where nothing adopts orphans a dead one stays as a zombie.
    deadline = time.monotonic() + 2
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not list(pathlib.Path(tmp_path).rglob("finished.json"))
