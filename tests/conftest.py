"""What all tests share."""

import pathlib

import hypothesis
import pytest

from undivided_tf.config import EncoderConfig
from undivided_tf.support import process

process.set_up()  # As the binaries, before TensorFlow.
# A laden machine is no fault of an example.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data():
    """Folder of real data beside the checkout; the test is skipped where it is absent."""
    if not SHARED.exists():
        pytest.skip(f"needs the data folder {SHARED}")
    return SHARED


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Records of the toy corpus; a module that needs others has a `toy` of its own."""
    import toys

    from undivided_tf.data.corpus import records

    folder = tmp_path_factory.mktemp("toy")
    corpus = toys.write_corpus(folder / "text")
    records.create_records(toys.records_config(folder / "records", corpus))
    return folder / "records"


def tiny_config(**changes):
    """An encoder that runs in milliseconds."""
    values = {
        "vocab_size": 50,
        "hidden_size": 8,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "block_pattern": "(AI)*2",
        "max_position_embeddings": 12,
        **changes,
    }
    return EncoderConfig(**values)
