import zipfile

import numpy as np
import pytest
import toy_glue

from undivided_tf.data.tasks import glue
from undivided_tf.data.tasks.tasks import load_task
from undivided_tf.errors import InputError
from undivided_tf.metrics.glue import METRICS

NINE = [name for name in glue.TASKS if name != "ax"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_glue.write_glue(tmp_path_factory.mktemp("glue"), glue.TASKS)


def test_every_task_has_metrics_and_names_of_its_own():
    assert list(glue.TASKS) == list(METRICS)
    names = ("CoLA", "SST-2", "sst2", "STS-B", "QQP-clean", "QNLIv2", "diagnostic", "AX", "RTE")
    keys = ["cola", "sst2", "sst2", "stsb", "qqp", "qnli", "ax", "ax", "rte"]
    assert [glue.canonical_name(name) for name in names] == keys
    assert glue.canonical_name("animals") is None
    files = [file for task in glue.TASKS.values() for file in task.submission_files.values()]
    assert sorted(set(files)) == [
        "AX.tsv", "CoLA.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "MRPC.tsv", "QNLI.tsv", "QQP.tsv",
        "RTE.tsv", "SST-2.tsv", "STS-B.tsv", "WNLI.tsv",
    ]  # fmt: skip


@pytest.mark.parametrize("name", NINE)
def test_official_folders(toy, name):
    about = glue.TASKS[name]
    task = load_task(f"{toy}/{about.folder}")
    assert (task.name, task.glue, task.labels) == (about.folder, name, about.labels)
    for split in about.splits:
        if split == "test_ax":
            continue
        rows, expected = task.read(split), toy_glue.rows_of(name, split)
        assert rows.first == [row[about.columns[0]] for row in expected]
        second = [row[about.columns[-1]] for row in expected] if task.is_pair else None
        assert rows.second == second
        if split.startswith("test"):
            assert rows.labels is None
        elif task.is_regression:
            assert rows.labels.tolist() == [float(row["score"]) for row in expected]
        else:
            kinds = [i % len(task.labels) for i in range(len(expected))]
            assert rows.labels.tolist() == kinds and rows.labels.dtype == np.int32


def test_the_diagnostic_is_read_alone_and_as_a_split_of_mnli(toy):
    ax = load_task(f"{toy}/AX").read("test")
    assert ax.labels is None and len(ax) == 5
    assert load_task(f"{toy}/MNLI").read("test_ax").first == ax.first


def test_archives_are_read_like_folders(toy, tmp_path):
    source = load_task(f"{toy}/MRPC")
    with zipfile.ZipFile(tmp_path / "MRPC.zip", "w") as archive:
        archive.writestr("__MACOSX/MRPC/train.tsv", "junk")
        for split in ("train", "dev", "test"):
            archive.write(f"{toy}/MRPC/{split}.tsv", f"MRPC/{split}.tsv")
    for name in (tmp_path / "MRPC.zip", tmp_path / "MRPC"):
        task = load_task(str(name))
        for split in ("train", "validation", "test"):
            assert task.read(split).second == source.read(split).second
    (tmp_path / "RTE.zip").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"RTE\.zip: damaged: File is not a zip file"):
        load_task(str(tmp_path / "RTE"))


def test_the_release_of_mrpc_by_microsoft(tmp_path):
    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
    folder = tmp_path / "MRPC"
    folder.mkdir()
    train = '1\t10\t20\ta\tb\r\n0\t11\t21\tc "d\te\r\n1\t12\t22\tf\tg\r\n'
    (folder / "msr_paraphrase_train.txt").write_text(header + train, newline="")
    (folder / "msr_paraphrase_test.txt").write_text(header + "1\t9\t8\th\ti\r\n", newline="")
    with pytest.raises(InputError, match="no list of dev rows"):
        load_task(str(folder)).read("train")
    (folder / "dev_ids.tsv").write_text("11\t21\n")
    task = load_task(str(folder))
    assert task.read("train").first == ["a", "f"] and task.read("train").labels.tolist() == [1, 1]
    assert task.read("validation").first == ['c "d'] and task.read("validation").labels[0] == 0
    assert task.read("test").first == ["h"] and task.read("test").labels is None


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("CoLA", "s\t2\t\ttext", r"dev\.tsv:2: label '2' is none of 0, 1"),
        ("CoLA", "s\t1\ttext", r"dev\.tsv:2: 3 columns, but the header has 4"),
        ("RTE", "0\ta\tb\tneutral", r"dev\.tsv:2: label 'neutral' is none of entailment, not_"),
        ("STS-B", "0\ta\tb\t5.1", r"dev\.tsv:2: score '5.1' is not a number from 0 to 5"),
        ("STS-B", "0\ta\tb\tnan", r"dev\.tsv:2: score 'nan' is not a number"),
        ("STS-B", "0\ta\tb\tmuch", r"dev\.tsv:2: score 'much' is not a number"),
        ("SST-2", "0\ta\0b\t1", r"dev\.tsv:2: a NUL byte"),
    ],
)
def test_bad_rows_are_refused_with_file_and_line(toy, tmp_path, name, row, message):
    folder = tmp_path / name
    folder.mkdir()
    source = f"{toy}/{name}"
    (folder / "train.tsv").write_text(open(f"{source}/train.tsv").read())
    first = open(f"{source}/dev.tsv").readline()
    (folder / "dev.tsv").write_text(first + row + "\n")
    task = load_task(str(folder))
    with pytest.raises(InputError, match=message):
        task.read("validation")
    with pytest.raises(InputError, match="split must be one of"):
        task.read("dev")


