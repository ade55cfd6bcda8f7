"""Progress bars: what they say while a step is compiled, and how long they think it all takes."""

import pytest
import toys

from undivided_tf.support import progress


@pytest.fixture
def clock(monkeypatch):
    """Sets the time that bars see."""
    now = [1000.0]
    for name in ("time.time", "tqdm.std.time"):
        monkeypatch.setattr(name, lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_the_first_step_is_said_to_be_compiled_and_projects_nothing(clock, capsys):
    with progress.bar(101, "pre-training", "steps") as bar:
        before = progress.compiling_seconds()
        with progress.compiling(bar):
            assert "compiling" in capsys.readouterr().err
            clock(45)
        assert progress.compiling_seconds() > before
        bar.update()
        assert "compiling" not in str(bar) and "1/101" in str(bar)
        for _ in range(10):
            clock(2)
            bar.update()
        # Ninety steps of two seconds are left; the first one took 45.
        assert bar.format_dict["elapsed"] == 20
        assert "00:20<03:00" in str(bar)


def test_a_run_that_goes_on_projects_from_its_own_later_steps(clock):
    with progress.bar(100, "pre-training", "steps", initial=50) as bar:
        with progress.compiling(bar):
            clock(30)
        bar.update()
        for _ in range(9):
            clock(1)
            bar.update()
        assert "60/100 [00:09<00:40" in str(bar)


def test_a_killed_process_with_a_bar_leaks_no_semaphore():
    drawing = (
        "import os\n"
        "from undivided_tf.support import progress\n"
        "progress.bar(3, 'work', 'steps').update()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    code = (
        "import multiprocessing\n"
        "context = multiprocessing.get_context('forkserver')\n"
        f"process = context.Process(target=exec, args=({drawing!r},))\n"
        "process.start()\n"
        "process.join()\n"
        "print('status', process.exitcode)\n"
    )
    done = toys.run_python(code)
    assert "status -9" in done.stdout and "leaked" not in done.stderr, done.stderr
