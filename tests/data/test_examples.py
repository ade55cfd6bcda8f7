import numpy as np
import pytest
import tensorflow as tf

from undivided_tf.data import examples


@pytest.mark.parametrize("largest", [200, 70_000])
@pytest.mark.parametrize("pairs", [False, True])
def test_laid_out_records_equal_those_of_tensorflow(tmp_path, largest, pairs):
    generator = np.random.default_rng(0)
    fields = {"token_ids": generator.integers(0, largest, (50, 12)).astype("<i4")}
    if pairs:
        fields["first_segment_length"] = generator.integers(3, 12, 50).astype("<i4")
        fields["next_sentence_label"] = generator.integers(0, 2, 50).astype("<i4")
    path = tmp_path / "rows.tfrecord"
    path.write_bytes(examples.Layout(12, pairs).records(**fields).tobytes())

    # The reader checks both checksums of every record; protobuf is a second parser.
    serialized = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    with tf.io.TFRecordWriter(str(tmp_path / "same.tfrecord")) as writer:
        for record in serialized:
            writer.write(record)
    assert (tmp_path / "same.tfrecord").read_bytes() == path.read_bytes()
    for number, record in enumerate(serialized):
        feature = tf.train.Example.FromString(record).features.feature
        assert set(feature) == set(fields)
        for name, values in fields.items():
            assert feature[name].bytes_list.value[0] == values[number].tobytes()

    found = examples.parse(tf.constant(serialized), 12, pairs)
    np.testing.assert_array_equal(found["token_ids"], fields["token_ids"])
    if pairs:
        segments = [
            [int(i >= first) for i in range(12)] for first in fields["first_segment_length"]
        ]
        np.testing.assert_array_equal(found["segment_ids"], segments)
        np.testing.assert_array_equal(found["next_sentence_label"], fields["next_sentence_label"])
    # A reader of single texts can read the ids of records of pairs.
    np.testing.assert_array_equal(
        examples.parse(tf.constant(serialized), 12)["token_ids"], fields["token_ids"]
    )
