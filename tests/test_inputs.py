"""The bytes behind the paths of a config belong to the run."""

import dataclasses
import importlib
import os
import zipfile

import pytest

from undivided_tf import inputs
from undivided_tf.config import Config, claim_workdir, option, results_once, section
from undivided_tf.convert import converter
from undivided_tf.data.corpus import records
from undivided_tf.data.corpus.config import RecordsConfig
from undivided_tf.errors import InputError
from undivided_tf.inputs import Input
from undivided_tf.support import files


@dataclasses.dataclass(frozen=True)
class Part(Config):
    """A section."""

    parts: tuple[str, ...] = option((), "Files.", input="file")
    own: str = option("", "Set by the caller.", input="file")


@dataclasses.dataclass(frozen=True)
class Run(Config):
    """A run that reads files."""

    workdir: str = option("", "Directory.")
    text: str = option("", "A file.", input="file")
    size: int = option(1, "No input.")
    part: Part = section(Part(), without=("own",))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("first\n")
    return path


def run_once(config, answer=1):
    return results_once(config, lambda: answer, lambda prepared: {"answer": prepared})


def test_inputs_are_named_by_their_fields(text):
    config = Run(text=str(text), part=Part(parts=("a", "b"), own="c"))
    assert config.inputs() == {
        "text": [Input("file", str(text))],
        "part.parts": [Input("file", "a"), Input("file", "b")],
    }
    assert Run().inputs() == {}


def test_a_finished_run_refuses_changed_inputs_and_names_both(text, tmp_path):
    config = Run(workdir=str(tmp_path / "run"), text=str(text))
    assert run_once(config) == {"answer": 1}
    os.utime(text, (0, 86_400 * 366))
    assert run_once(config, 2) == {"answer": 1}  # Written again, but with the same bytes.
    before = files.sha256("first\n")[:12]
    text.write_text("second\n")
    with pytest.raises(InputError) as error:
        run_once(config, 2)
    message = str(error.value)
    assert f"{tmp_path / 'run'} was made from other inputs" in message and str(text) in message
    assert f"then sha256 {before}, 6 bytes, changed on 1971-01-02" in message
    assert f"now  sha256 {files.sha256('second' + chr(10))[:12]}, 7 bytes" in message
    assert "choose another directory" in message
    text.write_text("first\n")
    assert run_once(config, 2) == {"answer": 1}


def test_a_stopped_run_refuses_changed_inputs_before_it_prepares(text, tmp_path):
    config = Run(workdir=str(tmp_path / "run"), text=str(text))

    def stop(prepared):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        results_once(config, lambda: None, stop)
    text.write_text("second\n")
    with pytest.raises(InputError, match="made from other inputs"):
        results_once(config, lambda: pytest.fail("prepared"), stop)
    text.write_text("first\n")
    assert run_once(config) == {"answer": 1}


def test_a_finished_run_says_so_with_its_date(text, tmp_path, capsys):
    config = Run(workdir=str(tmp_path / "run"), text=str(text))
    run_once(config)
    assert "finished" not in capsys.readouterr().err
    results = tmp_path / "run" / "results.json"
    os.utime(results, (0, results.stat().st_mtime - 86_400))
    run_once(config)
    said = capsys.readouterr().err
    assert inputs.date(results.stat().st_mtime) in said
    assert f"{tmp_path / 'run'}: finished on" in said and "results read from results.json" in said


def test_moved_inputs_are_the_same_run_and_changed_ones_are_not(text, tmp_path):
    parts = tuple(str(tmp_path / name) for name in "ab")
    for part in parts:
        (tmp_path / part).write_text(part)
    config = Run(workdir=str(tmp_path / "run"), text=str(text), part=Part(parts=parts))
    run_once(config)
    text.rename(tmp_path / "moved.txt")
    os.rename(parts[1], tmp_path / "c")
    moved = config.replace(
        text=str(tmp_path / "moved.txt"), part=Part(parts=(parts[0], str(tmp_path / "c")))
    )
    assert run_once(moved, 2) == {"answer": 1}
    assert run_once(config, 2) == {"answer": 1}  # Both names had these bytes; one is gone.
    assert run_once(moved, 2) == {"answer": 1}
    swapped = moved.replace(part=Part(parts=moved.part.parts[::-1]))
    with pytest.raises(InputError, match="part.parts: .* there, .* asked for"):
        run_once(swapped)
    (tmp_path / "moved.txt").write_text("second\n")
    with pytest.raises(InputError, match="text: .*moved.txt"):
        run_once(moved)
    text.write_text("second\n")
    with pytest.raises(InputError, match="text: '.*moved.txt' there, '.*text.txt' asked for"):
        run_once(config)


