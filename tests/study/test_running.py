"""Cells are run once, failures are kept apart, and processes share the work."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import made_up_cells
import psutil
import pytest
from made_up_cells import cell, journal

from undivided_tf import files
from undivided_tf.errors import InputError
from undivided_tf.study import leases, running


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study's directory; its cells do what `made_up_cells` says."""
    monkeypatch.setattr(running, "_timed_call", made_up_cells.timed_call)
    return tmp_path


def outcomes(cells, study, **options):
    return {o["label"]["name"]: o for o in running.run(cells, study, **options)}


def test_finished_cells_are_not_repeated(study):
    first = cell("first", isolated=True)
    cells = [first, cell("second", needs=first), cell("third", needs=first)]
    before = running.run(cells, study)
    assert [o["name"] for o in before] == [c.name for c in cells]
    assert before[1] == {
        "machine": leases.machine(), "name": cells[1].name,
        "kind": "probing", "label": {"name": "second"},
        "status": "finished", "error": None, "seconds": 0.25,
        "result": {"kind": "probing", "did": "succeed", "need": ["first"], "name": "second"},
    }  # fmt: skip
    assert journal(study) == ["first", "second", "third"]
    times = {p: p.stat().st_mtime_ns for p in (study / "cells").rglob("finished.json")}
    assert len(times) == 3
    assert running.run(cells, study) == before
    files.remove(study / "cells" / cells[1].name)
    assert running.run(cells, study) == before
    assert journal(study) == ["first", "second", "third", "second"]
    now = {p: p.stat().st_mtime_ns for p in (study / "cells").rglob("finished.json")}
    assert {p.parent.name for p in times if times[p] != now[p]} == {cells[1].name}


@pytest.mark.parametrize("where", ["isolated", "alone", "neither"])
def test_a_failed_cell_stops_only_those_that_need_it_and_is_tried_again(study, where):
    bad = cell("bad", "fail", isolated=where == "isolated", alone=where == "alone")
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


def test_light_cells_share_workers_and_isolated_ones_have_fresh_ones(study):
    cells = [*map(cell, "ab"), cell("c", isolated=True), cell("d", alone=True), *map(cell, "ef")]
    running.run(cells, study)
    lines = [line.split() for line in (study / "journal").read_text().splitlines()]
    workers = dict(lines)
    assert workers["a"] == workers["b"] and workers["e"] == workers["f"]
    assert len({workers[name] for name in "acd"} | {str(os.getpid())}) == 4


def test_what_is_timed_has_nothing_beside_it(study):
    """Each call notes when it begins and when it has ended."""
    cells = [cell("a", "wait"), cell("b", "wait"), cell("t", "wait", alone=True), *map(cell, "cd")]
    running.run(cells, study, num_workers=2)
    events = [line.split()[0] for line in (study / "events").read_text().splitlines()]
    begins, ends = events.index("t"), events.index("t", events.index("t") + 1)
    assert ends == begins + 1 and sorted(events[:begins]) == ["a", "a", "b", "b"]


@pytest.mark.parametrize("alone", [True, False])
def test_a_killed_study_leaves_no_worker_behind(tmp_path, alone):
    code = (
        "import sys, made_up_cells\n"
        "from undivided_tf.study import running, workers\n"
        "workers.PRELOADED = []\n"  # What is made up needs no TensorFlow.
        "running._timed_call = made_up_cells.timed_call\n"
        f"running.run([made_up_cells.cell('long', 'sleep', alone={alone})], sys.argv[1])\n"
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


# === Several processes ===


def deal(study, names, share, does="wait"):
    """A process that runs a share of cells `(name, isolated)`, in the background."""
    code = (
        "import sys, made_up_cells\n"
        "from undivided_tf.study import running, workers\n"
        "workers.PRELOADED = []\n"  # What is made up needs no TensorFlow.
        "running._timed_call = made_up_cells.timed_call\n"
        "running.POLL_SECONDS, running.GRACE_SECONDS = 0.05, 1.0\n"
        f"cells = [made_up_cells.cell(name, {does!r}, isolated=isolated) "
        f"for name, isolated in {names!r}]\n"
        f"found = running.run(cells, sys.argv[1], 1, running.Share.parse({share!r}))\n"
        "print(*(outcome['status'].replace(' ', '_') for outcome in found))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-c", code, study],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def test_two_processes_share_the_cells_and_both_have_all_outcomes(tmp_path):
    names = [(name, False) for name in "abcdef"]
    shares = [deal(tmp_path, names, share) for share in ("1/2", "2/2")]
    said = [process.communicate(timeout=240)[0].split() for process in shares]
    assert said == [["finished"] * 6] * 2
    assert sorted(journal(tmp_path)) == list("abcdef")
    lines = [line.split() for line in (tmp_path / "journal").read_text().splitlines()]
    assert len({worker for _, worker in lines}) == 2


def test_a_killed_process_leaves_its_cell_to_the_other(tmp_path):
    names = [("long", False)]
    killed = deal(tmp_path, names, "1/2", does="sleep")
    deadline = time.monotonic() + 120
    while not journal(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    other = deal(tmp_path, names, "2/2", does="sleep")
    time.sleep(3)
    assert journal(tmp_path) == ["long"]  # The other waits: the claim is alive.
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    try:
        while len(journal(tmp_path)) < 2:
            assert time.monotonic() < deadline + 120
            time.sleep(0.05)
        assert list((tmp_path / "claims").glob("*.0002"))
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()


def test_a_share_helps_the_others_when_it_is_done(study):
    cells = [cell("a", isolated=True), cell("b", isolated=True), cell("c", alone=True)]
    found = outcomes(cells, study, share=running.Share(2, 2))
    assert {o["status"] for o in found.values()} == {"finished"}
    assert journal(study) == ["b", "a", "c"]


def test_a_share_ends_a_turn_before_it_begins_the_next(study):
    cells = [cell(name, turn=turn) for name, turn in (("a", 0), ("b", 0), ("c", 1), ("d", 1))]
    outcomes(cells, study, share=running.Share(2, 2))
    assert journal(study) == ["b", "a", "d", "c"]


def test_outcomes_so_far_are_listed_and_nothing_runs(study):
    bad = cell("bad", "fail")
    done = [cell("good"), bad, cell("after", needs=bad)]
    ran = running.run(done, study)
    listed = running.outcomes([*done, cell("later", isolated=True)], study)
    assert listed[:3] == ran and listed[3]["status"] == "not run"
    assert journal(study) == ["good", "bad"]


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "a/b", "1/2/3"])
def test_share_that_is_none(text):
    with pytest.raises(InputError, match="cells must be i/n"):
        running.Share.parse(text)
