import dataclasses

import numpy as np
import pytest

from undivided_tf.analysis import (
    activation_cache,
    comparisons,
    measures,
    similarity,
    subjects,
    taps,
)
from undivided_tf.analysis.cka import cka, gram_rbf, linear_cka
from undivided_tf.analysis.config import CkaConfig
from undivided_tf.analysis.subjects import Subject
from undivided_tf.config import EncoderConfig
from undivided_tf.data.tasks.tasks import Rows
from undivided_tf.errors import InputError
from undivided_tf.models.encoder import Encoder
from undivided_tf.tokenization import Tokenizer

FLOAT32 = 1e-6  # Activations are float32, and one unit in their last place is 1.2e-7.
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrst")
CONFIG = CkaConfig(
    num_examples=40, tokens_per_example=3, batch_size=40, max_seq_length=12, seed=3,
    references=("shuffled",), bootstrap_replicates=50,
)  # fmt: skip


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


def test_an_encoder_is_more_similar_to_itself_than_to_its_untrained_twin(first):
    config = CONFIG.replace(batch_size=8)
    itself = np.array(similarity.compare(first, first, rows(), config)["matrix"])
    np.testing.assert_allclose(np.diag(itself), 1, rtol=FLOAT32)
    np.testing.assert_allclose(itself, itself.T, rtol=FLOAT32)
    twin = first.untrained_twin(9)
    assert twin.describe() == {"pattern": "(AI)*2", "seed": 9, "trained": False}
    other = np.array(similarity.compare(first, twin, rows(), config)["matrix"])
    assert other.max() < 0.95


def test_the_twin_is_not_the_start_of_a_training_with_the_same_seed(first):
    for mine, others in zip(
        first.encoder.weights, first.untrained_twin(first.seed).encoder.weights, strict=True
    ):
        assert mine.path == others.path and mine.shape == others.shape
        if mine.path.endswith("kernel"):
            assert np.abs(np.asarray(mine) - np.asarray(others)).max() > 0.1


def test_more_examples_than_there_are_use_all(first):
    result = similarity.compare(first, first, rows(), CONFIG.replace(num_examples=99))
    assert result["examples"] == 40


def test_tokens_of_a_last_minibatch_that_is_too_small_are_counted(first):
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
    with pytest.raises(InputError, match="different tokenizers .vocabulary_hash.* .--unit=words.$"):
        similarity.compare(first, other, rows(), CONFIG)
    cased = dataclasses.replace(first, tokenizer=Tokenizer(PIECES, do_lower_case=False))
    with pytest.raises(InputError, match="do_lower_case True and False"):
        subjects.require_same_vocabulary(first, cased)


def test_the_second_encoder_is_the_untrained_twin_by_default(first, monkeypatch, tmp_path):
    loaded = {"one": first, "two": subject("A*3", seed=2)}
    monkeypatch.setattr(subjects, "load", loaded.__getitem__)
    config = CONFIG.replace(
        first_checkpoint="one", max_seq_length=16, num_examples=20, workdir=str(tmp_path / "twin")
    )
    twin = {"pattern": "(AI)*2", "seed": 3, "trained": False}
    assert similarity.run_cka(config)["second"] == twin
    both = config.replace(second_checkpoint="two", workdir=str(tmp_path / "both"))
    result = similarity.run_cka(both)
    assert result["second"] == {"pattern": "A*3", "seed": 2, "trained": True}
    loaded.clear()  # Results are read from the finished workdir, without the encoders.
    assert similarity.run_cka(both) == result
    with pytest.raises(InputError, match="seed: 3 there, 4 asked for"):
        similarity.run_cka(both.replace(seed=4))


# === References and intervals ===


