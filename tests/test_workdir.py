"""The bytes behind the paths of a config belong to the run."""

import dataclasses
import os

import pytest

from undivided_tf import inputs, workdir
from undivided_tf.config import Config, option, section
from undivided_tf.data.corpus import records
from undivided_tf.data.corpus.config import RecordsConfig
from undivided_tf.errors import InputError
from undivided_tf.inputs import Input
from undivided_tf.support import files
from undivided_tf.training.config import PretrainingConfig
from undivided_tf.workdir import open_workdir, results_once


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
    assert workdir.date(results.stat().st_mtime) in said
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
    assert f"inputs not found and not compared: text {text}" in capsys.readouterr().err
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
    assert "no inputs.json yet, the present inputs are recorded" in capsys.readouterr().err
    assert run_once(config, 2) == {"answer": 1}
    assert "recorded" not in capsys.readouterr().err
    text.write_text("third\n")
    with pytest.raises(InputError, match="made from other inputs"):
        run_once(config)


def test_a_run_that_grows_keeps_the_inputs_that_it_had(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name)
    one, two = (Part(parts=tuple(str(tmp_path / name) for name in names)) for names in ("a", "ba"))
    open_workdir(tmp_path / "run", one, lambda there: True)
    open_workdir(tmp_path / "run", two, lambda there: True)
    (tmp_path / "b").write_text("c")
    with pytest.raises(InputError, match="parts: .*/b"):
        open_workdir(tmp_path / "run", two, lambda there: True)
    (tmp_path / "b").write_text("b")
    (tmp_path / "a").rename(tmp_path / "c")
    moved = Part(parts=(str(tmp_path / "b"), str(tmp_path / "c")))
    with pytest.raises(InputError, match="parts: "):  # Cells are named after the path.
        open_workdir(tmp_path / "run", moved, lambda there: False)


def test_large_files_are_read_once(text, tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "LARGE_BYTES", 3)
    inputs._hash_of_large.cache_clear()
    config = Run(text=str(text))
    for name in ("run", "other"):  # As two cells of a study in one process.
        open_workdir(tmp_path / name, config)
    assert inputs._hash_of_large.cache_info().misses == 1
    inputs._hash_of_large.cache_clear()  # As another process.
    open_workdir(tmp_path / "run", config)
    assert inputs._hash_of_large.cache_info().misses == 0
    os.utime(text, (0, 1))
    open_workdir(tmp_path / "run", config)
    open_workdir(tmp_path / "run", config)
    assert inputs._hash_of_large.cache_info().misses == 1
    text.write_text("other")
    with pytest.raises(InputError, match="made from other inputs"):
        open_workdir(tmp_path / "run", config)


def test_a_damaged_record_of_inputs_is_named(text, tmp_path):
    open_workdir(tmp_path / "run", Run(text=str(text)))
    (tmp_path / "run" / "inputs.json").write_text("{")
    with pytest.raises(InputError, match=r"inputs.json is not JSON.*remove it"):
        open_workdir(tmp_path / "run", Run(text=str(text)))


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
        lambda: workdir.new_directory(output),
        lambda: records.create_records(RecordsConfig(output_dir=output)),
    ):
        with pytest.raises(InputError, match=f"output_dir {output}: {tmp_path / 'file'} is a file"):
            make()


def test_a_used_workdir_shows_the_difference(tmp_path):
    config = PretrainingConfig(workdir=str(tmp_path))
    open_workdir(tmp_path, config)
    open_workdir(tmp_path, config)
    other = config.replace(learning_rate=1.0, encoder=config.encoder.replace(hidden_size=24))
    with pytest.raises(InputError) as error:
        open_workdir(tmp_path, other)
    assert "encoder.hidden_size: 768 there, 24 asked for" in str(error.value)
    assert "learning_rate: 0.0001 there, 1.0 asked for" in str(error.value)


def test_a_workdir_from_before_a_flag_goes_on_with_its_default(tmp_path):
    config = PretrainingConfig(workdir=str(tmp_path))
    values = config.to_dict()
    del values["recompute"]
    files.write_json(tmp_path / "config.json", values)
    open_workdir(tmp_path, config)
    with pytest.raises(InputError, match="recompute: False there, True asked for"):
        open_workdir(tmp_path, config.replace(recompute=True))


def test_a_moved_workdir_is_still_the_same(tmp_path):
    open_workdir(tmp_path / "a", PretrainingConfig(workdir="a"))
    (tmp_path / "a").rename(tmp_path / "b")
    open_workdir(tmp_path / "b", PretrainingConfig(workdir="b"))


def test_a_part_that_has_its_file_is_not_made_again(tmp_path):
    path = tmp_path / "parts" / "run_1.json"

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workdir.once(path, stop)
    assert not path.exists()
    assert workdir.once(path, lambda: {"loss": (1.0,)}) == {"loss": [1.0]}  # As it is read later.
    assert workdir.once(path, stop) == {"loss": [1.0]}


def test_a_scratch_folder_goes_on_with_its_own_state_only(tmp_path, monkeypatch):
    folder = tmp_path / ".records.work"

    def kept(state):
        workdir.open_scratch(folder, state)
        there = (folder / "part").exists()
        (folder / "part").write_text("finished")
        return there

    assert not kept({"size": 1})
    assert kept({"size": 1})
    assert not kept({"size": 2})
    (folder / "state.json").write_text("{")
    assert not kept({"size": 2})
    assert kept({"size": 2})
    monkeypatch.setattr(workdir, "__version__", "0.0.0")
    assert not kept({"size": 2})


def test_a_result_that_is_made_in_one_go_replaces_nothing(tmp_path):
    assert workdir.new_directory(str(tmp_path / "new")) == tmp_path / "new"
    with pytest.raises(InputError, match=f"{tmp_path} exists already; choose another --output_dir"):
        workdir.new_directory(str(tmp_path))
    with pytest.raises(InputError, match="--output_dir=DIR"):
        workdir.new_directory("")
