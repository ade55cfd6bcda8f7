import numpy as np
import pytest
from treebank_text import SENTENCE, write

from undivided_tf.data import treebank
from undivided_tf.errors import InputError


@pytest.mark.parametrize("packed", [False, True])
def test_words_and_trees(tmp_path, packed):
    (found,) = treebank.read(write(tmp_path, SENTENCE, packed=packed), "train")
    assert found.words == ("Dogs", "do", "n't", "bark", ".")
    assert found.tags == ("NOUN", "AUX", "PART", "VERB", "PUNCT")
    assert found.heads == (3, 3, 1, -1, 3) and found.root == 3
    assert found.relations == ("nsubj", "aux", "advmod", "root", "punct")
    assert found.features[0] == {"Number": "Plur"} and found.features[1] == {}
    assert found.depths.tolist() == [1, 1, 2, 0, 1]
    assert found.distances.tolist() == [
        [0, 2, 3, 1, 2], [2, 0, 1, 1, 2], [3, 1, 0, 2, 3], [1, 1, 2, 0, 1], [2, 2, 3, 1, 0],
    ]  # fmt: skip


def test_distances_agree_with_shortest_paths():
    rng = np.random.default_rng(0)
    n = 12
    order = rng.permutation(n)
    heads = [0] * n
    for i, word in enumerate(order):
        heads[word] = -1 if i == 0 else int(order[rng.integers(i)])
    tree = treebank.Sentence(("w",) * n, ("X",) * n, tuple(heads), ("r",) * n, ({},) * n)
    steps = np.full((n, n), np.inf)
    np.fill_diagonal(steps, 0)
    for word, head in enumerate(heads):
        if head >= 0:
            steps[word, head] = steps[head, word] = 1
    for middle in range(n):  # Floyd and Warshall.
        steps = np.minimum(steps, steps[:, [middle]] + steps[[middle]])
    np.testing.assert_array_equal(tree.distances, steps)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("0\troot", "4\troot"), "sentence 2: .*no tree with one root"),
        (("4\taux", "0\taux"), "sentence 2: .*no tree with one root"),
        (("4\taux", "9\taux"), "sentence 2: .*no tree with one root"),
        (("4\taux", "3\taux"), "sentence 2: its heads form a circle"),
        (("1\tDogs\tdog", "1 Dogs dog"), "sentence 2: "),
    ],
)
def test_what_is_no_tree_is_named(tmp_path, change, message):
    folder = write(tmp_path, SENTENCE + SENTENCE.replace(*change))
    with pytest.raises(InputError, match=message):
        treebank.read(folder, "train")


def test_the_file_must_be_there_once(tmp_path):
    with pytest.raises(InputError, match="one file .*-ud-dev.conllu .or .gz. is needed, .* are 0"):
        treebank.read(str(tmp_path), "validation")
    write(tmp_path, SENTENCE, "test"), write(tmp_path, SENTENCE, "test", packed=True)
    with pytest.raises(InputError, match="there are 2"):
        treebank.read(str(tmp_path), "test")


def test_the_english_web_treebank(shared_data):
    counts = {
        split: (len(found), sum(map(len, found)))
        for split in ("validation", "test")
        for found in [treebank.read(str(shared_data / "ud"), split)]
    }
    assert counts == {"validation": (2001, 25147), "test": (2077, 25094)}
