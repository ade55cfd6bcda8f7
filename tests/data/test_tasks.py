import json
import shutil

import numpy as np
import pytest
import toy_glue

from undivided_tf.data.tasks import tasks
from undivided_tf.errors import InputError


def folder(tmp_path, **contents):
    for name, content in contents.items():
        path = tmp_path / name.replace("_", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(tmp_path)


SINGLE = "sentence\tlabel\ngood\tpos\nbad\tneg\n"


def test_single_sentences(tmp_path):
    test = "index\tsentence\n0\tunseen\n"
    task = tasks.load_task(folder(tmp_path, train_tsv=SINGLE, dev_tsv=SINGLE, test_tsv=test))
    assert (task.name, task.labels, task.is_pair) == (tmp_path.name, ("neg", "pos"), False)
    rows = task.read("train")
    assert rows.first == ["good", "bad"] and rows.second is None and rows.labels.tolist() == [1, 0]
    assert task.read("test").first == ["unseen"] and task.read("test").labels is None


@pytest.mark.parametrize(
    "columns",
    [("sentence1", "sentence2"), ("question1", "question2"), ("question", "sentence"),
     ("premise", "hypothesis")],
)  # fmt: skip
def test_pairs_by_the_names_of_glue(tmp_path, columns):
    text = "id\t{}\t{}\tlabel\n0\tx\ty\tno\n1\tv\tw\tyes\n".format(*columns)
    rows = tasks.load_task(folder(tmp_path, train_tsv=text, validation_tsv=text)).read("validation")
    assert (rows.first, rows.second) == (["x", "v"], ["y", "w"])


def test_declared_columns_labels_and_files(tmp_path):
    text = '\ufeffQuality\t#1 String\t#2 String\r\n1\ta "b\tc\r\n0\td\u2028e\tf\r\n'
    declared_json = {"first": "#1 String", "second": "#2 String", "label": "Quality",
            "labels": ["0", "1", "2"], "validation": "msr.tsv"}  # fmt: skip
    name = folder(tmp_path, train_tsv=text, msr_tsv=text, task_json=json.dumps(declared_json))
    task = tasks.load_task(name)
    assert task.labels == ("0", "1", "2")
    rows = task.read("validation")
    assert (rows.first, rows.second) == (['a "b', "d\u2028e"], ["c", "f"])
    assert rows.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"train_tsv": SINGLE + "lonely\n"}, r"train\.tsv:4: 1 columns, but the header has 2"),
        ({"train_tsv": SINGLE + "a\tb\tc\n"}, r"train\.tsv:4: 3 columns, but the header has 2"),
        ({"dev_tsv": "sentence\tlabel\nx\tmaybe\n"}, r"dev\.tsv:2: label 'maybe' is none of"),
        ({"train_tsv": "sentence\tlabel\n"}, r"train\.tsv: has no rows"),
        ({"train_tsv": ""}, r"train\.tsv: has no rows"),
        ({"train_tsv": b"sentence\tlabel\nx\ty\n\xff\ty\n"}, r"train\.tsv:3: not UTF-8"),
        ({"train_tsv": "text\tlabel\nx\ty\n"}, r"train\.tsv:1: no text column .*task\.json"),
        ({"train_tsv": "sentence\tclass\nx\ty\n"}, r"train\.tsv:1: no column 'label'"),
        ({"train_tsv": "sentence\tlabel\nx\ty\n"}, "at least two labels"),
        ({"task_json": '{"frist": "a"}'}, r"task\.json: unknown key 'frist'; did you mean 'first'"),
        ({"task_json": '{"second": "a"}'}, r"task\.json: names the column `second`"),
        ({"task_json": '{"labels": ["pos"]}'}, "at least two labels"),
        ({"task_json": '{"labels": ["pos", "x"]}'}, r"train\.tsv:3: label 'neg' is none of"),
        ({"task_json": '{"first": "b"}'}, r"train\.tsv:1: no column 'b'"),
    ],
)
def test_bad_folders_are_refused(tmp_path, contents, message):
    name = folder(tmp_path, **{"train_tsv": SINGLE, "dev_tsv": SINGLE, **contents})
    with pytest.raises(InputError, match=message):
        task = tasks.load_task(name)
        task.read("train"), task.read("validation")


def test_a_folder_with_task_json_is_not_read_as_glue(tmp_path):
    place = tmp_path / "SST-2"
    place.mkdir()
    for name in ("train.tsv", "dev.tsv"):
        (place / name).write_text(SINGLE)
    with pytest.raises(InputError, match="label 'pos' is none of 0, 1"):
        tasks.load_task(str(place)).read("train")
    (place / "task.json").write_text("{}")
    assert tasks.load_task(str(place)).labels == ("neg", "pos")


def test_grades_of_a_regression_are_classes_for_probes(tmp_path):
    place = tmp_path / "STS-B"
    place.mkdir()
    for name in ("train.tsv", "dev.tsv"):
        text = "sentence1\tsentence2\tscore\na\tb\t4.600\nc\td\t0.4\n"
        (place / name).write_text(text)
    graded = tasks.load_task(str(place)).graded()
    assert graded.labels == tuple("012345") and not graded.glue
    assert graded.read("train").labels.tolist() == [5, 0] and graded.read("test") is None
    assert graded.graded() is graded


