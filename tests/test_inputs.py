"""Which files stand behind the inputs of a config."""

import importlib
import zipfile

import pytest

from undivided_tf import inputs
from undivided_tf.errors import InputError
from undivided_tf.inputs import Input


def listed(kind, value, *detail):
    return Input(kind, str(value), detail).files()


def test_every_lister_exists():
    for place in inputs.LISTERS.values():
        module, _, name = place.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def write(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("sentence\tlabel\n")
    return folder


def named(*paths):
    return {path.name: path for path in paths}


def test_files_of_tasks(tmp_path):
    own = write(tmp_path / "own", "validation.tsv", "notes.txt")
    (own / "train.tsv").write_text("sentence\tlabel\none\tyes\ntwo\tno\n")
    (own / "task.json").write_text('{"test": "held_out.tsv"}')
    files_of_own = [own / name for name in ("task.json", "train.tsv", "validation.tsv")]
    assert listed("task", own) == named(*files_of_own)
    write(own, "held_out.tsv")
    assert listed("task", own) == named(*files_of_own, own / "held_out.tsv")
    mrpc = write(tmp_path / "MRPC", "msr_paraphrase_train.txt", "dev_ids.tsv")
    assert listed("task", mrpc) == named(*mrpc.iterdir())
    mnli = write(tmp_path / "MNLI", "train.tsv", "dev_matched.tsv", "dev_mismatched.tsv")
    ax = write(tmp_path / "diagnostic", "diagnostic.tsv")
    assert listed("task", mnli) == named(*mnli.iterdir(), ax / "diagnostic.tsv")
    with zipfile.ZipFile(tmp_path / "SST-2.zip", "w") as archive:
        archive.writestr("SST-2/train.tsv", "sentence\tlabel\n")
    packed = named(tmp_path / "SST-2.zip")
    assert listed("task", tmp_path / "SST-2.zip") == listed("task", tmp_path / "SST-2") == packed
    assert listed("glue", tmp_path, "sst2", "mrpc") == {
        **{f"sst2 {name}": path for name, path in packed.items()},
        **{f"mrpc {name}": path for name, path in listed("task", mrpc).items()},
    }
    assert listed("task", "wiki_topic") == listed("task", "tfds:glue/cola") == {}
    with pytest.raises(InputError, match="absent"):
        listed("task", tmp_path / "absent")


def test_files_of_probing_tasks(tmp_path):
    bank = write(tmp_path / "bank", "x-ud-train.conllu", "x-ud-dev.conllu.gz", "x-ud-test.conllu")
    found = listed("probing_task", f"ud:pos:{bank}")
    assert found == listed("treebank", bank) == named(*bank.iterdir())
    assert listed("probing_task", f"trec:{bank}/qc.zip") == named(bank / "qc.zip")
    assert listed("probing_task", "wiki_pair") == {}


def test_files_of_a_corpus_are_counted_in_their_order(tmp_path):
    folder = write(tmp_path / "text", *(f"{name}.txt" for name in "bca"))
    found = listed("corpus", f"{folder}/*.txt")
    assert found == {
        number: folder / f"{name}.txt" for number, name in zip("123", "abc", strict=True)
    }
    assert listed("corpus", "sample") == {}


def test_files_of_checkpoints(tmp_path):
    step = write(
        tmp_path / "run" / "checkpoints" / "step_00000002",
        "weights.safetensors", "training.safetensors", "state.json", "encoder.json", "vocab.txt",
        "checksums.json",
    )  # fmt: skip
    write(step.with_name("step_00000001"), "weights.safetensors")
    names = ("encoder.json", "vocab.txt", "weights.safetensors")
    assert listed("checkpoint", tmp_path / "run") == {name: step / name for name in names}
    assert listed("any_checkpoint", tmp_path / "run") == listed("checkpoint", tmp_path / "run")
    assert listed("architecture", step) == {name: step / name for name in names[:2]}
    other = write(tmp_path / "released", "config.json", "model.safetensors", ".hidden")
    assert set(listed("any_checkpoint", other)) == {"config.json", "model.safetensors"}
