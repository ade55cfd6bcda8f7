"""Of several processes one only holds a claim, and that of a dead one can be overtaken."""

import subprocess
import sys
import threading

import psutil

from undivided_tf import files
from undivided_tf.study.leases import Leases


def test_a_claim_is_held_by_one_and_taken_again_when_it_is_given_free(tmp_path):
    with Leases(tmp_path) as one, Leases(tmp_path) as other:
        assert one.take("cell") and one.keeps("cell")
        assert not other.take("cell") and other.is_taken("cell") and not one.is_taken("cell")
        one.release("cell")
        assert not other.is_taken("cell") and other.take("cell")
        assert not one.take("cell") and not one.keeps("cell")


def test_of_many_that_try_at_once_one_succeeds(tmp_path):
    every = [Leases(tmp_path) for _ in range(8)]
    start, won = threading.Barrier(8), []

    def race(leases):
        start.wait()
        won.append(leases.take("cell"))

    threads = [threading.Thread(target=race, args=(leases,)) for leases in every]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


def claim_of(tmp_path, **holder):
    files.write_json(tmp_path / "cell.0001", holder)


def test_a_claim_of_a_process_that_is_gone_is_overtaken_at_once(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    leases = Leases(tmp_path)
    claim_of(tmp_path, **{**leases.me, "process": process.pid})
    assert leases.take("cell") and (tmp_path / "cell.0002").exists()


def test_a_number_that_another_process_has_now_is_no_life_sign(tmp_path):
    leases = Leases(tmp_path)
    claim_of(tmp_path, **{**leases.me, "started": psutil.Process().create_time() - 100})
    assert leases.take("cell")


def test_a_claim_of_another_machine_is_overtaken_when_nobody_touches_it(tmp_path):
    patient, impatient = Leases(tmp_path), Leases(tmp_path, patience=0.0)
    claim_of(tmp_path, machine="elsewhere", process=1, started=0.0)
    for leases in (patient, impatient):
        assert not leases.take("cell")  # Seen for the first time: it may be touched yet.
    assert not patient.take("cell")
    assert impatient.take("cell") and not patient.take("cell")


def test_who_was_overtaken_holds_it_no_longer(tmp_path):
    with Leases(tmp_path) as slow:
        assert slow.take("cell")
        files.write_json(tmp_path / "cell.0002", {"machine": "elsewhere"})
        assert not slow.keeps("cell")
