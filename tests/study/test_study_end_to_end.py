"""Whole studies on toy data: through to the report, again, and killed on the way."""

import json
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import toys

pytestmark = pytest.mark.slow
PATH = os.pathsep.join([str(pathlib.Path(__file__).parent), *filter(None, sys.path)])
LIMIT = 400  # Seconds until what is waited for must be there.
# What a clock or the memory of the machine says; all else is the same in every run.
MEASURED = {
    "step_milliseconds", "tokens_per_second", "training_seconds", "latency_milliseconds",
    "peak_memory_bytes", "seconds", "compiling_seconds", "milliseconds", "reference_milliseconds",
}  # fmt: skip
FLAGS = [
    "--patterns=AI,A*2", "--records.vocab_size=60", f"--records.max_seq_length={toys.LENGTH}",
    "--records.num_shards=2", "--records.validation_fraction=0.2",
    "--pretraining.hidden_size=8", "--pretraining.num_attention_heads=2",
    "--pretraining.intermediate_size=16", f"--pretraining.max_position_embeddings={toys.LENGTH}",
    "--pretraining.num_train_steps=60", "--pretraining.num_warmup_steps=5",
    "--pretraining.learning_rate=1e-2", "--pretraining.train_batch_size=4",
    "--pretraining.save_checkpoints_steps=20",
    "--pretraining.eval_every_steps=30", "--nopretraining.jit_compile",
    f"--finetuning.max_seq_length={toys.LENGTH}", "--finetuning.train_batch_size=8",
    "--finetuning.num_train_epochs=2", "--finetuning.num_runs=2", "--finetuning.deterministic",
    "--nofinetuning.save_models", "--finetuning.learning_rate=1e-2",
    "--cka.num_examples=10", "--cka.batch_size=5", f"--cka.max_seq_length={toys.LENGTH}",
    "--cka.tokens_per_example=4", f"--probing.max_seq_length={toys.LENGTH}",
]  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Corpus and task."""
    folder = tmp_path_factory.mktemp("study")
    toys.write_corpus(folder / "text")
    toys.write_task(folder / "animals")
    return folder


def start(toy, workdir, *flags):
    """Starts the study as a user does."""
    places = [f"--records.input_files={toy}/text/*.txt", f"--tasks={toy}/animals"]
    places += [f"--cka.task={toy}/animals", f"--workdir={workdir}"]
    with open(f"{workdir}.log", "a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "undivided_tf.bin.run_study", *FLAGS, *places, *flags],
            stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": PATH},
        )  # fmt: skip


def finish(toy, workdir, *flags):
    """Runs the study to its end."""
    process = start(toy, workdir, *flags)
    try:
        code = process.wait(LIMIT)
    finally:
        process.kill()
    assert code == 0, (workdir.parent / f"{workdir.name}.log").read_text()[-3000:]


def kill_when(toy, workdir, pattern, condition=lambda path: True):
    """Starts the study and kills it as soon as such a file lies in its directory."""
    process = start(toy, workdir)
    deadline = time.monotonic() + LIMIT
    try:
        while not any(map(condition, workdir.glob(pattern))):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(1)  # Its workers end by themselves.


@pytest.fixture(scope="module")
def whole(toy):
    """The directory of an uninterrupted study."""
    finish(toy, toy / "whole")
    return toy / "whole"


def repeatable(value):
    """Results without what was measured."""
    if isinstance(value, dict):
        return {key: repeatable(v) for key, v in value.items() if key not in MEASURED}
    return [repeatable(v) for v in value] if isinstance(value, list) else value


def numbers(value):
    """All numbers in results."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers(item)
    elif isinstance(value, int | float):
        yield value


def read(workdir):
    return json.loads((workdir / "results.json").read_text())


def test_the_study_ends_with_its_report(whole):
    results = read(whole)
    assert {cell["status"] for cell in results["cells"]} == {"finished"}
    kinds = [cell["kind"] for cell in results["cells"]]
    counts = {kind: kinds.count(kind) for kind in kinds}
    assert counts == {
        "records": 1, "timing": 1, "pretraining": 2, "finetuning": 4, "cka": 4, "probing": 2
    }  # fmt: skip
    assert all(map(math.isfinite, numbers(results)))
    for name in ("report.html", "report.md"):
        text = (whole / name).read_text()
        assert "A*2" in text and "animals" in text
    assert "<html" in (whole / "report.html").read_text()
    figures = list(whole.rglob("*.svg"))
    assert figures and all(path.stat().st_size > 1000 for path in figures)
    assert results["corpus"]["train"]["rows"] > 0 and results["sources"] == []


