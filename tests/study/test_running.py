"""Cells are run once, failures are kept apart, and whatever is killed, the same call goes on."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import distributed
import psutil
import pytest
from made_up_cells import cell, journal

from undivided_tf.errors import InputError
from undivided_tf.study import outcomes, running
from undivided_tf.support import cluster, files, process

HERE = pathlib.Path(__file__).parent
PATH = os.pathsep.join(filter(None, [str(HERE), *sys.path]))
LIMIT = 120  # Seconds until what is waited for must be there.


@pytest.fixture(scope="module")
def scheduler():
    """A standing cluster of one worker that does two cells at a time."""
    with cluster.connect(threads=2) as client:
        yield client.scheduler.address


@pytest.fixture
def run(scheduler, tmp_path):
    """Runs made-up cells in `tmp_path` on the standing cluster."""

    def call(cells, workdir=tmp_path, num_workers=2):
        return running.run(cells, workdir, num_workers, scheduler)

    return call


def by_name(found):
    return {outcome["label"]["name"]: outcome for outcome in found}


def wait_for(condition):
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_finished_cells_are_not_repeated(run, tmp_path):
    first = cell("first")
    cells = [first, cell("second", needs=first), cell("third", needs=first)]
    before = run(cells, num_workers=1)
    assert [o["name"] for o in before] == [c.name for c in cells]
    assert before[1].pop("seconds") >= before[1].pop("compiling_seconds") == 0
    assert before[1] == {
        "machine": process.machine(), "name": cells[1].name,
        "kind": "probing", "label": {"name": "second"}, "status": "finished", "error": None,
        "result": {"kind": "probing", "did": "succeed", "need": ["first"], "name": "second"},
    }  # fmt: skip
    assert journal(tmp_path) == ["first", "second", "third"]
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").rglob("finished.json")}
    assert len(times) == 3
    run(cells)
    files.remove(tmp_path / "cells" / cells[1].name)
    run(cells)
    assert journal(tmp_path) == ["first", "second", "third", "second"]
    now = {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").rglob("finished.json")}
    assert {p.parent.name for p in times if times[p] != now[p]} == {cells[1].name}


@pytest.mark.parametrize("alone", [True, False])
def test_a_failed_cell_stops_only_those_that_need_it_and_is_tried_again(run, tmp_path, alone):
    bad = cell("bad", "fail", alone=alone)
    after = cell("after", needs=bad)
    cells = [bad, cell("good"), after, cell("last", needs=after), cell("other")]
    found = by_name(run(cells))
    assert {name: o["status"] for name, o in found.items()} == {
        "bad": "failed", "good": "finished", "after": "failed", "last": "failed",
        "other": "finished",
    }  # fmt: skip
    assert found["bad"]["error"] == "InputError: no luck"
    assert found["after"]["error"] == f"needs {bad.name}"
    assert found["last"]["error"] == f"needs {after.name}"
    assert found["bad"]["result"] is None and found["bad"]["seconds"] is None
    assert "InputError: no luck" in (tmp_path / "logs" / f"{bad.name}.log").read_text()
    (tmp_path / "mended").touch()
    found = by_name(run(cells))
    assert {o["status"] for o in found.values()} == {"finished"}
    assert sorted(journal(tmp_path)) == sorted(["bad", "good", "other", "bad", "after", "last"])


def test_a_cell_whose_process_dies_takes_no_other_with_it(run, tmp_path):
    names = [f"good{i}" for i in range(4)]
    cells = [cell("dead", "die"), cell("dead2", "die"), *map(cell, names)]
    found = by_name(run(cells))
    assert {name: o["status"] for name, o in found.items()} == {
        "dead": "failed", "dead2": "failed", **dict.fromkeys(names, "finished")
    }  # fmt: skip
    assert "its process died" in found["dead"]["error"]
    assert sorted(journal(tmp_path)) == ["dead", "dead2", *names]


def test_every_cell_has_a_process_of_its_own(run, tmp_path):
    run([*map(cell, "abc"), cell("d", alone=True)])
    lines = [line.split() for line in (tmp_path / "journal").read_text().splitlines()]
    assert len({number for _, number in lines} | {str(os.getpid())}) == 5


def test_cells_come_in_the_order_of_the_grid(run, tmp_path):
    run([*map(cell, "dbca")], num_workers=1)
    assert journal(tmp_path) == [*"dbca"]


def test_what_is_timed_has_nothing_beside_it(run, tmp_path):
    """Each call notes when it begins and when it has ended."""
    cells = [cell("a", "wait"), cell("b", "wait"), cell("t", "wait", alone=True), *map(cell, "cd")]
    run(cells)
    events = [line.split()[0] for line in (tmp_path / "events").read_text().splitlines()]
    begins, ends = events.index("t"), events.index("t", events.index("t") + 1)
    assert ends == begins + 1 and sorted(events[:begins]) == ["a", "a", "b", "b"]


@pytest.mark.parametrize("number", [1, 2, 3, 7, 12])
def test_shares_of_a_machine_add_up_exactly(number):
    free = 1.0
    (share,) = cluster.share(number).values()
    for _ in range(number):
        free -= share
    assert 0 <= free < share
    assert free + number * share == 1.0 and sum([share] * number, free) == 1.0


def test_outcomes_so_far_are_listed_and_nothing_runs(run, tmp_path):
    bad = cell("bad", "fail")
    done = [cell("good"), bad, cell("after", needs=bad)]
    ran = run(done, num_workers=1)
    listed = outcomes.listed([*done, cell("later")], tmp_path)
    assert listed[:3] == ran and listed[3]["status"] == "not run"
    assert journal(tmp_path) == ["good", "bad"]


# === What is killed ===

STUDY = """
import sys, made_up_cells
from undivided_tf.study import running
if __name__ == "__main__":
    workdir, scheduler, *cells = sys.argv[1:]
    cells = [made_up_cells.cell(*text.split(":")) for text in cells]
    found = running.run(cells, workdir, 2, scheduler)
    print(*(outcome["status"] for outcome in found))
