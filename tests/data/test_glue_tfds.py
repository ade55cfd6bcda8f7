import socket
import time

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from undivided_tf.data import downloads
from undivided_tf.data.tasks import glue
from undivided_tf.data.tasks.tasks import load_task
from undivided_tf.errors import InputError


def test_all_tasks_and_splits_of_mocked_data(monkeypatch):
    monkeypatch.setattr(downloads, "require_network", lambda source, url: None)
    with tfds.testing.mock_data(num_examples=3, policy=tfds.testing.MockPolicy.USE_CODE):
        for key, about in glue.TASKS.items():
            task = load_task(f"tfds:glue/{key}")
            assert (task.name, task.labels, task.glue) == (key, about.labels, key)
            for split in about.splits:
                rows = task.read(split)
                assert len(rows) == 3 and isinstance(rows.first[0], str)
                assert (rows.second is not None) == (len(about.columns) == 2)
                assert (rows.labels is None) == split.startswith("test")


@pytest.mark.parametrize("key", glue.TASKS)
def test_declared_labels_and_fields_are_those_of_tensorflow_datasets(key):
    features = tfds.builder(f"glue/{key}").info.features
    about = glue.TASKS[key]
    if about.labels:
        assert tuple(features["label"].names) == about.labels
    assert set(about.fields or about.columns) == set(features) - {"idx", "label"}


def test_a_row_without_a_label_is_not_of_the_last_class(monkeypatch):
    monkeypatch.setattr(downloads, "require_network", lambda source, url: None)

    def rows(self, *args, **kwargs):
        values = {"sentence": ["good", "odd"], "label": [1, -1], "idx": [0, 1]}
        return tf.data.Dataset.from_tensor_slices(values)

    with tfds.testing.mock_data(as_dataset_fn=rows, policy=tfds.testing.MockPolicy.USE_CODE):
        task = load_task("tfds:glue/sst2")
        with pytest.raises(InputError, match=r"tfds:glue/sst2: train\[1\] has no label .1 of 2"):
            task.read("train")


def test_a_missing_network_fails_within_seconds(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with socket.socket() as free:  # A port on which nobody listens.
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/CoLA.zip"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    started = time.perf_counter()
    with pytest.raises(InputError, match="tfds:glue/cola.* cannot be reached .*give files instead"):
        downloads.require_network("tfds:glue/cola", url)
    assert time.perf_counter() - started < 3 * downloads.NETWORK_SECONDS


@pytest.mark.parametrize("name", ["tfds:glue/nothing", "tfds:imdb_reviews", "tfds:"])
def test_unknown_names_are_refused(name):
    with pytest.raises(InputError, match="not supported; from TensorFlow Datasets: tfds:glue/cola"):
        load_task(name)


@pytest.mark.network
def test_real_download():
    assert len(load_task("tfds:glue/wnli").read("validation")) == 71