def test_absent_files_and_names_are_refused(tmp_path):
    with pytest.raises(InputError, match="neither a folder nor one of wiki_topic, wiki_pair"):
        tasks.load_task("no_such_task")
    with pytest.raises(InputError, match=r"train\.tsv: cannot be read: No such file"):
        tasks.load_task(str(tmp_path))
    task = tasks.load_task(folder(tmp_path, train_tsv=SINGLE))
    with pytest.raises(InputError, match=r"dev\.tsv: cannot be read: No such file"):
        task.read("validation")
    with pytest.raises(InputError, match="split must be one of train, validation, test"):
        task.read("dev")


def test_labelled_test_split_is_read_with_labels(tmp_path):
    name = folder(tmp_path, train_tsv=SINGLE, dev_tsv=SINGLE, test_tsv=SINGLE)
    assert tasks.load_task(name).read("test").labels.tolist() == [1, 0]


def test_take_is_deterministic_nested_and_aligned():
    texts = [str(i) for i in range(50)]
    rows = tasks.Rows(texts, texts, np.arange(50, dtype=np.int32))
    few, many = rows.take(10, seed=3), rows.take(30, seed=3)
    assert len(few) == 10 and set(few.first) < set(many.first)
    assert few.first == few.second == [str(i) for i in few.labels]
    assert rows.take(10, seed=4).first != few.first and rows.take(10, seed=3).first == few.first
    assert rows.take(0, seed=3) is rows and rows.take(99, seed=3) is rows


@pytest.mark.parametrize(
    ("name", "labels", "pair"),
    [("wiki_topic", 11, False), ("wiki_pair", 2, True), ("wiki_shift", 2, False)],
)
def test_sample_tasks(name, labels, pair):
    task = tasks.load_task(name)
    assert len(task.labels) == labels and task.is_pair == pair
    for split in tasks.SPLITS:
        rows = task.read(split)
        assert len(rows) == len(rows.labels) > 900 and (rows.second is not None) == pair
        assert set(rows.labels.tolist()) == set(range(labels))
    with pytest.raises(InputError, match="split must be"):
        task.read("dev")


def test_the_files_of_a_task_are_named(tmp_path):
    name = folder(tmp_path, train_tsv=SINGLE, dev_tsv=SINGLE, task_json="{}", notes_txt="")
    names = [path.name for path in tasks.task_files(name)]
    assert names == ["task.json", "train.tsv", "dev.tsv"]
    assert tasks.task_files("wiki_topic") == ()


def test_the_files_of_an_official_task_are_named(tmp_path):
    toy_glue.write_glue(tmp_path, ["mnli", "ax"])
    found = tasks.task_files(str(tmp_path / "MNLI"))
    assert {path.relative_to(tmp_path).as_posix() for path in found} == {
        "MNLI/train.tsv", "MNLI/dev_matched.tsv", "MNLI/dev_mismatched.tsv",
        "MNLI/test_matched.tsv", "MNLI/test_mismatched.tsv", "AX/diagnostic.tsv",
    }  # fmt: skip
    archive = shutil.make_archive(str(tmp_path / "zipped" / "RTE"), "zip", tmp_path / "MNLI")
    assert [str(path) for path in tasks.task_files(archive)] == [archive]


# === A class that nobody declared is never trained ===


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("", r"train\.tsv:3: label '' often marks a missing label.*and 1 more rows"),
        ("-", r"train\.tsv:3: label '-' often marks a missing label"),
        ("-1", r"train\.tsv:3: label '-1' often marks a missing label"),
        ("nan", r"train\.tsv:3: label 'nan' often marks a missing label"),
        ("pos ", r"train\.tsv:3: label 'pos ' has blanks .* its name 'pos'"),
        ("p\u200bos", r"train\.tsv:3: label 'p\\u200bos' has blanks or invisible characters"),
        ("0.5", r"train\.tsv:3: label '0.5' is a number with a fraction.*\"regression\": true"),
        ("3.0", r"train\.tsv:3: label '3.0' is a number with a fraction"),
        ("1e-3", r"train\.tsv:3: label '1e-3' is a number with a fraction"),
    ],
)
def test_ambiguous_labels_are_not_trained_as_classes(tmp_path, field, message):
    text = f"sentence\tlabel\ngood\tpos\nodd\t{field}\nbad\tneg\nodder\t{field}\n"
    name = folder(tmp_path, train_tsv=text, dev_tsv=SINGLE)
    with pytest.raises(InputError, match=message):
        tasks.load_task(name)
    declared = {"labels": ["neg", "pos", field]}
    name = folder(tmp_path, task_json=json.dumps(declared))
    assert tasks.load_task(name).read("train").labels.tolist() == [1, 2, 0, 2]


