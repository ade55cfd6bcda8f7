"""Every run notices that a file which it read has changed, be it finished or stopped."""

import importlib
import pathlib

import pytest
import toys

from undivided_tf.analysis.config import (
    BlimpConfig,
    CkaConfig,
    DiagnosticsConfig,
    MaskedLossConfig,
    ProbingConfig,
    StructuralConfig,
)
from undivided_tf.data.corpus import records
from undivided_tf.errors import InputError
from undivided_tf.study import study
from undivided_tf.study.config import StudyConfig
from undivided_tf.surgery.config import DamageConfig, SurgeryConfig
from undivided_tf.training import glue
from undivided_tf.training.config import (
    FinetuningConfig,
    GlueConfig,
    PretrainingConfig,
    SquadConfig,
)
from undivided_tf.workdir import open_workdir, results_once

# Of each kind of input, the files of a made-up one.
FILES = {
    "checkpoint": ("weights.safetensors", "encoder.json", "vocab.txt"),
    "any_checkpoint": ("model.safetensors", "config.json"),
    "task": ("train.tsv", "dev.tsv", "test.tsv"),
    "records": ("metadata.json",),
    "treebank": ("a-ud-train.conllu", "a-ud-dev.conllu", "a-ud-test.conllu.gz"),
    "file": ("",),
}
# Function, config, and its inputs by their kind.
RUNS = [
    (
        "training.pretraining:pretrain", PretrainingConfig,
        {"records_dir": "records", "init_checkpoint": "checkpoint",
         "teacher_checkpoint": "checkpoint"},
    ),
    (
        "training.finetuning:finetune", FinetuningConfig,
        {"init_checkpoint": "checkpoint", "task": "task"},
    ),
    (
        "training.span_finetuning:finetune_spans", SquadConfig,
        {"init_checkpoint": "checkpoint", "predict_file": "file", "train_files": "file"},
    ),
    (
        "analysis.similarity:run_cka", CkaConfig,
        {"first_checkpoint": "checkpoint", "second_checkpoint": "checkpoint",
         "other_seed_checkpoint": "checkpoint", "task": "task"},
    ),
    (
        "analysis.probing:run_probing", ProbingConfig,
        {"init_checkpoint": "checkpoint", "task": "task"},
    ),
    (
        "analysis.diagnostics:run_diagnostics", DiagnosticsConfig,
        {"init_checkpoint": "checkpoint", "second_checkpoint": "checkpoint", "task": "task"},
    ),
    ("analysis.blimp:run_blimp", BlimpConfig, {"init_checkpoint": "checkpoint", "data": "file"}),
    (
        "analysis.masked_loss:run_masked_loss", MaskedLossConfig,
        {"init_checkpoint": "checkpoint", "records_dir": "records"},
    ),
    (
        "analysis.structural:run_structural", StructuralConfig,
        {"init_checkpoint": "checkpoint", "treebank": "treebank"},
    ),
]  # fmt: skip


def make(folder, **kinds):
    """Made-up inputs; returns the values of the fields, and the files of each."""
    values, members = {}, {}
    for field, kind in kinds.items():
        members[field] = [folder / f"{field}_" / name for name in FILES[kind]]
        if kind == "file":
            members[field] = [folder / f"{field}_"]
        for path in members[field]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("sentence\tlabel\n")
        value = str(folder / f"{field}_")
        values[field] = (value,) if field.endswith("_files") else value
    return values, members


def refused_for_each(members, call):
    """Changes one file after the other; each is named, and with its old bytes all is well."""
    call()
    for field, paths in members.items():
        for path in paths:
            before = path.read_bytes()
            path.write_bytes(before + b"\n")
            with pytest.raises(
                InputError, match=rf"made from other inputs:\n.*{field} ?.*: {path}"
            ):
                call()
            path.write_bytes(before)
            call()


@pytest.fixture
def without_work(monkeypatch):
    """Has `results_once` of a module check and write as ever, but neither read nor compute."""

    def patch(module, stop=False):
        def work(_):
            if stop:
                raise KeyboardInterrupt
            return {"kind": "made up"}

        fake = lambda config, prepare, run: results_once(config, lambda: None, work)  # noqa: E731
        monkeypatch.setattr(module, "results_once", fake)

    return patch


@pytest.mark.parametrize(("place", "kind", "kinds"), RUNS, ids=lambda value: str(value))
@pytest.mark.parametrize("stopped", [False, True])
def test_a_run_refuses_inputs_that_changed(tmp_path, without_work, place, kind, kinds, stopped):
    name, _, function = place.partition(":")
    module = importlib.import_module(f"undivided_tf.{name}")
    without_work(module, stopped)
    values, members = make(tmp_path, **kinds)
    config = kind(workdir=str(tmp_path / "run"), **values)
    assert set(config.inputs()) == set(kinds)

    def call():
        if not stopped:
            return getattr(module, function)(config)
        with pytest.raises(KeyboardInterrupt):
            getattr(module, function)(config)

    refused_for_each(members, call)