def test_a_finished_study_recomputes_nothing(toy, whole):
    before = {path: path.stat().st_mtime_ns for path in whole.glob("cells/**/*")}
    results = read(whole)
    started = time.perf_counter()
    finish(toy, whole)
    assert {path: path.stat().st_mtime_ns for path in whole.glob("cells/**/*")} == before
    assert read(whole)["cells"] == results["cells"]
    assert time.perf_counter() - started < 60


def test_a_study_killed_twice_equals_an_uninterrupted_one(toy, whole):
    workdir = toy / "killed"
    checkpoint = "cells/pretraining_*/checkpoints/step_00000020"
    kill_when(toy, workdir, checkpoint)
    assert not list(workdir.glob("cells/pretraining_*/finished.json"))
    kill_when(toy, workdir, "cells/finetuning_*/run_*.json")
    # A worker outlives its study by a moment, in which it may end another run.
    first, *_ = sorted(workdir.glob("cells/finetuning_*/run_*.json"))
    assert len(list(workdir.glob("cells/pretraining_*/finished.json"))) == 2
    assert not list(workdir.glob("cells/finetuning_*/finished.json"))
    before = first.stat().st_mtime_ns
    finish(toy, workdir)
    assert first.stat().st_mtime_ns == before
    one, other = read(whole)["cells"], read(workdir)["cells"]
    assert [cell["name"] for cell in one] == [cell["name"] for cell in other]
    for cell, again in zip(one, other, strict=True):
        assert repeatable(cell) == repeatable(again), cell["name"]


def test_a_study_with_a_failed_cell_reports_it_and_mends_it_later(toy, whole):
    """The task's folder vanishes for a while: its cells fail, the others are there."""
    workdir = toy / "mended"
    shutil.copytree(whole, workdir)
    for path in workdir.glob("cells/*"):  # Records and pre-training stay.
        if not path.name.startswith(("records", "pretraining")):
            shutil.rmtree(path)
    os.rename(toy / "animals", toy / "hidden")
    try:
        process = start(toy, workdir)
        assert process.wait(LIMIT) == 1
    finally:
        os.rename(toy / "hidden", toy / "animals")
    log = (toy / "mended.log").read_text()
    assert "error: " in log and "cells failed" in log
    failed = {cell["kind"] for cell in read(workdir)["cells"] if cell["status"] == "failed"}
    assert failed == {"finetuning", "cka", "probing"}
    assert "neither a folder" in (workdir / "report.html").read_text()
    finish(toy, workdir)
    assert {cell["status"] for cell in read(workdir)["cells"]} == {"finished"}


def test_a_study_grows_by_a_kind_from_outside_the_package(toy, whole):
    """The module is no part of the package: a worker's process finds it on the Python path."""
    workdir = toy / "grown"
    shutil.copytree(whole, workdir)
    finish(toy, workdir, "--kinds=embedding_norms:EmbeddingNorms")
    before, after = read(whole)["cells"], read(workdir)["cells"]
    assert [cell for cell in after if cell["kind"] != "norms"] == before
    norms = {c["label"]["pattern"]: c["result"]["mean_norm"] for c in after if c["kind"] == "norms"}
    assert set(norms) == {"AI", "A*2"} and all(norm > 0 for norm in norms.values())
    frame = pd.read_csv(workdir / "cells.csv")
    values = frame[frame["metric"] == "mean_norm"].set_index("pattern")["value"]
    assert values.to_dict() == pytest.approx(norms)
    for name in ("report.html", "report.md"):
        text = (workdir / name).read_text()
        assert all(f"{norm:.6f}" in text for norm in norms.values())


def test_a_study_grows_by_the_loss_of_pieces(toy, whole):
    """Cells of the earlier study stay as they are; each encoder gets one more."""
    workdir = toy / "pieces"
    shutil.copytree(whole, workdir)
    finish(toy, workdir, "--loss_by_piece", "--masked_loss.masked_pieces=500")
    before, after = read(whole)["cells"], read(workdir)["cells"]
    assert [cell for cell in after if cell["kind"] != "masked_loss"] == before
    found = [cell["result"] for cell in after if cell["kind"] == "masked_loss"]
    assert [result["pattern"] for result in found] == ["AI", "A*2"]
    first, second = found
    assert first["masked_pieces"] >= 500
    for own, other in zip(first["rates"], second["rates"], strict=True):
        assert own["pieces"] == other["pieces"] and own["loss"] != other["loss"]
        assert own["neighbour_model_loss"] == other["neighbour_model_loss"]
    report = (workdir / "report.md").read_text()
    difference = second["rates"][0]["loss"] - first["rates"][0]["loss"]
    chapter = report[report.index("Loss by mask rate and by class of piece") :]
    assert re.search(rf"^\| `A\*2` .*{abs(difference):.3f}", chapter, re.M)
    assert (workdir / "figures" / "masked_loss.svg").stat().st_size > 1000
