import subprocess
import sys

import pytest

from undivided_tf.data import sample
from undivided_tf.data.corpus import vocabulary_training
from undivided_tf.data.corpus.vocabulary_training import train_vocabulary
from undivided_tf.errors import InputError
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer


def test_trained_vocabulary_knows_every_character_of_its_text():
    lines = ["\u00bd Stra\u00dfe \ufb01ne \u03c3\u03cc\u03c2 \u2026 caf\u00e9 \u0130z \u65e5\u672c"]
    tokenizer = Tokenizer(train_vocabulary(lines, 200))
    assert tokenizer.unk_id not in tokenizer.tokenize(lines).flat_values.numpy()


def test_training_is_the_same_in_another_process():
    lines = [document.text for document in list(sample.read_train_articles())[:30]]
    code = (
        "from undivided_tf.data.corpus.vocabulary_training import train_vocabulary\n"
        f"print(*train_vocabulary({lines!r}, 150), end='')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(" ") == train_vocabulary(lines, 150)


def test_vocabulary_size_and_order():
    lines = ["low lower lowest", "new newer newest"] * 5
    vocabulary = train_vocabulary(lines, 30)
    assert vocabulary[:5] == list(SPECIAL_TOKENS) and len(vocabulary) <= 30
    assert {"low", "new"} <= set(vocabulary)
    with pytest.raises(InputError, match="vocab_size 10 is too small: .* take 19"):
        train_vocabulary(lines, 10)


def test_frequent_words_may_be_cut_into_several_texts(monkeypatch):
    lines = ["low lower lowest", "new newer newest"] * 5
    whole = train_vocabulary(lines, 30)
    monkeypatch.setattr(vocabulary_training, "_MAX_REPEATS", 2)
    assert train_vocabulary(lines, 30) == whole


def test_rare_characters_beyond_the_limit_get_no_piece():
    vocabulary = train_vocabulary(["aaa bbb ab", "\u65e5"], 40, limit_alphabet=2)
    assert "a" in vocabulary and "b" in vocabulary and "\u65e5" not in vocabulary
