import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import PIECES

from undivided_tf.analysis import masked_lm, masked_loss, subjects
from undivided_tf.analysis.config import MaskedLossConfig
from undivided_tf.analysis.masked_loss import CLASSES
from undivided_tf.analysis.subjects import Subject
from undivided_tf.config import EncoderConfig
from undivided_tf.data import masking
from undivided_tf.data.corpus import counts, records
from undivided_tf.errors import InputError
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.tokenization import Tokenizer


def made(folder, pattern="AI", seed=1):
    """An encoder with large random weights, for the vocabulary of the toy records."""
    tokenizer = records.read_tokenizer(folder)
    config = EncoderConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=8, num_attention_heads=2,
        intermediate_size=16, block_pattern=pattern, max_position_embeddings=16,
        initializer_range=0.5, vocabulary_hash=tokenizer.vocabulary_hash,
    )  # fmt: skip
    encoder = Encoder(config, seed=seed)
    return Subject(encoder, tokenizer, seed), Pretrainer(encoder)


def config(folder, **changes):
    return MaskedLossConfig(
        records_dir=str(folder), mask_rates=(0.2, 0.4, 0.8), masked_pieces=700, batch_size=5
    ).replace(**changes)


def measure(folder, *parts, **changes):
    return masked_loss.measure(*parts, counts.read_counts(folder), config(folder, **changes))


@pytest.fixture(scope="module")
def found(toy):
    return measure(toy, *made(toy))


def test_losses_are_those_of_a_loop_over_rows_and_places(toy, found):
    subject, model = made(toy)
    class_of = masked_loss.piece_classes(counts.read_counts(toy).unigrams, subject.tokenizer)
    losses = {rate: {name: [] for name in CLASSES} for rate in (0.2, 0.4, 0.8)}
    for masked in masked_loss.masked_rows(config(toy), subject.tokenizer):
        for rate, rows in zip(losses, masked, strict=True):
            for row in range(len(rows["token_ids"])):
                used = rows["masked_weights"][row] > 0
                inputs = {
                    name: rows[name][row : row + 1]
                    for name in ("token_ids", "segment_ids", "padding_mask")
                }
                places = rows["masked_positions"][row : row + 1, used]
                logits = model({**inputs, "masked_positions": places})["masked_lm_logits"]
                logits = np.asarray(logits, np.float64)[0]
                for piece, scores in zip(rows["masked_ids"][row, used], logits, strict=True):
                    loss = np.log(np.exp(scores).sum()) - scores[piece]
                    losses[rate][CLASSES[class_of[piece]]].append(loss)
    assert [of["rate"] for of in found["rates"]] == list(losses)
    for of, expected in zip(found["rates"], losses.values(), strict=True):
        for name, values in expected.items():
            assert of["classes"][name]["pieces"] == len(values)
            mean = np.mean(values) if values else None
            assert of["classes"][name]["loss"] == (mean and pytest.approx(mean, rel=1e-5))
        every = [x for values in expected.values() for x in values]
        assert of["pieces"] == len(every) and of["loss"] == pytest.approx(np.mean(every), rel=1e-5)
        assert of["low"] < of["loss"] < of["high"]
    assert all(losses[0.8][name] for name in CLASSES[:3])
    rare = [x for expected in losses.values() for x in expected["rare"]]
    assert found["all"]["classes"]["rare"]["loss"] == pytest.approx(np.mean(rare), rel=1e-5)
    total = sum(len(values) for of in losses.values() for values in of.values())
    assert found["masked_pieces"] == found["all"]["pieces"] == total >= 700


def test_the_loss_of_a_uniform_prediction_is_the_logarithm_of_the_vocabulary_size(toy):
    subject, model = made(toy)
    head = model.masked_lm_head
    for weight in (*subject.encoder.embeddings.word_embeddings.weights, head.output_bias):
        weight.assign(np.zeros(weight.shape))
    found = measure(toy, subject, model)
    uniform = math.log(subject.tokenizer.vocab_size)
    for of in (found["all"], *found["rates"]):
        for one in (of, *of["classes"].values()):
            assert (one["loss"] is None) == (one["pieces"] == 0)
            known = [one[name] for name in ("loss", "low", "high") if one[name] is not None]
            assert known == pytest.approx([uniform] * len(known), rel=1e-5)


def test_the_neighbour_model_is_evaluated_at_the_same_places(toy, found):
    again = measure(toy, *made(toy, "A*2", seed=2))
    for own, other in zip(found["rates"], again["rates"], strict=True):
        assert own["loss"] != other["loss"]
        for one, two in zip(
            (own, *own["classes"].values()), (other, *other["classes"].values()), strict=True
        ):
            assert one["pieces"] == two["pieces"]
            assert one["neighbour_model_loss"] == two["neighbour_model_loss"]
    # Masked neighbours give the model less context.
    assert found["rates"][0]["neighbour_model_loss"] < found["rates"][2]["neighbour_model_loss"]


def test_masks_are_nested_over_rates_and_new_in_each_round(toy):
    tokenizer = records.read_tokenizer(toy)
    rounds = list(masked_loss.masked_rows(config(toy), tokenizer))
    assert len(rounds) >= 2
    for masked in rounds:
        chosen = [
            {(r, p) for r, p in zip(*np.nonzero(of["masked_weights"]), strict=True)}
            for of in [_dense(of) for of in masked]
        ]
        assert chosen[0] < chosen[1] < chosen[2]
        for few, many in zip(masked, masked[1:], strict=False):
            row, slot = np.nonzero(few["masked_weights"])
            place = few["masked_positions"][row, slot]
            assert np.array_equal(few["token_ids"][row, place], many["token_ids"][row, place])
    last = len(rounds[-1][0]["token_ids"])
    first = [of["masked_positions"][:last] for of in rounds[0]]
    later = [of["masked_positions"] for of in rounds[-1]]
    assert not all(np.array_equal(a, b) for a, b in zip(first, later, strict=True))
    pieces = [sum(int(of["masked_weights"].sum()) for of in masked) for masked in rounds]
    final = sum(int(of["masked_weights"][-1].sum()) for of in rounds[-1])
    assert sum(pieces) >= 700 > sum(pieces) - final
    rows = masking.validation_arrays(toy, tokenizer)["token_ids"]
    assert all(len(of["token_ids"]) == len(rows) for masked in rounds[:-1] for of in masked)


