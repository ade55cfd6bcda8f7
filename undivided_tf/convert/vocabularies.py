"""Vocabulary and casing of a Hugging Face folder."""

import pathlib
from typing import Any

from absl import logging

from undivided_tf.convert.tensor_files import read_object
from undivided_tf.errors import InputError
from undivided_tf.tokenization import Tokenizer


def read_tokenizer(folder: pathlib.Path) -> Tokenizer:
    """Vocabulary and casing of a folder.

    The vocabulary is vocab.txt, else that of tokenizer.json; the casing stands in
    tokenizer_config.json or tokenizer.json, else the vocabulary tells it (`tells_lower_case`).

    Raises:
        InputError: no vocabulary, or one that is no WordPiece vocabulary.
    """
    told = _optional(folder / "tokenizer_config.json")
    whole = _optional(folder / "tokenizer.json")
    if (folder / "vocab.txt").exists():
        vocabulary: Any = folder / "vocab.txt"
        pieces = Tokenizer(vocabulary).vocabulary
    else:
        vocabulary = pieces = _pieces(whole, folder)
    normalizer = whole.get("normalizer")
    normalizer = normalizer if isinstance(normalizer, dict) else {}
    lower = told.get("do_lower_case", normalizer.get("lowercase"))
    if lower is None:
        lower = tells_lower_case(pieces)
    if not isinstance(lower, bool):
        raise InputError(f"{folder}: do_lower_case is {lower!r}, expected true or false")
    strips = told.get("strip_accents", normalizer.get("strip_accents"))
    if strips is not None and strips != lower:
        logging.warning(
            "%s: strip_accents %s with do_lower_case %s; our tokenizer does both or neither, so "
            "accented words are cut differently",
            folder, strips, lower,
        )  # fmt: skip
    return Tokenizer(vocabulary, lower)


def tells_lower_case(pieces: tuple[str, ...]) -> bool:
    """Whether no word piece has a capital letter; `[unused1]` and its like do not count."""
    words = (piece for piece in pieces if not (piece.startswith("[") and piece.endswith("]")))
    return all(piece == piece.lower() for piece in words)


def _optional(path: pathlib.Path) -> dict[str, Any]:
    return read_object(path) if path.exists() else {}


def _pieces(whole: dict[str, Any], folder: pathlib.Path) -> tuple[str, ...]:
    model = whole.get("model")
    model = model if isinstance(model, dict) else {}
    ids = model.get("vocab")
    if model.get("type", "WordPiece") != "WordPiece" or not isinstance(ids, dict):
        raise InputError(f"{folder} has neither vocab.txt nor a WordPiece tokenizer.json")
    if {*ids.values()} != {*range(len(ids))}:
        raise InputError(f"{folder}/tokenizer.json: the ids of the vocabulary leave gaps")
    return tuple(sorted(ids, key=ids.get))
