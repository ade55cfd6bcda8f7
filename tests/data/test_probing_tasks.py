import zipfile

import numpy as np
import pytest
from treebank_text import SENTENCE, write

from undivided_tf.data.tasks.probing_tasks import load_probing_task, load_sentence_task
from undivided_tf.data.tasks.sentence_archives import ARCHIVES
from undivided_tf.data.tasks.treebank_tasks import WORD_TASKS, WordRows
from undivided_tf.errors import InputError

OTHER = """1\tShe\tshe\tPRON\t_\tNumber=Sing\t2\tnsubj\t_\t_
2\tsaw\tsee\tVERB\t_\tTense=Past|VerbForm=Fin\t0\troot\t_\t_
3\tbirds\tbird\tNOUN\t_\tNumber=Plur\t2\tobj\t_\t_

"""

# Six words; the head of each is the word before it, and the second is an object.
CHAIN = "".join(
    f"{i}\t{word}\t{word}\tNOUN\t_\tNumber=Sing\t{i - 1}\t{'obj' if i == 2 else 'dep'}\t_\t_\n"
    for i, word in enumerate("abcdef", 1)
)


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "dev", "test"):
        write(tmp_path, SENTENCE + OTHER, split)
    return str(tmp_path)


def words(folder, task):
    found = load_probing_task(f"ud:{task}:{folder}")
    rows = found.read("train")
    items = [
        (*(rows.sentences[s][p] for p in places), found.labels[label])
        for s, places, label in zip(rows.sentence, rows.places, rows.labels, strict=True)
    ]
    return found, items


def texts(folder, task):
    found = load_probing_task(f"ud:{task}:{folder}")
    rows = found.read("train")
    return [(text, found.labels[i]) for text, i in zip(rows.first, rows.labels, strict=True)]


def test_labels_of_words(folder):
    task, tags = words(folder, "pos")
    assert task.name == "ud_pos" and tags[:2] == [("Dogs", "NOUN"), ("do", "AUX")]
    assert words(folder, "relation")[1][2] == ("n't", "advmod")
    assert dict(words(folder, "head_distance")[1]) == {
        "Dogs": "+3", "do": "+2", "n't": "-1", "bark": "root", ".": "-1", "She": "+1",
        "saw": "root", "birds": "-1",
    }  # fmt: skip


def test_negative_arcs_join_words_without_an_edge(folder):
    _, arcs = words(folder, "arc")
    heads = [(word, head) for word, head, label in arcs if label == "head"]
    assert ("Dogs", "bark") in heads and ("n't", "do") in heads and len(heads) == len(arcs) / 2
    # In the other sentence subject and object have no edge in either direction.
    assert {("She", "birds"), ("birds", "She")} <= {
        (word, other) for word, other, label in arcs if label == "other"
    }
    tree = {frozenset(pair) for pair in heads}
    assert not tree & {frozenset(arc[:2]) for arc in arcs if arc[2] == "other"}
    assert words(folder, "arc")[1] == arcs  # The draw is the same each time.


def test_labels_of_sentences(folder, tmp_path):
    both = ("Dogs do n't bark .", "She saw birds")
    write(tmp_path, SENTENCE + OTHER + CHAIN)
    chain = "a b c d e f"
    assert texts(folder, "length") == [(t, "up to 05") for t in both] + [(chain, "up to 10")]
    assert texts(folder, "depth") == [(t, "up to 02") for t in both] + [(chain, "up to 05")]
    assert texts(folder, "tense") == [(both[0], "Pres"), (both[1], "Past")]
    assert texts(folder, "subject_number") == [(both[0], "Plur"), (both[1], "Sing")]
    assert texts(folder, "object_number") == [(both[1], "Plur"), (chain, "Sing")]
    write(tmp_path, SENTENCE + OTHER)
    with pytest.raises(InputError, match="two labels in the training split, there: none"):
        texts(folder, "word_content")  # Each has two of the frequent words.
    write(tmp_path, SENTENCE * 20)
    shifted = texts(folder, "bigram_shift")
    assert len(shifted) == 20 and {label for _, label in shifted} == {"original", "shifted"}
    for text, label in shifted:
        assert sorted(text.split()) == sorted(both[0].split())
        assert (text == both[0]) == (label == "original")