def test_glue_refuses_inputs_that_changed_before_any_task(tmp_path, monkeypatch):
    values, members = make(tmp_path / "glue", RTE="task", WNLI="task")
    for field, value in values.items():
        pathlib.Path(value).rename(tmp_path / "glue" / field)
        members[field] = [tmp_path / "glue" / field / path.name for path in members[field]]
    started, more = make(tmp_path, init_checkpoint="checkpoint")
    config = GlueConfig(
        workdir=str(tmp_path / "run"), data=str(tmp_path / "glue"), tasks=("rte", "wnli"),
        finetuning=FinetuningConfig(**started),
    )  # fmt: skip
    found = {"status": "failed", "error": "made up"}
    monkeypatch.setattr(glue, "_task_results", lambda *given: found)
    by_flag = {
        "data": [*members["RTE"], *members["WNLI"]],
        "init_checkpoint": more["init_checkpoint"],
    }

    def run():
        # As of a run that was stopped; where results say that a task failed, it may be mended.
        (tmp_path / "run" / "results.json").unlink(missing_ok=True)
        glue.run_glue(config, "")

    refused_for_each(by_flag, run)


def test_damage_knows_its_inputs(tmp_path):
    values, members = make(tmp_path, input="any_checkpoint", task="task", records_dir="records")
    order = SurgeryConfig(
        cut="importance", num_cut=1, task=values["task"], records_dir=values["records_dir"]
    )
    config = DamageConfig(input=values["input"], order=order)
    assert set(config.inputs()) == {"input", "order.task", "order.records_dir"}
    refused_for_each(members, lambda: open_workdir(tmp_path / "run", config))


def test_a_study_refuses_inputs_that_changed_though_all_cells_are_finished(tmp_path):
    values, members = make(tmp_path, tasks="task", data="file")
    config = StudyConfig(
        workdir=str(tmp_path / "run"), tasks=(values["tasks"], "wiki_topic"),
        blimp=BlimpConfig(data=values["data"]),
    )  # fmt: skip
    refused_for_each(members, lambda: study.open_study(config))
    more = config.replace(tasks=(*config.tasks, "wiki_pair"))
    study.open_study(more)  # A study may still grow.
    assert set(config.inputs()) == {
        "tasks",
        "blimp.data",
        "records.input_files",
        "cka.task",
        "diagnostics.task",
    }


def test_records_refuse_a_corpus_that_changed(tmp_path, capsys):
    corpus = toys.write_corpus(tmp_path / "text")
    config = toys.records_config(tmp_path / "records", corpus)
    metadata = records.create_records(config)
    capsys.readouterr()
    assert records.create_records(config) == metadata
    assert "records: finished on" in capsys.readouterr().err
    text = tmp_path / "text" / "one.txt"
    # The same words, and so the same counts; only their order differs.
    text.write_text("\n\n".join(reversed(text.read_text().rstrip("\n").split("\n\n"))) + "\n")
    with pytest.raises(InputError, match=rf"input_files 1: {text}"):
        records.create_records(config)
    again = records.create_records(config.replace(output_dir=str(tmp_path / "again")))
    shards = [f["sha256"] for f in metadata["train"]["files"]]
    assert [f["sha256"] for f in again["train"]["files"]] != shards
    assert again["unigram_entropy"] == metadata["unigram_entropy"]


def test_from_scratch_the_weights_of_the_checkpoint_do_not_matter(tmp_path):
    values, members = make(tmp_path, init_checkpoint="checkpoint")
    config = FinetuningConfig(from_scratch=True, new_weights=(), **values)
    open_workdir(tmp_path / "run", config)
    weights, encoder, _ = members["init_checkpoint"]
    weights.write_text("others")
    open_workdir(tmp_path / "run", config)
    encoder.write_text("another")
    with pytest.raises(InputError, match="init_checkpoint encoder.json"):
        open_workdir(tmp_path / "run", config)


def test_the_records_of_later_stages_are_inputs(tmp_path):
    values, members = make(tmp_path, records_dir="records", later="records")
    config = PretrainingConfig(
        records_dir=values["records_dir"], curriculum=(f"10000:8:{values['later']}",)
    )
    members = {"records_dir": members["records_dir"], "curriculum": members["later"]}
    refused_for_each(members, lambda: open_workdir(tmp_path / "run", config))