def test_every_similarity_has_its_references(first):
    second, other_seed = subject("A*3"), subject(seed=4)  # The same seed gives equal embeddings.
    config = CONFIG.replace(
        num_examples=60, batch_size=6, references=("shuffled", "other_sample", "untrained")
    )
    result = similarity.compare(first, second, rows(130), config, other_seed)
    references = result["references"]
    assert set(references) == {"shuffled", "other_sample", "untrained", "other_seed"}
    assert result["absent_references"] == {}
    assert references["untrained"]["second"] == {"pattern": "A*3", "seed": 3, "trained": False}
    assert references["other_seed"]["second"] == {"pattern": "(AI)*2", "seed": 4, "trained": True}
    assert references["other_seed"]["second_taps"] == result["first_taps"]
    shape = np.shape(result["matrix"])
    for name in ("shuffled", "other_sample", "untrained"):
        assert np.shape(references[name]["matrix"]) == shape
    assert np.abs(references["shuffled"]["matrix"]).max() < 0.2
    assert result["matrix"][0][0] == pytest.approx(1)
    assert not np.allclose(references["other_sample"]["matrix"], result["matrix"], atol=1e-3)
    np.testing.assert_allclose(references["other_sample"]["matrix"], result["matrix"], atol=0.3)
    low, high = np.array(result["low"]), np.array(result["high"])
    assert (
        np.all(low < high) and np.mean((low < result["matrix"]) & (result["matrix"] < high)) > 0.9
    )
    for name, encoder in (("within_first", first), ("within_second", second)):
        alone = similarity.compare(encoder, encoder, rows(130), config)
        np.testing.assert_allclose(result[name], alone["matrix"], rtol=1e-9)
    assert result["negative"] == np.sum(np.array(result["matrix"]) < 0)


def test_absent_references_have_reasons(first):
    config = CONFIG.replace(references=("untrained", "other_sample"))
    result = similarity.compare(first, first.untrained_twin(1), rows(), config)
    assert result["references"] == {}
    assert result["absent_references"] == {
        "untrained": "the second encoder is untrained itself",
        "other_seed": "no other_seed_checkpoint was given",
        "other_sample": "the split has too few rows beside those of the sample",
    }
    assert result["low"] is None  # One minibatch has no spread.


def test_another_sample_has_no_row_of_the_first():
    many = Rows([str(i) for i in range(30)])
    chosen, others = similarity._samples(many, CONFIG.replace(num_examples=12))
    assert len(chosen) == len(others) == 12
    assert not set(chosen.first) & set(others.first)
    assert similarity._samples(many, CONFIG.replace(num_examples=25))[1] is None


def test_tokens_of_the_highest_norm_are_left_out(first):
    loud = subject()
    table = loud.encoder.embeddings.layer_norm.weights[0]
    table.assign(np.asarray(table) * 3)
    result = similarity.compare(loud, first, rows(), CONFIG.replace(high_norm_share=0.1))
    without = result["without_high_norm"]
    assert (without["tokens"], without["share"], result["tokens"]) == (108, 0.1, 120)
    mine, others = activations(loud, CONFIG), activations(first, CONFIG)
    score = np.max(
        [
            np.linalg.norm(x, axis=1) / np.median(np.linalg.norm(x, axis=1))
            for x in map(np.float64, (*mine.values(), *others.values()))
        ],
        axis=0,
    )
    kept = np.sort(np.argsort(score)[:108])
    expected = linear_cka(
        mine["block_01/attention"][kept], others["block_00/attention"][kept], True
    )
    row = result["first_taps"].index("block_01/attention")
    column = result["second_taps"].index("block_00/attention")
    assert without["matrix"][row][column] == pytest.approx(expected, rel=1e-5)
    assert similarity.compare(loud, first, rows(), CONFIG.replace(high_norm_share=0.0))[
        "without_high_norm"
    ] is None  # fmt: skip


# === Other measures, kernels, estimators ===


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel": "rbf"},
        {"kernel": "rbf", "estimator": "biased"},
        {"estimator": "biased"},
        {"estimator": "debiased"},
    ],
)
def test_kernels_and_estimators(first, changes):
    second = subject("A", seed=2)
    result = similarity.compare(first, second, rows(), CONFIG.replace(batch_size=8, **changes))
    x, y = (activations(s, CONFIG)["block_00/attention"] for s in (first, second))
    row = result["first_taps"].index("block_00/attention")
    found = result["matrix"][row][1]
    biased = changes.get("estimator") == "biased"
    if changes.get("kernel") == "rbf":
        expected = cka(gram_rbf(x, 0.5), gram_rbf(y, 0.5), debiased=not biased)
        assert "RBF (0.5 of the median distance)" in result["estimator"]
    else:
        expected = linear_cka(x, y, debiased=not biased)
    whole = "estimator" in changes
    assert found == pytest.approx(expected, rel=1e-5 if whole else 0.5)
    assert ("whole sample" in result["estimator"]) == whole
    assert result["low"] is None