def test_word_rows_can_be_picked_and_drawn():
    rows = WordRows(
        [("A", "b"), ("c",), ("b", "d", "e")], np.array([0, 0, 1, 2, 2, 2]),
        np.array([[0], [1], [0], [2], [1], [0]]), np.arange(6, dtype=np.int32),
    )  # fmt: skip
    assert rows.types == ["a", "b", "c", "e", "d", "b"]
    picked = rows.pick(np.array([2, 4]))
    assert picked.sentences == [("c",), ("b", "d", "e")] and picked.types == ["c", "d"]
    assert picked.labels.tolist() == [2, 4]
    few = rows.take(4, seed=0)
    assert len(few) == 4 and len(few.sentences) < 3 and rows.take(0, 0) is rows


def test_tasks_from_archives(tmp_path):
    with zipfile.ZipFile(tmp_path / "qc.zip", "w") as archive:
        archive.writestr(
            "qc/train.txt",
            "".join(f"{'NUM:date' if i else 'HUM:ind'} When {i} ?\n" for i in range(60)),
        )
        archive.writestr("qc/test.txt", "NUM:date Caf\xe9 ?\n".encode("latin-1"))
    task = load_probing_task(f"trec:{tmp_path}/qc.zip")
    assert task.labels == ("HUM", "NUM") and task.read("test").first == ["Caf\xe9 ?"]
    train, validation = task.read("train").first, task.read("validation").first
    assert len(train) + len(validation) == 60 and 1 <= len(validation) <= 14
    assert not set(train) & set(validation)
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for name in ("plot", "quote"):
            lines = "".join(f"{name} {i}\n" for i in range(100))
            archive.writestr(f"subjectivity/{name}.tok.gt9.5000", lines)
    task = load_probing_task(f"subjectivity:{tmp_path}/s.zip")
    splits = [task.read(split) for split in ("train", "validation", "test")]
    assert sum(map(len, splits)) == 200 and min(map(len, splits)) > 8
    for rows in splits:
        for text, label in zip(rows.first, rows.labels, strict=True):
            assert text.startswith(("plot", "quote")[label])


