import json

import pytest
import toys
from conftest import tiny_config

from undivided_tf.config import EncoderConfig
from undivided_tf.data.corpus import records
from undivided_tf.tokenization import SPECIAL_TOKENS
from undivided_tf.training import memory
from undivided_tf.training.config import PretrainingConfig

BASE = EncoderConfig()


def test_memory_grows_with_the_batch_by_its_activations_only():
    one = memory.training_memory_bytes(BASE, 128, 20, 1)
    two = memory.training_memory_bytes(BASE, 128, 20, 2)
    assert two["activations"] == 2 * one["activations"]
    assert (two["parameters"], two["runtime"]) == (one["parameters"], one["runtime"])
    assert two["total"] == sum(value for name, value in two.items() if name != "total")


def test_activations_by_counting_every_array():
    """The arrays that XLA's buffer assignment lists at the peak of a step of this pattern."""
    n, hidden, inner, heads, vocabulary, predictions = 7, 8, 16, 2, 50, 3
    config = tiny_config(block_pattern="AI")
    stream, square = n * hidden, heads * n * n
    embeddings = [stream] * 3
    attention = [stream] * 7 + [square] * 3
    intermediate = [stream] * 3 + [n * inner]
    head = [predictions * vocabulary] * 3 + [predictions * hidden] * 5 + [stream]
    kept = sum([*embeddings, *attention, *intermediate])
    assert memory.activation_elements(config, n, predictions) == kept + sum(head)
    # With so few words the backward pass of a block needs more than the head does.
    alone = tiny_config(block_pattern="A", vocab_size=1)
    kept = sum([*embeddings, *attention])
    assert memory.activation_elements(alone, n, 1) == kept + 2 * stream + 2 * square
    # Query and key before their norm; rotation is linear and keeps nothing.
    normed = alone.replace(position_type="rotary", query_key_norm=True)
    found = memory.activation_elements(normed, n, 1)
    assert found == kept + 2 * stream + 2 * stream + 2 * square
    outer = sum([*embeddings, *[stream] * 3, *[stream] * 2])
    backward = [stream] + [n * inner] * 4  # GELU's other three arrays and one gradient.
    again = max(sum(attention) + 2 * stream + 2 * square, sum(intermediate) + sum(backward))
    found = memory.activation_elements(config, n, predictions, recompute=True)
    assert found == outer + max(sum(head), again)


def test_options_of_a_run_that_cost_or_save_memory():
    run = PretrainingConfig(encoder=BASE)
    plain = memory.of_run(run, BASE, 128, 20, 8)
    weights = plain["parameters"] // 4
    assert memory.of_run(run.replace(ema_momentum=0.9), BASE, 128, 20, 8)["parameters"] == (
        plain["parameters"] + weights
    )
    parts = memory.of_run(run.replace(gradient_accumulation_steps=2), BASE, 128, 20, 8)
    assert parts["parameters"] == plain["parameters"] + weights
    recomputed = memory.of_run(run.replace(recompute=True), BASE, 128, 20, 8)
    assert recomputed["activations"] < plain["activations"] / 3
    muon = memory.of_run(run.replace(optimizer="muon"), BASE, 128, 20, 8)
    kernels = 12 * (4 * 768**2 + 2 * 768 * 3072) + 768**2  # Have one moment instead of two.
    assert muon["parameters"] == plain["parameters"] - 4 * kernels
    dropless = BASE.replace(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    assert memory.of_run(run, dropless, 128, 20, 8)["activations"] < plain["activations"]


MEASURE = """
import json, sys
from undivided_tf.models import presets
from undivided_tf.training.config import PretrainingConfig
from undivided_tf.training import dry_run
encoder = presets.preset(sys.argv[2]).replace(block_pattern=sys.argv[3])
config = PretrainingConfig(
    encoder=encoder, records_dir=sys.argv[1], train_batch_size=int(sys.argv[4]))
found = dry_run.dry_run(config, timed_steps=1)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def wide_records(tmp_path_factory):
    """Records of the usual length with a vocabulary of the usual size."""
    folder = tmp_path_factory.mktemp("wide")
    pieces = [*SPECIAL_TOKENS, *"abcdefghij"]
    pieces += [f"q{number}" for number in range(BASE.vocab_size - len(pieces))]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    documents = (f"{first} " + "a b c d e f g h i j " * 100 for first in "abcdefghij")
    (folder / "text.txt").write_text("\n\n".join(documents) + "\n")
    config = toys.records_config(
        folder / "records", str(folder / "text.txt"), vocab_file=str(folder / "vocab.txt"),
        vocab_size=BASE.vocab_size, max_seq_length=128,
    )  # fmt: skip
    records.create_records(config)
    return folder / "records"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "pattern", "rows"),
    [
        ("bert_tiny", "A*2", 64),
        pytest.param("bert_mini", "(AI)*4", 32, marks=pytest.mark.long),
    ],
)
def test_the_estimate_is_within_a_fifth_of_the_peak(
    wide_records, preset, pattern, rows, monkeypatch
):
    # A kept program would be loaded instead, which needs less than compiling.
    monkeypatch.delenv("TF_XLA_FLAGS", raising=False)
    done = toys.run_python(MEASURE, wide_records, preset, pattern, rows)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["estimated_bytes"] == pytest.approx(found["measured_bytes"], rel=0.2)