def test_other_values_are_another_run_whatever_the_inputs(text, tmp_path):
    config = Run(workdir=str(tmp_path / "run"), text=str(text))
    run_once(config)
    with pytest.raises(InputError, match="size: 1 there, 2 asked for"):
        run_once(config.replace(size=2))


def test_inputs_that_are_gone_are_named_and_the_results_shown(text, tmp_path, capsys):
    config = Run(workdir=str(tmp_path / "run"), text=str(text))
    run_once(config)
    text.unlink()
    capsys.readouterr()
    assert run_once(config, 2) == {"answer": 1}
    assert f"not there, and not compared: text {text}" in capsys.readouterr().err
    text.write_text("second\n")  # What it was is still known.
    with pytest.raises(InputError, match="made from other inputs"):
        run_once(config)


def test_a_workdir_from_before_inputs_takes_those_of_today(text, tmp_path, capsys):
    config = Run(workdir=str(tmp_path / "run"), text=str(text))
    run_once(config)
    (tmp_path / "run" / "inputs.json").unlink()
    text.write_text("second\n")
    capsys.readouterr()
    assert run_once(config, 2) == {"answer": 1}
    assert "no inputs.json yet, the inputs of today are recorded" in capsys.readouterr().err
    assert run_once(config, 2) == {"answer": 1}
    assert "recorded" not in capsys.readouterr().err
    text.write_text("third\n")
    with pytest.raises(InputError, match="made from other inputs"):
        run_once(config)


def test_a_run_that_grows_keeps_the_inputs_that_it_had(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name)
    one, two = (Part(parts=tuple(str(tmp_path / name) for name in names)) for names in ("a", "ba"))
    claim_workdir(tmp_path / "run", one, lambda there: True)
    claim_workdir(tmp_path / "run", two, lambda there: True)
    (tmp_path / "b").write_text("c")
    with pytest.raises(InputError, match="parts: .*/b"):
        claim_workdir(tmp_path / "run", two, lambda there: True)
    (tmp_path / "b").write_text("b")
    (tmp_path / "a").rename(tmp_path / "c")
    moved = Part(parts=(str(tmp_path / "b"), str(tmp_path / "c")))
    with pytest.raises(InputError, match="parts: "):  # Cells are named after the path.
        claim_workdir(tmp_path / "run", moved, lambda there: False)


def test_large_files_are_read_once(text, tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "LARGE_BYTES", 3)
    inputs._hash_of_large.cache_clear()
    config = Run(text=str(text))
    for name in ("run", "other"):  # As two cells of a study in one process.
        claim_workdir(tmp_path / name, config)
    assert inputs._hash_of_large.cache_info().misses == 1
    inputs._hash_of_large.cache_clear()  # As another process.
    claim_workdir(tmp_path / "run", config)
    assert inputs._hash_of_large.cache_info().misses == 0
    os.utime(text, (0, 1))
    claim_workdir(tmp_path / "run", config)
    claim_workdir(tmp_path / "run", config)
    assert inputs._hash_of_large.cache_info().misses == 1
    text.write_text("other")
    with pytest.raises(InputError, match="made from other inputs"):
        claim_workdir(tmp_path / "run", config)


def test_a_damaged_record_of_inputs_is_named(text, tmp_path):
    claim_workdir(tmp_path / "run", Run(text=str(text)))
    (tmp_path / "run" / "inputs.json").write_text("{")
    with pytest.raises(InputError, match=r"inputs.json is not JSON.*remove it"):
        claim_workdir(tmp_path / "run", Run(text=str(text)))


@pytest.mark.parametrize("place", ["file", "file/below/it"])
def test_a_workdir_that_is_a_file_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=f"{tmp_path / 'file'} is a file; choose another"):
        results_once(Run(workdir=str(tmp_path / place)), lambda: pytest.fail("prepared"), dict)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("place", ["file/below", "file/below/it"])
def test_an_output_directory_below_a_file_is_refused(tmp_path, place):
    (tmp_path / "file").write_text("mine")
    output = str(tmp_path / place)
    for make in (
        lambda: converter.free_directory(output),
        lambda: records.create_records(RecordsConfig(output_dir=output)),
    ):
        with pytest.raises(InputError, match=f"output_dir {output}: {tmp_path / 'file'} is a file"):
            make()


# === Which files ===


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
