"""All runners write the same bytes, also after kills, and raise the errors of jobs unchanged."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import toys
from toy_jobs import Square, twice

import undivided_tf.data.corpus
from undivided_tf.data.corpus import chunks, corpora, ngrams, records, runners, shards, survey
from undivided_tf.errors import InputError
from undivided_tf.support import cluster

# A script, since each spawned process imports the main module again, without what is in its `main`.
SCRIPT = """
import sys

def main():
    from undivided_tf.data.corpus import chunks, corpora, records
    from undivided_tf.data.corpus.config import RecordsConfig
    chunks.CHUNK_BYTES, corpora.PORTION_BYTES = 300, 1000
{more}
    records.create_records(RecordsConfig.from_json(sys.argv[1]))

if __name__ == "__main__":
    main()
"""
TIMEOUT = 240  # A test fails if its runner hangs.


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Files of several sizes, which make several portions of several chunks."""
    folder = tmp_path_factory.mktemp("corpus")
    for number, documents in enumerate((8, 60, 2, 30)):
        toys.write_corpus(folder / str(number), documents, seed=number)
    return f"{folder}/*/*.txt"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 300)
    monkeypatch.setattr(corpora, "PORTION_BYTES", 1000)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory, corpus):
    folder = tmp_path_factory.mktemp("vocabulary")
    records.create_records(toys.records_config(folder / "r", corpus))
    return str(folder / "r" / "vocab.txt")


