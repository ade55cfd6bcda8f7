import numpy as np
import pytest

from undivided_tf.analysis import probing
from undivided_tf.analysis.subjects import Subject
from undivided_tf.config import EncoderConfig
from undivided_tf.data.tasks import Rows, Task
from undivided_tf.errors import InputError
from undivided_tf.models.encoder import Encoder
from undivided_tf.recipes import ProbingConfig
from undivided_tf.tokenization import Tokenizer

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijkl")
CONFIG = ProbingConfig(max_train_rows=120, max_test_rows=60, max_seq_length=10, batch_size=16)


def blobs(rng, rows, classes, features, spread=1.0):
    centres = np.random.default_rng(99).normal(size=(classes, features))
    labels = rng.integers(0, classes, rows)
    return (centres[labels] + spread * rng.normal(size=(rows, features))).astype("f"), labels


def test_probe_reads_what_is_linear_and_not_what_is_not():
    rng = np.random.default_rng(0)
    train, test = (blobs(rng, rows, 3, 6, 0.3) for rows in (300, 300))
    accuracy, converged = probing.linear_probe(*train, *test, num_labels=3, inverse_l2=1.0)
    assert accuracy > 0.95 and converged
    signs = rng.choice([-1.0, 1.0], (600, 2))
    exclusive_or = (signs[:, 0] * signs[:, 1] > 0).astype(int)
    accuracy, _ = probing.linear_probe(
        signs[:300], exclusive_or[:300], signs[300:], exclusive_or[300:],
        num_labels=2, inverse_l2=1.0,
    )  # fmt: skip
    assert accuracy < 0.65


def test_scale_of_the_activations_does_not_matter():
    rng = np.random.default_rng(1)
    (x, labels), (test_x, test_labels) = (blobs(rng, rows, 4, 5) for rows in (200, 200))
    scale = np.geomspace(1e-3, 1e3, 5)
    plain, scaled = (
        probing.linear_probe(x * s, labels, test_x * s, test_labels, num_labels=4, inverse_l2=1.0)[
            0
        ]
        for s in (1.0, scale)
    )
    assert plain == pytest.approx(scaled, abs=0.011)


def test_the_test_split_does_not_enter_the_standardisation():
    rng = np.random.default_rng(2)
    (x, labels), (test_x, test_labels) = (blobs(rng, rows, 3, 6, 0.3) for rows in (200, 40))
    outlier = np.concatenate([test_x, np.full((1, 6), 1e6, "f")])
    options = {"num_labels": 3, "inverse_l2": 1.0}
    alone, _ = probing.linear_probe(x, labels, test_x, test_labels, **options)
    beside, _ = probing.linear_probe(x, labels, outlier, [*test_labels, 0], **options)
    assert abs(beside * 41 - alone * 40) <= 1.001  # The outlier changes its own answer only.


def test_a_solver_that_stops_early_is_told(monkeypatch):
    rng = np.random.default_rng(3)
    data = (*blobs(rng, 100, 5, 8), *blobs(rng, 100, 5, 8))
    monkeypatch.setattr(probing, "MAX_ITERATIONS", 2)
    assert probing.linear_probe(*data, num_labels=5, inverse_l2=1e4)[1] is False


def test_one_class_cannot_be_probed():
    x = np.eye(4)
    with pytest.raises(InputError, match="two classes"):
        probing.linear_probe(x, np.zeros(4, int), x, np.zeros(4, int), num_labels=2, inverse_l2=1)


def letters(split):
    """Which of two letters a text holds decides its label; two thirds have label 0."""
    rng = np.random.default_rng(len(split))
    labels = (rng.random(200) < 1 / 3).astype(np.int32)
    fill = rng.choice(list("cdefghijkl"), (200, 4))
    texts = [
        " ".join(rng.permutation(["ab"[label], *row]))
        for label, row in zip(labels, fill, strict=True)
    ]
    return Rows(texts, None, labels)


@pytest.fixture(scope="module")
def subject():
    config = EncoderConfig(
        vocab_size=len(PIECES), hidden_size=12, num_attention_heads=2, intermediate_size=16,
        block_pattern="AAI", max_position_embeddings=16,
    )  # fmt: skip
    return Subject(Encoder(config, seed=1), Tokenizer(PIECES), seed=5)


def test_probing_reports_every_tap_beside_its_baselines(subject):
    result = probing.probe(subject, Task("letters", ("no", "yes"), False, letters), CONFIG)
    taps = list(subject.encoder.config.pattern.tap_names)
    assert (result["kind"], result["pattern"], result["task"]) == ("probing", "A*2I", "letters")
    assert (result["pretraining_seed"], result["taps"]) == (5, taps)
    assert (result["rows"], result["split"]) == ({"train": 120, "test": 60}, "test")
    assert len(result["accuracy"]) == len(result["untrained_accuracy"]) == len(taps)
    chosen = letters("test").take(60, CONFIG.seed).labels
    assert result["majority_accuracy"] == pytest.approx(np.mean(chosen == 0))
    # A mean of embeddings holds the letter linearly, whatever the weights.
    assert result["accuracy"][0] > 0.95 and result["untrained_accuracy"][0] > 0.95
    assert result["unconverged"] == 0
    again = probing.probe(subject, Task("letters", ("no", "yes"), False, letters), CONFIG)
    assert again == result


@pytest.mark.parametrize("kind", ["unlabelled", "absent"])
def test_without_test_labels_the_validation_split_is_scored(subject, kind, caplog):
    def read(split):
        if split != "test":
            return letters(split)
        if kind == "absent":
            return None
        return Rows(letters(split).first)

    result = probing.probe(subject, Task("letters", ("no", "yes"), False, read), CONFIG)
    assert result["split"] == "validation"