"""


@contextlib.contextmanager
def background(command, directory, **environment):
    """A process that is killed in the end."""
    with open(directory / "log", "a") as log:
        started = subprocess.Popen(
            command, cwd=directory, env={**os.environ, "PYTHONPATH": PATH, **environment},
            stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def study(tmp_path, *cells, scheduler=""):
    """A study in the background; of cells such as `long:sleep`."""
    script = tmp_path / "study.py"
    script.write_text(STUDY)
    workdir = tmp_path / "study"
    return background([sys.executable, script, workdir, scheduler, *cells], tmp_path)


def processes(workdir):
    """Those of the cells that began."""
    path = workdir / "journal"
    lines = path.read_text().splitlines() if path.exists() else []
    return [int(line.split()[1]) for line in lines]


def is_gone(number):
    """Where nothing adopts orphans a dead one stays as a zombie."""
    return not psutil.pid_exists(number) or psutil.Process(number).status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_a_killed_study_leaves_no_process_behind_and_goes_on(tmp_path):
    workdir = tmp_path / "study"
    with study(tmp_path, "a", "long:nap") as client:
        wait_for(lambda: len(processes(workdir)) == 2)
        family = psutil.Process(client.pid).children(recursive=True)
        client.send_signal(signal.SIGKILL)
        client.wait()
    wait_for(lambda: all(is_gone(one.pid) for one in family))
    (workdir / "mended").touch()
    with study(tmp_path, "a", "long:nap") as client:
        assert client.communicate(timeout=LIMIT)[0].split() == ["finished"] * 2
    assert journal(workdir).count("a") == 1 and journal(workdir).count("long") == 2


def test_sigterm_stops_the_cells_and_says_so(tmp_path):
    workdir = tmp_path / "study"
    with study(tmp_path, "long:sleep") as client:
        wait_for(lambda: processes(workdir))
        client.send_signal(signal.SIGTERM)
        assert client.wait(LIMIT) != 0
    assert is_gone(processes(workdir)[0])
    assert not list(workdir.rglob("finished.json"))


def test_two_calls_do_not_run_one_study(tmp_path):
    workdir = tmp_path / "study"
    with study(tmp_path, "long:sleep"):
        wait_for(lambda: processes(workdir))
        with pytest.raises(InputError, match="another process runs the study in"):
            running.run([cell("other")], workdir)


def test_a_worker_that_dies_in_mid_cell_is_replaced_and_the_cell_runs_again(run, tmp_path):
    cells = [cell("long", "nap"), cell("good")]

    def kill():
        wait_for(lambda: "long" in journal(tmp_path) and list(tmp_path.rglob("finished.json")))
        child = psutil.Process(processes(tmp_path)[journal(tmp_path).index("long")])
        (tmp_path / "mended").touch()
        child.parent().parent().kill()  # Its parent is the server that forks.

    killer = threading.Thread(target=kill)
    killer.start()
    found = run(cells)
    killer.join()
    assert {o["status"] for o in found} == {"finished"}
    assert journal(tmp_path).count("long") == 2 and journal(tmp_path).count("good") == 1


# === A scheduler that stands ===


@contextlib.contextmanager
def standing(tmp_path):
    """The address of a scheduler without workers, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--no-dashboard"]
    with background(command, tmp_path) as started:
        yield address, started


