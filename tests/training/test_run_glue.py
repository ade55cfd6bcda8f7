import json
import pathlib
import zipfile

import numpy as np
import pytest
import toy_glue
import toys

from undivided_tf.data.tasks.glue import TASKS
from undivided_tf.errors import InputError
from undivided_tf.metrics.glue import METRICS
from undivided_tf.models import checkpoints
from undivided_tf.models.encoder import Encoder
from undivided_tf.support import files
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer
from undivided_tf.training import glue
from undivided_tf.training.config import GLUE_TASKS, FinetuningConfig, GlueConfig


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    tokenizer = Tokenizer((*SPECIAL_TOKENS, *sorted({*toys.FILLERS, *toy_glue.CLUES})))
    config = toys.encoder_for(tokenizer)
    path = tmp_path_factory.mktemp("run")
    checkpoints.save_model(path, Encoder(config, seed=9).weights, config, tokenizer)
    return path


def config_of(workdir, data, checkpoint, tasks, **changes):
    finetuning = FinetuningConfig(
        init_checkpoint=str(checkpoint), max_seq_length=toys.LENGTH, train_batch_size=8,
        num_train_epochs=1, num_runs=2, learning_rate=0.01, pooling="mean",
        pad_to_multiple_of=8, write_predictions=True, save_models=False,
    )  # fmt: skip
    return GlueConfig(workdir=str(workdir), data=data, tasks=tasks, finetuning=finetuning).replace(
        **changes
    )


def check(results, data, workdir, tasks):
    """Every task has its scores and its files in the archive."""
    archive = zipfile.ZipFile(pathlib.Path(workdir) / "submission.zip")
    for task in tasks:
        result = results["tasks"][task]
        assert result["status"] == "finished", result
        summary = result["summary"]["validation"]
        for metric in METRICS[task]:
            values = [run["validation"][metric] for run in result["runs"]]
            assert summary[metric]["mean"] == pytest.approx(np.mean(values))
            assert summary[metric]["n"] == 2 and summary[metric]["median"] is not None
        for split, name in TASKS[task].submission_files.items():
            header, *rows = archive.read(name).decode().splitlines()
            place = {"AX.tsv": "AX/diagnostic.tsv", "MNLI-m.tsv": "MNLI/test_matched.tsv"}.get(
                name, f"{TASKS[task].folder}/{split}.tsv"
            )
            count = len((pathlib.Path(data) / place).read_text().splitlines()) - 1
            assert header == "index\tprediction" and len(rows) == count
            assert [row.split("\t")[0] for row in rows] == [str(i) for i in range(count)]
    names = {name for task in tasks for name in TASKS[task].submission_files.values()}
    assert set(archive.namelist()) == names


def test_a_failed_task_loses_no_other_and_is_tried_again(checkpoint, tmp_path):
    data = toy_glue.write_glue(tmp_path / "data", ("stsb", "mnli", "ax", "rte"))
    broken = pathlib.Path(data) / "RTE" / "dev.tsv"
    good = broken.read_text()
    broken.write_text(good.replace("entailment", "entailed"))
    tasks = ("rte", "stsb", "mnli")
    config = config_of(tmp_path / "work", data, checkpoint, tasks)
    state = {"learnt": False, "loss": 5.75, "neighbour_model_loss": 3.9}
    files.write_json(checkpoint / "state.json", {"validation_history": [state]})
    results = glue.run_glue(config, "the command")
    (checkpoint / "state.json").unlink()
    (warning,) = results["warnings"]
    assert "not below the neighbour model (5.75 against 3.90 nats): this encoder has" in warning
    assert results["tasks"]["rte"]["status"] == "failed" and results["command"] == "the command"
    with pytest.raises(InputError, match=r"1 of 3 tasks failed(.|\n)*rte: .*dev\.tsv:2: label"):
        glue.failures(results)
    check(results, data, config.workdir, ("stsb", "mnli"))
    mnli = results["tasks"]["mnli"]
    assert set(mnli["summary"]) == {"validation", "validation_mismatched"}
    both = [
        50 * (run["validation"]["accuracy"] + run["validation_mismatched"]["accuracy"])
        for run in mnli["runs"]
    ]
    assert mnli["score"] == pytest.approx(np.mean(both))
    assert set(results["tasks"]["stsb"]["summary"]["validation"]) == {"pearson", "spearman"}
    text = (tmp_path / "work" / "results.md").read_text()
    assert f"\n{warning}\n" in text
    assert "| RTE | failed: InputError" in text and "needs all nine tasks" in text
    assert "| MNLI | validation_mismatched | accuracy |" in text
    before = (tmp_path / "work" / "stsb" / "results.json").stat().st_mtime_ns
    broken.write_text(good)
    again = glue.run_glue(config)
    assert (tmp_path / "work" / "stsb" / "results.json").stat().st_mtime_ns == before
    check(again, data, config.workdir, tasks)
    glue.failures(again)
    assert json.loads((tmp_path / "work" / "results.json").read_text()) == again


@pytest.mark.slow
def test_the_rule_of_selection_is_applied_and_written_down(checkpoint, tmp_path):
    data = toy_glue.write_glue(tmp_path / "data", ("sst2",))
    config = config_of(
        tmp_path / "work", data, checkpoint, ("sst2",), learning_rates=(1e-7, 0.01), epochs=(1, 4),
        selection="maximum",
    )  # fmt: skip
    result = glue.run_glue(config)["tasks"]["sst2"]
    tried = result["selection"]["tried"]
    assert [(t["learning_rate"], t["num_train_epochs"]) for t in tried] == [
        (1e-7, 1), (1e-7, 4), (0.01, 1), (0.01, 4)
    ]  # fmt: skip
    best = max(tried, key=lambda t: t["maximum"])
    assert all(best[key] == value for key, value in result["chosen"].items())
    values = result["summary"]["validation"]["accuracy"]
    assert best["maximum"] >= values["mean"] and result["selection"]["optimistic"] is True
    assert "highest maximum of accuracy on validation" in result["selection"]["rule"]
    assert result["directory"].startswith("sst2/lr")


@pytest.mark.slow
def test_all_nine_tasks(checkpoint, tmp_path):
    data = toy_glue.write_glue(tmp_path / "data", TASKS)
    config = config_of(tmp_path / "work", data, checkpoint, GLUE_TASKS)
    results = glue.run_glue(config)
    check(results, data, config.workdir, GLUE_TASKS)
    scores = [result["score"] for result in results["tasks"].values()]
    assert results["average"] == pytest.approx(np.mean(scores))


def test_settings_of_single_tasks():
    config = GlueConfig(per_task=("mrpc.num_train_epochs=5", "sst2.learning_rate=1e-4"))
    assert config.of_task("mrpc").num_train_epochs == 5
    assert config.of_task("sst2").learning_rate == 1e-4
    assert config.of_task("cola") == config.finetuning
    for text in ("mrpc.epochs=5", "mrpd.num_train_epochs=5", "mrpc.num_train_epochs", "x"):
        with pytest.raises(InputError, match="must be TASK.FIELD=VALUE"):
            GlueConfig(per_task=(text,))
    with pytest.raises(InputError, match="'five' is no int"):
        GlueConfig(per_task=("mrpc.num_train_epochs=five",))