@pytest.mark.parametrize("measure", measures.MEASURES)
def test_other_measures_through_the_same_call(first, measure):
    second = subject("A", seed=2)
    result = similarity.compare(first, second, rows(), CONFIG.replace(measure=measure))
    x, y = (activations(s, CONFIG)["block_00/attention"] for s in (first, second))
    row = result["first_taps"].index("block_00/attention")
    expected = measures.MEASURES[measure](x, y)
    assert result["matrix"][row][1] == pytest.approx(expected, rel=1e-6)
    assert (result["measure"], result["is_distance"]) == (measure, measure == "procrustes")
    assert measures.MEASURES[measure].label in result["estimator"]
    shuffled = result["references"]["shuffled"]["matrix"][row][1]
    assert (shuffled > expected) == (measure == "procrustes")


def test_too_large_a_whole_sample_is_refused(first, monkeypatch):
    monkeypatch.setattr(comparisons, "_MAX_BYTES", 1000)
    with pytest.raises(InputError, match="Gram matrices of 120 x 120 tokens take more .*minibatch"):
        similarity.compare(first, first, rows(), CONFIG.replace(kernel="rbf", estimator="debiased"))


def test_contradictory_configs_are_refused():
    with pytest.raises(InputError, match="references must be one of shuffled, .*, got 'others'"):
        CkaConfig(references=("others",))
    with pytest.raises(InputError, match="kernel and estimator belong to cka, the measure is rsa"):
        CkaConfig(measure="rsa", kernel="rbf")


# === Words ===


def test_words_make_encoders_of_different_vocabularies_comparable(first):
    longer = subject(pieces=(*PIECES[:5], "cd", *PIECES[5:]), seed=2)
    texts = Rows([f"{text} cd, {text}" for text in rows().first])
    config = CONFIG.replace(unit="words", max_seq_length=16, batch_size=10)
    result = similarity.compare(first, longer, texts, config)
    assert (result["unit"], result["tokens"]) == ("words", 120)
    assert "whole words" in result["estimator"]
    assert result["unseen_words"] > 0  # Some texts are longer than sixteen pieces.
    same = similarity.compare(first, first, texts, config)
    np.testing.assert_allclose(np.diag(same["matrix"]), 1, rtol=FLOAT32)
    with pytest.raises(InputError, match="this one has pairs"):
        similarity.compare(first, longer, Rows(texts.first, texts.first), config)


# === The cache ===


def test_cached_activations_are_read_again(first, tmp_path, monkeypatch):
    config = CONFIG.replace(cache_dir=str(tmp_path), batch_size=16)
    second = subject("A*3", seed=2)
    fresh = similarity.compare(first, second, rows(), CONFIG.replace(batch_size=16))
    made = similarity.compare(first, second, rows(), config)
    assert made == fresh
    assert len(list(tmp_path.iterdir())) == 2
    forward = taps.token_activations
    monkeypatch.setattr(taps, "token_activations", None)
    assert similarity.compare(first, second, rows(), config) == fresh
    monkeypatch.setattr(taps, "token_activations", forward)
    weight = second.encoder.weights[0]
    weight.assign(np.asarray(weight) * 2)
    similarity.compare(first, second, rows(), config)
    assert len(list(tmp_path.iterdir())) == 3  # The weights are others.
    itself = similarity.compare(first, first, rows(20), config.replace(seed=4))
    assert len(list(tmp_path.iterdir())) == 4  # Another draw; one of two equal streams is written.
    np.testing.assert_allclose(np.diag(itself["matrix"]), 1, rtol=FLOAT32)


def test_an_unfinished_stream_is_not_cached(tmp_path):
    def make():
        yield {"a": np.ones(3)}
        yield {"a": np.zeros(3)}

    stream = activation_cache.cached(str(tmp_path), {"key": 1}, make)
    next(stream)
    stream.close()
    assert list(tmp_path.iterdir()) == []
    written = list(activation_cache.cached(str(tmp_path), {"key": 1}, make))
    read = list(activation_cache.cached(str(tmp_path), {"key": 1}, None))
    assert [list(batch) for batch in read] == [["a"], ["a"]]
    for mine, theirs in zip(written, read, strict=True):
        np.testing.assert_array_equal(mine["a"], theirs["a"])