def worker(address, directory, **environment):
    """A worker as a user starts it, in another directory and environment."""
    directory.mkdir()
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address]
    command += ["--nthreads", "2", "--resources", f"{cluster.MACHINE}=1", "--no-dashboard"]
    return background(command, directory, **environment)


def test_a_worker_that_joins_late_from_elsewhere_does_the_work(tmp_path):
    with standing(tmp_path) as (address, _):
        with study(tmp_path, "a", "b:wait", "c:fail", scheduler=address) as client:
            time.sleep(2)
            assert client.poll() is None  # It waits.
            with worker(address, tmp_path / "elsewhere", HOME=str(tmp_path), LANG="C"):
                said = client.communicate(timeout=LIMIT)[0].split()
    assert said == ["finished", "finished", "failed"]
    assert sorted(journal(tmp_path / "study")) == ["a", "b", "c"]


@pytest.mark.slow
def test_a_scheduler_that_is_killed_and_started_again(tmp_path):
    workdir = tmp_path / "study"
    with standing(tmp_path) as (address, scheduler), worker(address, tmp_path / "one"):
        with study(tmp_path, "a", "long:sleep", scheduler=address) as client:
            wait_for(lambda: "long" in journal(workdir) and list(workdir.rglob("finished.json")))
            scheduler.kill()
            assert client.wait(LIMIT) != 0
        assert "the Dask scheduler has gone away" in (tmp_path / "log").read_text()
    wait_for(lambda: all(map(is_gone, processes(workdir))))
    with standing(tmp_path) as (address, _), worker(address, tmp_path / "two"):
        with study(tmp_path, "a", "b", scheduler=address) as client:
            assert client.communicate(timeout=LIMIT)[0].split() == ["finished"] * 2
    assert journal(workdir).count("a") == 1


def test_an_unreachable_scheduler_is_named_within_seconds(tmp_path):
    started = time.monotonic()
    with pytest.raises(InputError, match="no Dask scheduler answers at tcp://127.0.0.1:1"):
        running.run([cell("a")], tmp_path, scheduler="tcp://127.0.0.1:1")
    assert time.monotonic() - started < 30


def test_workers_without_the_resource_are_refused(tmp_path):
    with distributed.LocalCluster(
        n_workers=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
    ) as bare:
        with pytest.raises(InputError, match="offers the resource `machine`: start each with"):
            running.run([cell("a")], tmp_path, scheduler=bare.scheduler_address)


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    from undivided_tf.study.worker import Site, run_cell

    found = run_cell(cell("a"), Site(str(tmp_path / "absent"), ".", 1))
    assert "does not see the folder" in found["error"]


def test_two_studies_at_once_take_ports_of_their_own(recwarn):
    """Dask's own port, 8787, would be taken by the first, and the second would warn."""
    with cluster.connect() as first, cluster.connect() as second:
        ports = [client.scheduler_info()["services"]["dashboard"] for client in (first, second)]
    assert 8787 not in ports and len(set(ports)) == 2
    assert not [found for found in recwarn if "already in use" in str(found.message)]


def test_workers_that_end_late_do_not_undo_what_is_done(monkeypatch, caplog):
    """On a busy machine Dask gave up waiting for them, and a finished command failed."""
    close = distributed.LocalCluster.__exit__

    def late(self, *error):
        close(self, *error)
        raise TimeoutError

    monkeypatch.setattr(distributed.LocalCluster, "__exit__", late)
    with cluster.connect() as client:
        assert client.submit(pow, 2, 3).result() == 8
    assert "have not ended yet" in caplog.text
    monkeypatch.undo()
    with pytest.raises(TimeoutError, match="of a task"), cluster.connect():
        raise TimeoutError("of a task")
