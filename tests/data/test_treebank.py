import numpy as np
import pytest
from treebank_text import SENTENCE, write

from undivided_tf.data.tasks import treebank
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
        (("0\troot", "4\troot"), "conllu:10: sentence 2: 0 roots; a tree has one"),
        (("4\taux", "0\taux"), "conllu:10: sentence 2: 2 roots"),
        (
            ("4\taux", "9\taux"),
            "conllu:13: sentence 2: 'do' has the head 9, which is no word of the",
        ),
        (("4\taux", "3\taux"), "conllu:10: sentence 2: its heads form a cycle"),
        (("4\taux", "_\taux"), r"conllu:13: sentence 2: 'do' has no head \(_\)"),
        (("1\tDogs\tdog", "1 Dogs dog"), "conllu:11: sentence 2: 8 columns, but CoNLL-U has 10"),
        (("4\taux", "x\taux"), "conllu:10: sentence 2: .*'x' is not a valid"),
    ],
)
def test_invalid_trees_are_refused(tmp_path, change, message):
    folder = write(tmp_path, SENTENCE + SENTENCE.replace(*change))
    with pytest.raises(InputError, match=message):
        treebank.read(folder, "train")


def test_a_split_needs_exactly_one_file(tmp_path):
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


def test_ids_out_of_order_are_refused(tmp_path):
    text = "".join(
        f"{i}\tw\tw\tX\t_\t_\t{head}\tdep\t_\t_\n" for i, head in ((2, 3), (3, 0), (4, 2))
    )
    with pytest.raises(InputError, match="train.conllu:1: sentence 1: id 2 instead of 1"):
        treebank.read(write(tmp_path, text), "train")
    twice = SENTENCE + SENTENCE.replace("3\tn't", "2\tn't")
    with pytest.raises(InputError, match="dev.conllu:14: sentence 2: id 2 instead of 3"):
        treebank.read(write(tmp_path, twice, "dev"), "validation")


def test_a_long_chain_is_not_a_cycle(tmp_path):
    n = 1200
    rows = [f"{i}\tw\tw\tX\t_\t_\t{(i + 1) % (n + 1)}\tdep\t_\t_\n" for i in range(1, n + 1)]
    (found,) = treebank.read(write(tmp_path, "".join(rows)), "train")
    assert found.depths.tolist() == list(range(n - 1, -1, -1))
    assert found.distances[0, n - 1] == n - 1


def test_a_byte_order_mark_comments_and_line_endings_of_windows(tmp_path):
    text = "# a file\n\n" + SENTENCE
    plain = treebank.read(write(tmp_path, SENTENCE), "train")
    folder = write(tmp_path, "\ufeff" + text.replace("\n", "\r\n"), "dev")
    assert treebank.read(folder, "validation") == plain
    with pytest.raises(InputError, match="test.conllu: has no sentences"):
        treebank.read(write(tmp_path, "# nothing\n\n", "test"), "test")


def test_a_damaged_or_foreign_file_is_named(tmp_path):
    folder = write(tmp_path, SENTENCE * 20, packed=True)
    path = tmp_path / "xx_toy-ud-train.conllu.gz"
    content = bytearray(path.read_bytes())
    content[40] ^= 0xFF
    content[41] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match="train.conllu.gz: damaged: "):
        treebank.read(folder, "train")
    (tmp_path / "xx_toy-ud-dev.conllu").write_bytes(SENTENCE.encode("utf-16-le"))
    with pytest.raises(InputError, match="dev.conllu:1: a NUL byte"):
        treebank.read(folder, "validation")
    (tmp_path / "xx_toy-ud-test.CONLLU").write_bytes(
        SENTENCE.replace("\tDogs", "\tD\xf6gs").encode("latin-1")
    )
    with pytest.raises(InputError, match="test.CONLLU:2: not UTF-8"):
        treebank.read(folder, "test")
