import dataclasses

import numpy as np
import pytest

from undivided_tf.analysis import similarity, subjects, taps
from undivided_tf.analysis.cka import linear_cka
from undivided_tf.analysis.subjects import Subject
from undivided_tf.config import EncoderConfig
from undivided_tf.data.tasks import Rows
from undivided_tf.errors import InputError
from undivided_tf.models.encoder import Encoder
from undivided_tf.recipes import CkaConfig
from undivided_tf.tokenization import Tokenizer

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrst")
CONFIG = CkaConfig(num_examples=40, tokens_per_example=3, batch_size=40, max_seq_length=12, seed=3)


def rows(count=40):
    rng = np.random.default_rng(0)
    return Rows([" ".join(rng.choice(list(PIECES[5:]), rng.integers(3, 9))) for _ in range(count)])


def subject(pattern="(AI)*2", seed=1, pieces=PIECES):
    config = EncoderConfig(
        vocab_size=len(pieces), hidden_size=8, num_attention_heads=2, intermediate_size=16,
        block_pattern=pattern, max_position_embeddings=16, initializer_range=0.5,
    )  # fmt: skip
    return Subject(Encoder(config, seed=seed), Tokenizer(pieces), seed)


@pytest.fixture(scope="module")
def first():
    return subject()


def activations(subject, config):
    (batch,) = taps.token_activations(
        subject.encoder,
        subject.tokenizer,
        rows(),
        tokens_per_example=config.tokens_per_example,
        batch_size=config.num_examples,
        max_seq_length=config.max_seq_length,
        seed=config.seed,
    )
    return batch


def test_one_minibatch_is_the_debiased_cka_of_the_drawn_tokens(first):
    second = subject("A*3", seed=2)
    result = similarity.compare(first, second, rows(), CONFIG)
    expected = [
        [linear_cka(x, y, debiased=True) for y in activations(second, CONFIG).values()]
        for x in activations(first, CONFIG).values()
    ]
    np.testing.assert_allclose(result["matrix"], expected, rtol=1e-6)
    assert result["kind"] == "cka"
    assert result["first"] == {"pattern": "(AI)*2", "seed": 1, "trained": True}
    assert result["second"] == {"pattern": "A*3", "seed": 2, "trained": True}
    assert result["first_taps"] == list(first.encoder.config.pattern.tap_names)
    assert result["second_taps"] == ["embeddings", *(f"block_0{i}/attention" for i in range(3))]
    assert (result["examples"], result["tokens"], result["dropped_tokens"]) == (40, 120, 0)
    assert result["reasons"] == {}


def test_an_encoder_is_like_itself_and_less_like_its_untrained_twin(first):
    config = CONFIG.replace(batch_size=8)
    itself = np.array(similarity.compare(first, first, rows(), config)["matrix"])
    np.testing.assert_allclose(np.diag(itself), 1)
    np.testing.assert_allclose(itself, itself.T)
    twin = first.untrained_twin(9)
    assert twin.describe() == {"pattern": "(AI)*2", "seed": 9, "trained": False}
    other = np.array(similarity.compare(first, twin, rows(), config)["matrix"])
    assert other.max() < 0.95


def test_more_examples_than_there_are_use_all(first):
    result = similarity.compare(first, first, rows(), CONFIG.replace(num_examples=99))
    assert result["examples"] == 40


def test_too_small_a_last_minibatch_is_counted(first):
    result = similarity.compare(
        first, first, rows(), CONFIG.replace(batch_size=13, tokens_per_example=2)
    )
    assert (result["tokens"], result["dropped_tokens"]) == (78, 2)


def test_a_constant_tap_is_null_with_its_reason():
    flat = subject("A")
    flat.encoder.embeddings.trainable = True
    for weight in flat.encoder.embeddings.weights:
        weight.assign(np.zeros(weight.shape))
    result = similarity.compare(flat, flat, rows(), CONFIG)
    assert result["matrix"][0][0] is None
    assert "embeddings: no variance" in result["reasons"]["embeddings x embeddings"]


def test_different_vocabularies_are_refused(first):
    other = subject(pieces=(*PIECES[:-1], "u"))
    with pytest.raises(InputError, match="different tokenizers .vocabulary_hash"):
        similarity.compare(first, other, rows(), CONFIG)
    cased = dataclasses.replace(first, tokenizer=Tokenizer(PIECES, do_lower_case=False))
    with pytest.raises(InputError, match="do_lower_case True and False"):
        subjects.require_same_vocabulary(first, cased)


def test_run_takes_the_untrained_twin_when_no_second_is_named(first, monkeypatch):
    loaded = {"one": first, "two": subject("A*3", seed=2)}
    monkeypatch.setattr(subjects, "load", loaded.__getitem__)
    config = CONFIG.replace(
        first_checkpoint="one", task="wiki_topic", max_seq_length=16, num_examples=20
    )
    assert similarity.run_cka(config)["second"] == {
        "pattern": "(AI)*2",
        "seed": 3,
        "trained": False,
    }
    both = similarity.run_cka(config.replace(second_checkpoint="two"))
    assert both["second"] == {"pattern": "A*3", "seed": 2, "trained": True}