@pytest.mark.parametrize("labels", [["0", "1"], ["+", "++"], ["v1.0", "x2"]])
def test_other_names_are_classes_without_a_declaration(tmp_path, labels):
    text = "sentence\tlabel\n" + "".join(f"x\t{label}\n" for label in labels)
    assert tasks.load_task(folder(tmp_path, train_tsv=text)).labels == tuple(sorted(labels))


def test_rows_that_are_marked_as_without_a_label_are_left_out_and_counted(tmp_path, caplog):
    text = SINGLE + "odd\t-\nodder\t\n"
    test = "sentence\tlabel\nunseen\t-\n"
    declared = json.dumps({"no_label_marks": ["-", ""]})
    name = folder(tmp_path, train_tsv=text, dev_tsv=text, test_tsv=test, task_json=declared)
    task = tasks.load_task(name)
    assert task.labels == ("neg", "pos")
    for split in ("train", "validation"):
        rows = task.read(split)
        assert rows.first == ["good", "bad"] and rows.labels.tolist() == [1, 0]
    assert "dev.tsv: 2 of 4 rows left out" in caplog.text
    assert task.read("test").first == ["unseen"] and task.read("test").labels is None
    folder(tmp_path, dev_tsv=test)
    with pytest.raises(InputError, match=r"dev\.tsv: no row has a label"):
        tasks.load_task(name).read("validation")


def test_a_label_padded_with_blanks_in_dev_says_so(tmp_path):
    dev = "sentence\tlabel\nx\tpos \nx\t-\n"
    task = tasks.load_task(folder(tmp_path, train_tsv=SINGLE, dev_tsv=dev))
    with pytest.raises(InputError, match=r"dev\.tsv:2: label 'pos ' .* remove the blanks around"):
        task.read("validation")
    folder(tmp_path, dev_tsv=dev.replace("pos ", "pos"))
    with pytest.raises(InputError, match=r"dev\.tsv:3: label '-' .*\"no_label_marks\": \[\"-\"\]"):
        tasks.load_task(str(tmp_path)).read("validation")


NUMBERS = "sentence\tlabel\na\t0.5\nb\t-1.25\nc\t3\n"


def test_a_column_of_numbers_is_a_regression_when_declared(tmp_path):
    name = folder(tmp_path, train_tsv=NUMBERS, dev_tsv=NUMBERS, task_json='{"regression": true}')
    task = tasks.load_task(name)
    assert task.is_regression and task.score_range == ()
    assert task.read("train").labels.tolist() == [0.5, -1.25, 3.0]
    assert task.read("train").labels.dtype == np.float32
    with pytest.raises(InputError, match="probes classify .* declare a score_range"):
        task.graded()
    folder(tmp_path, task_json='{"regression": true, "score_range": [-2, 3]}')
    graded = tasks.load_task(name).graded()
    assert graded.labels == ("-2", "-1", "0", "1", "2", "3")
    assert [graded.labels[i] for i in graded.read("train").labels] == ["0", "-1", "3"]


@pytest.mark.parametrize(
    ("declared", "field", "message"),
    [
        ({}, "much", r"train\.tsv:5: label 'much' is not a number$"),
        ({}, "nan", r"train\.tsv:5: label 'nan' is not a number; .*no_label_marks"),
        ({}, "", r"train\.tsv:5: label '' is not a number; .*no_label_marks"),
        (
            {"score_range": [-2, 5]},
            "5.1",
            r"train\.tsv:5: label '5.1' is not a number from -2 to 5",
        ),
        ({"labels": ["a", "b"]}, "1", r"task\.json: declares labels, but a regression"),
        ({"score_range": [5, 0]}, "1", r"task\.json: score_range must be the lowest and the"),
        ({"regression": False, "score_range": [0, 5]}, "1", r"task\.json: declares a score_range"),
    ],
)
def test_invalid_numbers_of_a_regression_are_refused(tmp_path, declared, field, message):
    declared_json = json.dumps({"regression": True, **declared})
    name = folder(tmp_path, train_tsv=NUMBERS + f"d\t{field}\n", task_json=declared_json)
    with pytest.raises(InputError, match=message):
        tasks.load_task(name).read("train")


def test_a_trailing_blank_line_is_no_row(tmp_path):
    name = folder(tmp_path, train_tsv=SINGLE + "\n\n", dev_tsv=SINGLE + "\r\n")
    task = tasks.load_task(name)
    assert len(task.read("train")) == len(task.read("validation")) == 2
    folder(tmp_path, dev_tsv=SINGLE + "\nx\tpos\n")
    with pytest.raises(InputError, match=r"dev\.tsv:4: a blank line, but the header has 2"):
        tasks.load_task(name).read("validation")


def test_the_error_says_that_a_folder_was_read_as_glue_by_its_name(tmp_path):
    place = tmp_path / "cola"
    place.mkdir()
    folder(place, train_tsv=SINGLE, dev_tsv=SINGLE)
    message = r"2 columns.*cola is read as CoLA of GLUE because of its name.*task\.json"
    with pytest.raises(InputError, match=message):
        tasks.load_task(str(place)).read("train")
    folder(place, task_json="{}")
    assert len(tasks.load_task(str(place)).read("train")) == 2
