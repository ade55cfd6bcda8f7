import numpy as np
import pytest
import scipy.stats
from small import subject

from undivided_tf.analysis import blimp, masked_lm, subjects
from undivided_tf.analysis.config import BlimpConfig
from undivided_tf.data.tasks.blimp import Paradigm
from undivided_tf.errors import InputError
from undivided_tf.models.pretrainer import Pretrainer

CONFIG = BlimpConfig(max_pairs=0, max_seq_length=8, batch_size=7)
PAIRS = tuple((f"{a} b {c}", f"{c} b {a}") for a in "abcdefgh" for c in "fgh" if a != c)
PARADIGMS = [
    Paradigm("one", "agreement", "syntax", PAIRS),
    Paradigm("two", "agreement", "syntax", PAIRS[:5]),
    Paradigm("three", "binding", "syntax", (("a b c d e f g", "a b"), ("a", "h g"))),
]


def test_pairs_are_scored_by_their_pseudo_log_likelihoods():
    seen = subject()
    model = Pretrainer(seen.encoder)
    result = blimp.score(seen, model, PARADIGMS, CONFIG)

    def likelihoods(sentences):
        return masked_lm.pseudo_log_likelihoods(
            model, seen, sentences, batch_size=50, max_seq_length=8
        )

    good, bad = (likelihoods([pair[side] for pair in PAIRS]) for side in (0, 1))
    right = int((good > bad).sum())
    assert 0 < right < len(PAIRS)
    one = result["paradigms"]["one"]
    assert (one["accuracy"], one["pairs"]) == (right / len(PAIRS), len(PAIRS))
    interval = scipy.stats.binomtest(right, len(PAIRS)).proportion_ci(0.95, "wilson")
    assert (one["low"], one["high"]) == pytest.approx((interval.low, interval.high))
    both = result["phenomena"]["agreement"]
    assert both["pairs"] == len(PAIRS) + 5
    assert both["accuracy"] == pytest.approx((right + (good > bad)[:5].sum()) / both["pairs"])
    assert (result["left_out"], result["pairs"]) == (1, len(PAIRS) + 6)
    assert result["pairs_of_unequal_length"] == 1
    assert result["accuracy"] == pytest.approx(
        np.mean([of["accuracy"] for of in result["paradigms"].values()])
    )
    assert one["margin"] == pytest.approx((good - bad).mean(), rel=1e-5)
    assert result["margin"] == pytest.approx(
        np.mean([of["margin"] for of in result["paradigms"].values()])
    )


def test_some_pairs_of_each_paradigm():
    seen = subject()
    result = blimp.score(seen, Pretrainer(seen.encoder), PARADIGMS, CONFIG.replace(max_pairs=4))
    assert [of["pairs"] for of in result["paradigms"].values()] == [4, 4, 1]


def test_without_a_head_nothing_can_be_scored(monkeypatch, tmp_path):
    monkeypatch.setattr(subjects, "load", lambda path: subject())
    monkeypatch.setattr(masked_lm, "load_head", lambda *_: None)
    config = CONFIG.replace(init_checkpoint="minilm", workdir=str(tmp_path / "work"))
    with pytest.raises(InputError, match="minilm has no masked-language-model head"):
        blimp.run_blimp(config)
    assert not (tmp_path / "work").exists()


def test_pairs_of_equal_sentences_are_left_out_and_ties_count_one_half():
    seen = subject()
    model = Pretrainer(seen.encoder)
    same = Paradigm("same", "agreement", "syntax", (("a b", "a b"),) * 3)
    # Upper case and unknown words: the encoder sees the same pieces.
    tied = Paradigm("tied", "binding", "syntax", (("a b c", "A b c"), ("x a", "y a"), PAIRS[0]))
    result = blimp.score(seen, model, [same, tied, *PARADIGMS[1:2]], CONFIG)
    assert (result["equal_sentences"], result["ties"], result["left_out"]) == (3, 2, 0)
    assert result["paradigms"]["same"] == {
        "phenomenon": "agreement", "accuracy": None, "low": None, "high": None, "pairs": 0,
        "margin": None,
    }  # fmt: skip
    alone = blimp.score(seen, model, [Paradigm("one", "binding", "syntax", PAIRS[:1])], CONFIG)
    of = result["paradigms"]["tied"]
    assert (of["accuracy"], of["pairs"]) == ((1 + alone["accuracy"]) / 3, 3)
    assert 0 < of["low"] < of["accuracy"] < of["high"] < 1


def test_likelihoods_that_are_not_finite_are_refused(monkeypatch):
    seen = subject()
    monkeypatch.setattr(
        masked_lm, "pseudo_log_likelihoods", lambda *a, **k: np.full(2 * len(PAIRS), np.nan)
    )
    with pytest.raises(InputError, match="21 of 21 pairs have a pseudo-log-likelihood that is not"):
        blimp.score(seen, Pretrainer(seen.encoder), PARADIGMS[:1], CONFIG)