def test_missing_columns_and_files_are_named(tmp_path):
    folder = tmp_path / "SST-2"
    folder.mkdir()
    (folder / "train.tsv").write_text("text\tlabel\nx\t1\n")
    with pytest.raises(InputError, match=r"train\.tsv:1: no column 'sentence' among text, label"):
        load_task(str(folder)).read("train")
    with pytest.raises(InputError, match=r"dev\.tsv: cannot be read: No such file"):
        load_task(str(folder)).read("validation")
    assert load_task(str(folder)).read("test") is None


def test_blank_texts_are_dropped_from_train_and_kept_elsewhere(tmp_path, caplog):
    folder = tmp_path / "SST-2"
    folder.mkdir()
    for name in ("train.tsv", "dev.tsv"):
        (folder / name).write_text("sentence\tlabel\ngood\t1\n \t0\nbad\t0\n")
    task = load_task(str(folder))
    assert task.read("train").first == ["good", "bad"]
    assert task.read("train").labels.tolist() == [1, 0]
    assert len(task.read("validation")) == 3
    assert "1 rows of train with a blank text dropped" in caplog.text
    assert "1 rows of validation with a blank text kept" in caplog.text


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("CoLA", (8551, 1043, 1063)), ("SST-2", (67349, 872, 1821)), ("MRPC", (3668, 408, 1725)),
        ("STS-B", (5749, 1500, 1379)), ("WNLI", (635, 71, 146)), ("QNLI", (8999, 1000, 5463)),
        ("QQP", (8999, 1000, None)), ("MNLI", (8999, 1000, None)),
    ],
)  # fmt: skip
def test_real_files_are_read_whole(shared_data, name, sizes):
    task = load_task(str(shared_data / "glue" / name))
    found = [task.read(split) for split in ("train", "validation", "test")]
    assert tuple(None if rows is None else len(rows) for rows in found) == sizes
    assert found[0].labels is not None and found[2] is None or found[2].labels is None
    if task.is_regression:
        assert found[1].labels.min() == 0 and found[1].labels.max() == 5
    else:
        assert set(found[1].labels.tolist()) == set(range(len(task.labels)))
    if name == "MNLI":
        assert len(task.read("test_ax")) == 1104


def test_quotes_of_real_files_are_characters(shared_data):
    folder = shared_data / "glue" / "STS-B"
    bare = sum(line.count('"') for line in open(folder / "train.tsv", encoding="utf-8"))
    rows = load_task(str(folder)).read("train")
    assert sum(text.count('"') for text in [*rows.first, *rows.second]) == bare > 0


def test_an_archive_with_flipped_bytes_is_named(toy, tmp_path):
    whole = tmp_path / "SST-2.zip"
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(f"{toy}/SST-2/train.tsv", "SST-2/train.tsv")
        archive.write(f"{toy}/SST-2/dev.tsv", "SST-2/dev.tsv")
    content = whole.read_bytes()
    refused = 0
    for place in range(0, len(content) - 1, 3):
        flipped = bytearray(content)
        flipped[place] ^= 0xFF
        flipped[place + 1] ^= 0xFF
        whole.write_bytes(flipped)
        try:
            task = load_task(str(whole))
            task.read("train"), task.read("validation")
        except InputError as error:
            assert "SST-2.zip" in str(error)
            assert "because of its name" not in str(error) or "damaged" not in str(error)
            refused += 1
    assert refused > len(content) / 3 / 2
