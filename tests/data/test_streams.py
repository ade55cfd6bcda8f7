import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies

from undivided_tf.data import examples, streams
from undivided_tf.data.corpus import records
from undivided_tf.data.corpus.config import RecordsConfig
from undivided_tf.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("streams")
    text = "\n\n".join(f"document {i} has {i * i} words and {i % 7} ideas" for i in range(60))
    (root / "corpus.txt").write_text(text)
    records.create_records(
        RecordsConfig(
            input_files=(str(root / "corpus.txt"),), output_dir=str(root / "records"),
            vocab_size=60, max_seq_length=8, num_shards=4, validation_fraction=0.1,
        )
    )  # fmt: skip
    return root / "records"


def read(folder, count, **arguments):
    dataset = streams.training_rows(folder, **arguments)
    assert dataset.element_spec == {"token_ids": tf.TensorSpec((8,), tf.int32)}
    return np.array([row["token_ids"] for row in dataset.take(count).as_numpy_iterator()])


def number_of_rows(folder):
    return records.read_metadata(folder)["train"]["rows"]


@pytest.fixture(scope="module")
def three_epochs(folder):
    return read(folder, 3 * number_of_rows(folder), seed=5)


@hypothesis.settings(max_examples=12, deadline=None)
@hypothesis.given(share=strategies.floats(0, 2.9))
def test_stream_from_row_k_is_the_tail_of_the_stream_from_row_0(folder, three_epochs, share):
    start = int(share * number_of_rows(folder))
    tail = read(folder, len(three_epochs) - start, seed=5, start_row=start)
    np.testing.assert_array_equal(tail, three_epochs[start:])


def test_entering_at_the_ends_of_epochs_and_shards(folder, three_epochs):
    rows = number_of_rows(folder)
    shards = [file["rows"] for file in records.read_metadata(folder)["train"]["files"]]
    for start in (rows - 1, rows, rows + 1, 2 * rows, *np.cumsum(shards)):
        np.testing.assert_array_equal(
            read(folder, 3, seed=5, start_row=int(start)), three_epochs[start : start + 3]
        )


def test_each_epoch_has_every_row_once_in_an_order_of_its_own(folder, three_epochs):
    epochs = np.split(three_epochs, 3)
    contents = [sorted(map(tuple, epoch.tolist())) for epoch in epochs]
    assert contents[0] == contents[1] == contents[2]
    assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[1], epochs[2])


def test_order_depends_on_the_seed_and_not_on_the_global_one(folder, three_epochs):
    tf.random.set_seed(99)
    np.testing.assert_array_equal(read(folder, 30, seed=5), three_epochs[:30])
    assert not np.array_equal(read(folder, 30, seed=6), three_epochs[:30])


def test_validation_rows_are_fixed_and_a_few_are_the_first_of_many(folder):
    every = streams.validation_rows(folder)["token_ids"]
    assert len(every) == records.read_metadata(folder)["validation"]["rows"] > 5
    np.testing.assert_array_equal(streams.validation_rows(folder, 5)["token_ids"], every[:5])


def damage(folder, tmp_path, split, change):
    """Copies the records with the bytes of the first file of a split changed."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    name = records.read_metadata(folder)[split]["files"][0]["name"]
    (copy / name).write_bytes(change((copy / name).read_bytes()))
    return copy, name


def flip(content):
    return content[:60] + bytes([content[60] ^ 1]) + content[61:]


def foreign_ids(content):
    """A file of the same length, with sound checksums, of ids outside the vocabulary."""
    layout = examples.Layout(8)
    rows = len(content) // layout.dtype.itemsize
    return layout.records(token_ids=np.full((rows, 8), 777)).tobytes()


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize(
    ("change", "message"),
    [(flip, "damaged record"), (foreign_ids, "a token id is outside the vocabulary of 60")],
)
def test_damaged_records_are_named(folder, tmp_path, split, change, message):
    copy, name = damage(folder, tmp_path, split, change)
    with pytest.raises(InputError, match=f"{name}: {message}"):
        if split == "validation":
            streams.validation_rows(copy)
        else:
            with streams.reading_errors(copy):
                read(copy, number_of_rows(copy), seed=1)


def test_other_errors_pass_through_reading_errors(folder):
    with pytest.raises(tf.errors.InvalidArgumentError, match="nothing to do with records"):
        with streams.reading_errors(folder):
            raise tf.errors.InvalidArgumentError(None, None, "nothing to do with records")