def contents(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def run_script(script, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def start(config, tmp_path, more=""):
    """Makes records in a process of its own, as a user's script does."""
    script, config_file = tmp_path / "make.py", tmp_path / "make.json"
    script.write_text(SCRIPT.format(more=textwrap.indent(more, "    ")))
    config.to_json(config_file)
    return run_script(script, config_file)


@pytest.mark.parametrize("packing", ["full", "next_sentence"])
def test_the_corpus_has_several_portions_and_chunks(corpus, tmp_path, packing, monkeypatch):
    """The other tests need this to show anything."""
    packed = []
    call = chunks.PackChunk.__call__
    monkeypatch.setattr(
        chunks.PackChunk, "__call__", lambda self, chunk: packed.append(chunk) or call(self, chunk)
    )
    records.create_records(toys.records_config(tmp_path / "r", corpus, packing=packing))
    assert len({chunk.portion for chunk in packed}) > 2
    assert len([chunk for chunk in packed if chunk.split == "train"]) > 6
    assert len({chunk.name for chunk in packed}) == len(packed)
    assert all(len(chunk.documents) > 1 for chunk in packed if chunk.split == "train")


@pytest.mark.slow
def test_dask_writes_the_same_bytes(corpus, vocabulary, tmp_path):
    config = toys.records_config(
        tmp_path / "here", corpus, vocab_file=vocabulary, packing="sentence_order"
    )
    records.create_records(config)
    there = config.replace(output_dir=str(tmp_path / "there"), runner="dask", num_processes=2)
    process = start(there, tmp_path)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    # The runner is not part of the config that identifies records.
    assert records.create_records(config.replace(output_dir=there.output_dir))


RUNNERS = [{"runner": "in_process"}, {"runner": "dask", "num_processes": 2}]


@pytest.mark.parametrize("runner", RUNNERS)
def test_jobs_are_done_for_all_parts_of_all_items(tmp_path, runner):
    config = toys.records_config("", "", **runner)
    runners.run(config, Square(str(tmp_path)), range(1, 8), "square", expand=twice)
    numbers = [*range(1, 8), *range(10, 80, 10)]
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        str(n): str(n**2) for n in numbers
    }


@pytest.mark.parametrize("runner", RUNNERS)
def test_an_input_error_of_a_job_is_raised_unchanged(tmp_path, runner):
    config = toys.records_config("", "", **runner)
    numbers = [*range(20), -1, *range(20, 2000)]
    with pytest.raises(InputError, match=r"^numbers.txt:7: -1 has no place here$"):
        runners.run(config, Square(str(tmp_path)), numbers, "square")
    assert len(list(tmp_path.iterdir())) < 100  # The remaining items are not processed first.


@pytest.mark.slow
def test_workers_that_die_again_and_again_end_the_run(tmp_path):
    config = toys.records_config("", "", runner="dask", num_processes=2)
    with pytest.raises(RuntimeError, match="were killed while they made records.* use fewer"):
        runners.run(config, Square(str(tmp_path)), [1, 2, -2, 3], "square")


def test_workers_end_when_their_client_is_killed(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import toys\n"
        "from toy_jobs import Square\n"
        "from undivided_tf.data.corpus import runners\n"
        "if __name__ == '__main__':\n"
        "    config = toys.records_config('', '', runner='dask', num_processes=2)\n"
        f"    runners.run(config, Square('{tmp_path}'), [-3, -3], 'sleep')"
    )
    process = run_script(script)
    wait_for(lambda: len(list(tmp_path.glob("*.worker"))) == 2)
    workers = [int(path.stem) for path in tmp_path.glob("*.worker")]
    process.kill()
    process.communicate(timeout=TIMEOUT)
    wait_for(lambda: not any(alive(worker) for worker in workers))


def alive(process):
    try:  # A zombie is dead, too.
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def wait_for(condition):
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


class Killed(BaseException):
    """Ends a run as a kill does: nothing is cleaned up."""


@pytest.mark.parametrize(
    ("fatal", "kept"),
    [
        (survey.SurveyPortion, ".json"),
        (chunks.PackChunk, ".npz"),
        (shards.WriteShard, ".tfrecord"),
        (ngrams.CountShard, ".tfrecord.npz"),
    ],
)
def test_an_interrupted_run_resumes_from_its_finished_work(
    corpus, tmp_path, fatal, kept, monkeypatch
):
    config = toys.records_config(tmp_path / "r", corpus, deduplicate="near")
    call, count = fatal.__call__, []

    def killed(self, item):
        count.append(item)
        if len(count) == 2:
            raise Killed
        yield from call(self, item)

    with monkeypatch.context() as patch:
        patch.setattr(runners.os, "cpu_count", lambda: 1)
        patch.setattr(fatal, "__call__", killed)
        with pytest.raises(Killed):
            records.create_records(config)
    assert not (tmp_path / "r").exists()
    check_resumed(config, tmp_path, kept, monkeypatch)


def test_a_killed_run_resumes_from_its_finished_work(corpus, tmp_path, monkeypatch):
    more = (
        "import os, signal\n"
        "from undivided_tf.data.corpus import runners, shards\n"
        "call, count = shards.WriteShard.__call__, []\n"
        "def killed(self, item):\n"
        "    count.append(item)\n"
        "    if len(count) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    yield from call(self, item)\n"
        "shards.WriteShard.__call__ = killed\n"
        "runners.os.cpu_count = lambda: 1"
    )
    config = toys.records_config(tmp_path / "r", corpus)
    process = start(config, tmp_path, more)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == -signal.SIGKILL, errors
    assert not (tmp_path / "r").exists()
    check_resumed(config, tmp_path, ".npz", monkeypatch)


def check_resumed(config, tmp_path, kept, monkeypatch):
    work = tmp_path / ".r.work"
    finished = {path: path.stat().st_mtime_ns for path in work.rglob(f"*{kept}")}
    assert finished
    again = {}
    move = records.files.replace

    def record_times(source, path):
        if path == tmp_path / "r":
            again.update({p: p.stat().st_mtime_ns for p in finished})
        move(source, path)

    monkeypatch.setattr(records.files, "replace", record_times)
    metadata = records.create_records(config)
    assert again == finished  # They were not made again.
    assert not work.exists()
    whole = config.replace(output_dir=str(tmp_path / "whole"))
    assert records.create_records(whole) == metadata
    assert contents(tmp_path / "r") == contents(tmp_path / "whole")


def test_unfinished_work_of_other_flags_or_other_text_is_not_used(tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("one cat\n\n" * 2 + "two dogs\n\n" * 2 + "three birds\n\nfour\n")
    config = toys.records_config(tmp_path / "r", str(text), validation_fraction=0.3)

    def killed(*_):
        raise Killed

    for change in (
        lambda: config.replace(random_seed=1),
        lambda: text.write_text("five cats\n\nsix dogs\n\nseven\n\neight\n") and config,
    ):
        with monkeypatch.context() as patch:
            patch.setattr(records.shards, "totals", killed)
            with pytest.raises(Killed):
                records.create_records(config)
        assert list((tmp_path / ".r.work" / "chunks").iterdir())
        changed = change()
        made = records.create_records(changed)
        whole = changed.replace(output_dir=str(tmp_path / "whole"))
        assert records.create_records(whole) == made
        assert contents(tmp_path / "r") == contents(tmp_path / "whole")
        records.files.remove(tmp_path / "r")
        records.files.remove(tmp_path / "whole")


def test_an_unreachable_scheduler_is_named(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT_SECONDS", 1)
    config = toys.records_config(
        tmp_path / "r", corpus, runner="dask", scheduler="tcp://127.0.0.1:1"
    )
    with pytest.raises(InputError, match="no Dask scheduler answers at tcp://127.0.0.1:1"):
        records.create_records(config)
    with pytest.raises(InputError, match="scheduler is for the runner dask, not for in_process"):
        config.replace(runner="in_process")


def test_options_of_beam_are_refused_for_other_runners():
    with pytest.raises(InputError, match="pipeline_options are for the runners DirectRunner, "):
        toys.records_config("r", "c", pipeline_options=("--direct_num_workers=2",))
    with pytest.raises(InputError, match="runner must be one of in_process, dask, DirectRun"):
        toys.records_config("r", "c", runner="SparkleRunner")
    with pytest.raises(InputError, match="num_processes must be at least 0, got -1"):
        toys.records_config("r", "c", num_processes=-1)


def test_absent_beam_names_the_extra(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    # An import looks for a loaded module in both places.
    monkeypatch.delitem(sys.modules, "undivided_tf.data.corpus.beam_runner", raising=False)
    monkeypatch.delattr(undivided_tf.data.corpus, "beam_runner", raising=False)
    config = toys.records_config(tmp_path / "r", corpus, runner="FlinkRunner")
    (tmp_path / ".r.work").mkdir()  # Unfinished work of an earlier run is kept.
    with pytest.raises(InputError, match=r"needs the extra `beam` .*undivided_tf\[beam\]"):
        records.create_records(config)
    assert [path.name for path in tmp_path.iterdir()] == [".r.work"]