def test_unknown_tasks_and_invalid_archives_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="ud:TASK:FOLDER with one of pos, relation"):
        load_probing_task(f"ud:tags:{folder}")
    with pytest.raises(InputError, match="cannot be read"):
        load_probing_task(f"trec:{tmp_path}/none.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(InputError, match=r"one file \*train.txt is needed, there are 0"):
        load_probing_task(f"trec:{tmp_path}/empty.zip")
    assert load_probing_task("wiki_topic").name == "wiki_topic"
    assert set(ARCHIVES) == {"trec", "subjectivity"}


def test_tasks_of_texts_can_be_fine_tuned_and_tasks_of_words_cannot(folder):
    task = load_sentence_task(f"ud:tense:{folder}")
    assert (task.labels, task.is_pair) == (("Past", "Pres"), False)
    assert load_sentence_task("wiki_pair").is_pair
    for name in WORD_TASKS:
        with pytest.raises(InputError, match="is about single words.*bigram_shift"):
            load_sentence_task(f"ud:{name}:{folder}")


def test_tasks_of_the_english_web_treebank(shared_data):
    for task, least in (("pos", 20_000), ("tense", 400), ("bigram_shift", 1_000)):
        found = load_probing_task(f"ud:{task}:{shared_data / 'ud'}")
        assert len(found.read("test")) > least and len(found.labels) > 1


# === Labels that training lacks, and invalid files ===


def test_tags_that_training_lacks_are_left_out_and_counted(tmp_path, caplog):
    write(tmp_path, SENTENCE + OTHER, "train"), write(tmp_path, SENTENCE, "test")
    write(tmp_path, OTHER.replace("PRON", "PROPN"), "dev")
    task = load_probing_task(f"ud:pos:{tmp_path}")
    rows = task.read("validation")
    assert [task.labels[i] for i in rows.labels] == ["VERB", "NOUN"]
    assert "validation: 1 of 3 items left out, since training lacks their labels: PROPN" in (
        caplog.text
    )


def test_a_split_without_any_label_of_training_is_refused(tmp_path):
    write(tmp_path, SENTENCE, "train"), write(tmp_path, SENTENCE, "test")
    write(tmp_path, "1\tWow\twow\tINTJ\t_\tTense=Fut|VerbForm=Fin\t0\troot\t_\t_\n", "dev")
    message = "validation: none of its 1 items has a label .* there: INTJ; in training: AUX"
    with pytest.raises(InputError, match=message):
        load_probing_task(f"ud:pos:{tmp_path}").read("validation")
    with pytest.raises(
        InputError, match="ud:tense.* two labels in the training split, there: Pres"
    ):
        load_probing_task(f"ud:tense:{tmp_path}")


def test_an_empty_train_split_of_a_treebank_is_named(tmp_path):
    for split in ("train", "dev", "test"):
        write(tmp_path, "" if split == "train" else SENTENCE, split)
    for task in ("pos", "head_distance", "depth"):
        with pytest.raises(InputError, match="train.conllu: has no sentences"):
            load_probing_task(f"ud:{task}:{tmp_path}").read("train")


def test_a_missing_annotation_is_not_a_class(tmp_path):
    for split in ("train", "dev", "test"):
        write(tmp_path, SENTENCE + OTHER.replace("PRON", "_"), split)
    with pytest.raises(InputError, match="ud:pos:.*, train: sentence 2 has a word without annot"):
        load_probing_task(f"ud:pos:{tmp_path}")
    assert len(load_probing_task(f"ud:relation:{tmp_path}").read("train")) == 8


def trec(folder, train, test):
    with zipfile.ZipFile(folder / "qc.zip", "w") as archive:
        archive.writestr("qc/train.txt", train)
        archive.writestr("qc/test.txt", test)
    return f"trec:{folder}/qc.zip"


TRAIN = "".join(f"{label} Is it {i} ?\n" for i in range(30) for label in ("NUM:count", "HUM:ind"))


def test_a_trec_label_that_only_the_test_split_has_is_left_out_and_counted(tmp_path, caplog):
    task = load_probing_task(trec(tmp_path, TRAIN, "NUM:count How many ?\nLOC:city Where ?\n"))
    assert task.read("test").first == ["How many ?"]
    assert "test: 1 of 2 items left out, since training lacks their labels: LOC" in caplog.text
    task = load_probing_task(trec(tmp_path, TRAIN, "LOC:city Where ?\n"))
    with pytest.raises(
        InputError, match="none of its 1 items .* there: LOC; in training: HUM, NUM"
    ):
        task.read("test")


@pytest.mark.parametrize("line", ["NUM", "NUM:count", "How many are there ?", ":count How many ?"])
def test_a_line_of_trec_without_label_or_question_is_named(tmp_path, line):
    with pytest.raises(InputError, match=r"qc.zip/qc/train.txt:61: .* is not a COARSE:fine label"):
        load_probing_task(trec(tmp_path, f"{TRAIN}{line}\n", "NUM:count How many ?\n"))


def test_an_archive_of_questions_with_flipped_bytes_is_named(tmp_path):
    name = trec(tmp_path, TRAIN, "NUM:count How many ?\n")
    content = bytearray((tmp_path / "qc.zip").read_bytes())
    content[60] ^= 0xFF
    (tmp_path / "qc.zip").write_bytes(content)
    with pytest.raises(InputError, match="qc.zip/qc/train.txt: damaged: Bad CRC-32"):
        load_probing_task(name)
