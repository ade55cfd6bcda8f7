import numpy as np
import pytest
from small import PIECES, subject

from undivided_tf.analysis import structural
from undivided_tf.analysis.config import StructuralConfig
from undivided_tf.data.tasks.treebank import Sentence
from undivided_tf.errors import InputError

CONFIG = StructuralConfig(
    probe_rank=6, max_train_sentences=0, max_seq_length=16, batch_size=16, num_epochs=30,
    learning_rate=0.03, max_test_sentences=0,
)  # fmt: skip


def sentences(count, seed, longest=9):
    """The head of letters up to d is the first word, the root; of others, the word before."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        n = int(rng.integers(5, longest))
        words = tuple(rng.choice(list(PIECES[5:]), n))
        heads = (-1, *(0 if words[i] <= "d" else i - 1 for i in range(1, n)))
        tags = tuple("PUNCT" if i == n - 1 else "NOUN" for i in range(n))
        found.append(Sentence(words, tags, heads, ("r",) * n, ({},) * n))
    return found


def splits():
    return {"train": sentences(120, 0), "validation": sentences(30, 1), "test": sentences(40, 2)}


def test_a_linear_view_that_holds_the_tree_is_learnt():
    # A word is the path from the root, so squared distances are those in the tree.
    def trees(found):
        width, rows = 9, []
        for sentence in found:
            paths = np.zeros((len(sentence), width))
            for word in np.argsort(sentence.depths, kind="stable"):
                if sentence.heads[word] >= 0:
                    paths[word] = paths[sentence.heads[word]]
                    paths[word, word] = 1
            rows.append(paths)
        noise = np.random.default_rng(5).normal(size=(2, sum(map(len, rows)), width))
        rotation, _ = np.linalg.qr(np.random.default_rng(6).normal(size=(width, width)))
        first = np.concatenate(rows) @ rotation
        return structural._Trees(
            np.stack([first, noise[0]]).astype("f"), np.cumsum([0, *map(len, found)]),
            [s.distances for s in found],
            [np.flatnonzero(np.array(s.tags) != "PUNCT") for s in found],
        )  # fmt: skip

    data = {split: trees(found) for split, found in splits().items()}
    views, epochs = structural._train(data, CONFIG.replace(probe_rank=9), "test")
    scores = structural._scores(views, data["test"])
    assert scores["uuas"][0] > 0.9 > 0.7 > scores["uuas"][1]
    assert scores["spearman"][0] > 0.9 > 0.5 > scores["spearman"][1]
    assert len(epochs) == 2 and 1 <= min(epochs) <= max(epochs) <= 30


def test_every_tap_is_scored_and_compared_with_its_baselines():
    seen = subject()
    result = structural.probe_structure(seen, splits(), CONFIG.replace(num_epochs=2))
    assert result["taps"] == list(seen.encoder.config.pattern.tap_names)
    for key in ("uuas", "spearman", "untrained_uuas", "untrained_spearman", "epochs"):
        assert len(result[key]) == 4
    assert result["rows"] == {"train": 120, "validation": 30, "test": 40}
    assert 0 < result["chain_uuas"] < 1 and 0 < result["chain_spearman"] < 1
    again = structural.probe_structure(seen, splits(), CONFIG.replace(num_epochs=2))
    assert again["uuas"] == result["uuas"]


def test_sentences_that_are_cut_off_are_left_out_and_counted():
    config = CONFIG.replace(num_epochs=1, max_seq_length=9, max_test_sentences=20)
    result = structural.probe_structure(subject(), splits(), config)
    long = sum(len(sentence) > 7 for sentence in splits()["train"])
    assert result["left_out"]["train"] == long > 0
    assert result["rows"]["train"] == 120 - long
    assert result["rows"]["test"] + result["left_out"]["test"] == 20
    with pytest.raises(InputError, match="probe_rank 9 is more than the hidden size 8"):
        structural.probe_structure(subject(), splits(), CONFIG.replace(probe_rank=9))
    with pytest.raises(InputError, match="train: no sentence of two words or more"):
        structural.probe_structure(subject(), splits(), CONFIG.replace(max_seq_length=4))