def _dense(rows):
    """The weights at the positions of the row."""
    weights = np.zeros_like(rows["token_ids"])
    row, slot = np.nonzero(rows["masked_weights"])
    weights[row, rows["masked_positions"][row, slot]] = 1
    return {"masked_weights": weights}


def test_the_seed_alone_decides_the_masks(toy):
    tokenizer = records.read_tokenizer(toy)
    one, again, other = (
        next(iter(masked_loss.masked_rows(config(toy, seed=seed), tokenizer)))[0]
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one["masked_positions"], again["masked_positions"])
    assert not np.array_equal(one["masked_positions"], other["masked_positions"])


def test_classes_are_thirds_of_the_occurrences():
    tokenizer = Tokenizer(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef", "##a", "##b"))
    unigrams = np.array([0, 0, 0, 0, 0, 1, 40, 3, 28, 28, 0, 500, 0])
    found = masked_loss.piece_classes(unigrams, tokenizer)
    names = {
        piece: CLASSES[number]
        for piece, number in zip(tokenizer.vocabulary, found, strict=True)
        if number >= 0
    }
    assert names == {
        "b": "frequent", "d": "middle", "e": "rare", "a": "rare", "c": "rare", "f": "rare",
        "##a": "continuation", "##b": "continuation",
    }  # fmt: skip
    assert (found[:5] == -1).all()


LETTERS = Tokenizer(PIECES)


@given(st.lists(st.integers(0, 50), min_size=8, max_size=8))
def test_a_class_begins_where_a_third_of_the_occurrences_is_reached(numbers):
    unigrams = np.array([0] * 5 + numbers)
    found = masked_loss.piece_classes(unigrams, LETTERS)
    total, largest = sum(numbers), max(numbers)
    for third in (1, 2):
        before = unigrams[(found >= 0) & (found < third)].sum()
        assert abs(before - third * total / 3) <= largest / 2 + 1e-9
    order = np.argsort(-unigrams[5:], kind="stable")
    assert (np.diff(found[5:][order]) >= 0).all()


def test_values_of_a_class_without_pieces_are_none(toy):
    subject, model = made(toy)
    corpus = counts.read_counts(toy)
    everywhere = corpus._replace(unigrams=np.zeros_like(corpus.unigrams))
    found = masked_loss.measure(subject, model, everywhere, config(toy))
    assert found["vocabulary"]["frequent"] == 0
    assert found["all"]["classes"]["frequent"] == {
        "pieces": 0, "loss": None, "low": None, "high": None, "neighbour_model_loss": None
    }  # fmt: skip


def test_losses_that_are_not_finite_are_refused(toy):
    subject, model = made(toy)
    model.masked_lm_head.output_bias.assign(np.full(subject.tokenizer.vocab_size, np.nan))
    with pytest.raises(InputError, match="losses are not finite: the weights of the encoder are"):
        measure(toy, subject, model)


def test_without_a_head_nothing_is_predicted(toy, monkeypatch, tmp_path):
    monkeypatch.setattr(subjects, "load", lambda path: made(toy)[0])
    monkeypatch.setattr(masked_lm, "load_head", lambda *_: None)
    with pytest.raises(InputError, match="minilm has no masked-language-model head"):
        masked_loss.run_masked_loss(
            config(toy, init_checkpoint="minilm", workdir=str(tmp_path / "work"))
        )
    assert not (tmp_path / "work").exists()


def test_records_of_another_vocabulary_are_refused(toy, monkeypatch, tmp_path):
    subject, model = made(toy)
    other = Encoder(subject.encoder.config.replace(vocabulary_hash="0" * 64), seed=1)
    monkeypatch.setattr(subjects, "load", lambda path: Subject(other, subject.tokenizer, 1))
    monkeypatch.setattr(masked_lm, "load_head", lambda *_: model)
    with pytest.raises(InputError, match="does not fit the encoder:\n  vocabulary_hash: "):
        masked_loss.run_masked_loss(config(toy, workdir=str(tmp_path / "work")))
    assert not (tmp_path / "work").exists()


def test_rows_without_a_piece_are_an_error(toy, monkeypatch):
    tokenizer = records.read_tokenizer(toy)
    empty = {"masked_weights": np.zeros((3, 2), np.float32)}
    monkeypatch.setattr(masking, "validation_arrays", lambda *_, **__: dict(empty))
    with pytest.raises(InputError, match="no held-out row has a word piece to mask"):
        next(masked_loss.masked_rows(config(toy), tokenizer))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mask_rates": (0.3, 0.2)}, "mask_rates must list rates that rise, got 0.3, 0.2"),
        ({"mask_rates": (0.3,)}, "mask_rates must list 2 or more values"),
        ({"mask_rates": (0.0, 0.3)}, "mask_rates must be above 0"),
        ({"masked_pieces": 0}, "masked_pieces must be above 0, got 0"),
    ],
)
def test_values_that_make_no_sense_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        MaskedLossConfig(**values)
