"""Reads vocabulary and casing of other formats; refuses options that our tokenizer lacks."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from absl import logging

from undivided_tf.convert.tensor_files import read_object
from undivided_tf.errors import InputError
from undivided_tf.tokenization import (
    SPECIAL_TOKENS,
    Tokenizer,
    pieces_with_capitals,
    read_vocabulary,
)

VOCABULARY = "vocab.txt"
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_JSON = "tokenizer.json"
ADDED_TOKENS = "added_tokens.json"
# Classes of `transformers` that split text like BertTokenizer.
_CLASSES = tuple(
    f"{model}Tokenizer{kind}"
    for model in ("Bert", "DistilBert", "Electra", "MobileBert")
    for kind in ("", "Fast")
)
# Generic classes, which tokenizer.json configures.
_GENERIC_CLASSES = ("PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend")
# Options, and their values that are equivalent to our tokenizer; missing and null are defaults.
_CONFIG_OPTIONS = {
    "tokenize_chinese_chars": (True,),
    "do_basic_tokenize": (True,),
    "word_tokenizer_type": ("basic",),
    "subword_tokenizer_type": ("wordpiece",),
    **{f"{token[1:-1].lower()}_token": (token,) for token in SPECIAL_TOKENS},
}
# By section of tokenizer.json.
_SECTION_OPTIONS = {
    "normalizer": {
        "type": ("BertNormalizer",),
        "clean_text": (True,),
        "handle_chinese_chars": (True,),
    },
    "pre_tokenizer": {"type": ("BertPreTokenizer",)},
    "model": {
        "type": ("WordPiece",),
        "unk_token": ("[UNK]",),
        "continuing_subword_prefix": ("##",),
        "max_input_chars_per_word": (100,),
    },
}
# Embeddings are padded to multiples of these numbers for the matrix units of GPUs.
_MULTIPLES = (8, 16, 32, 64, 128, 256, 512, 1024)


def read_tokenizer(
    folder: pathlib.Path, config: str, do_lower_case: bool | None = None
) -> Tokenizer:
    """Reads vocabulary and casing of a folder of Hugging Face or Google.

    The vocabulary is read from vocab.txt, or else from tokenizer.json. The first of these decides
    the casing: the argument `do_lower_case`; tokenizer_config.json, tokenizer.json or the config;
    the vocabulary (`guess_lower_case`). The log names the source of the decision.

    Args:
        folder: the checkpoint.
        config: name of its config file.
        do_lower_case: the casing, if the caller knows it.

    Raises:
        InputError: no WordPiece vocabulary, unknown casing, or an option that our tokenizer lacks;
            names the file and the option.
    """
    settings = _read_optional(folder / TOKENIZER_CONFIG)
    tokenizer_json = _read_optional(folder / TOKENIZER_JSON)
    for name in (TOKENIZER_CONFIG, config):
        _check_class(folder / name, _read_optional(folder / name), bool(tokenizer_json))
    require_options(folder / TOKENIZER_CONFIG, settings, _CONFIG_OPTIONS)
    _check_never_split(folder / TOKENIZER_CONFIG, settings)
    sections = {name: _section(tokenizer_json, name, folder) for name in _SECTION_OPTIONS}
    for name, options in _SECTION_OPTIONS.items():
        require_options(f"{folder / TOKENIZER_JSON}: {name}", sections[name], options)

    ids, normalizer = sections["model"].get("vocab"), sections["normalizer"]
    if (folder / VOCABULARY).exists():
        vocabulary: Any = folder / VOCABULARY
        pieces = read_vocabulary(vocabulary)
        if isinstance(ids, dict):
            _check_same(pieces, ids, folder)
    else:
        vocabulary = pieces = _pieces(ids, folder)
    declared = [
        (folder / TOKENIZER_CONFIG, settings.get("do_lower_case")),
        (folder / TOKENIZER_JSON, normalizer.get("lowercase")),
        (folder / config, _read_optional(folder / config).get("do_lower_case")),
    ]
    lower = _casing(pieces, declared, do_lower_case, folder)
    for name, options in ((TOKENIZER_CONFIG, settings), (TOKENIZER_JSON, normalizer)):
        strips = options.get("strip_accents")
        if strips is not None and strips is not lower:
            raise InputError(
                f"{folder / name}: strip_accents is {strips!r} with do_lower_case {lower}; our "
                "tokenizer does both or neither, so words with accents would be split into other "
                "pieces than in training. If the texts have no accents, remove the key"
            )
    return Tokenizer(vocabulary, lower)


def require_options(
    where: Any, options: Mapping[str, Any], supported: Mapping[str, tuple[Any, ...]]
) -> None:
    """Checks that the options of a tokenizer are equivalent to our tokenizer.

    Args:
        where: the file, for errors.
        options: options and their values; missing options and null mean the default.
        supported: for each option the values that are equivalent to our tokenizer.

    Raises:
        InputError: another value; names it and the supported value.
    """
    for key, values in supported.items():
        value = options.get(key)
        if isinstance(value, dict):  # The format of `transformers` for special tokens.
            value = value.get("content", value)
        if value is not None and not any(value is v or value == v for v in values):
            raise InputError(
                f"{where}: {key} is {value!r}; our tokenizer, which runs inside the TensorFlow "
                f"graph, has {key} {values[0]!r} only, so text would be split into other pieces "
                "than in training"
            )


def log_casing(declared: bool, given: bool | None, where: Any) -> bool:
    """Returns the given casing, or else the declared one; logs it with the reason."""
    lower = declared if given is None else given
    why = f"declared in {where}" if given is None else "as --do_lower_case says"
    logging.info("the vocabulary is %s, %s", "uncased" if lower else "cased", why)
    if given not in (None, declared):
        logging.warning("%s declares the opposite casing", where)
    return lower


def guess_lower_case(pieces: tuple[str, ...], where: Any) -> bool:
    """Whether a vocabulary is uncased, that is, no piece has a capital letter.

    Markers are ignored (`pieces_with_capitals`). If fewer than 1 % of the pieces have capitals, for
    example after words were added to an uncased vocabulary, the casing is unknown.

    Raises:
        InputError: the casing is unknown; shows pieces with capitals and the correction.
    """
    capital, number = pieces_with_capitals(pieces)
    shown = ", ".join(map(repr, capital[:5]))
    if 0 < len(capital) < number / 100:
        raise InputError(
            f"{where}: {len(capital)} of {number} word pieces have capitals ({shown}), too few "
            'for a cased vocabulary; declare the casing: "do_lower_case": true or false in '
            f"{TOKENIZER_CONFIG} beside it, or --do_lower_case of convert_checkpoint"
        )
    logging.info(
        "%s: no file declares the casing; the vocabulary is %s, since %d of its %d word pieces "
        "have capitals%s",
        where,
        "cased" if capital else "uncased",
        len(capital),
        number,
        f", such as {shown}" if capital else "",
    )
    return not capital


def embedding_rows(
    declared: int,
    table: tuple[int, ...],
    tokenizer: Tokenizer,
    path: pathlib.Path,
    is_confirmed: bool,
    key: str = "vocab_size",
) -> int:
    """The number of rows of the word embeddings, which may exceed the number of word pieces.

    Surplus rows are kept, so that a conversion back restores the original shapes; their ids occur
    in no text. They are accepted if the number of pieces, or of pieces and added tokens, was
    rounded up to a multiple of 8, 16, ... 1024; if each added token has a row; or if
    `is_confirmed`.

    Args:
        declared: `vocab_size` of the config.
        table: shape of the word embeddings, `()` if they are missing. If the weights were padded
            without a change of the config, their rows count.
        tokenizer: of the checkpoint.
        path: of the config.
        is_confirmed: whether a hash in the config confirms that the vocabulary belongs to the
            weights.
        key: name of `declared` in the format.

    Raises:
        InputError: surplus rows without such a reason, or fewer rows than word pieces.
    """
    rows = declared
    if table and table[0] != declared and _is_padded(table[0], declared):
        rows = table[0]
    pieces, added = tokenizer.vocab_size, _added_tokens(path.parent, tokenizer.vocab_size)
    with_added = max([pieces - 1, *added.values()]) + 1
    is_explained = rows in (pieces, with_added) or any(
        _is_padded(rows, count) for count in (pieces, with_added)
    )
    if rows < pieces or not (is_explained or is_confirmed):
        raise InputError(
            f"{path}: {key} is {rows}, but the vocabulary beside it has {pieces} word pieces: "
            "they belong to different models"
            + (
                f". Tokens that were added to the vocabulary must be in {ADDED_TOKENS}"
                if rows > pieces
                else ""
            )
        )
    if added:
        logging.warning(
            "%s: %d added tokens have ids beyond the vocabulary, such as %r; our tokenizer does "
            "not know them and splits them into word pieces",
            path.parent,
            len(added),
            next(iter(added)),
        )
    if rows > pieces:
        logging.info(
            "%s: %d embedding rows for %d word pieces; the %d surplus rows are kept, but no text "
            "has their ids",
            path.parent,
            rows,
            pieces,
            rows - pieces,
        )
    return rows


def _is_padded(rows: int, count: int) -> bool:
    return rows > count and any(rows == -(-count // m) * m for m in _MULTIPLES)


def _added_tokens(folder: pathlib.Path, pieces: int) -> dict[str, int]:
    """Tokens that `transformers` added to a vocabulary of `pieces` word pieces, with their ids."""
    added: dict[Any, Any] = dict(_read_optional(folder / ADDED_TOKENS))
    listed = _read_optional(folder / TOKENIZER_JSON).get("added_tokens")
    for token in listed if isinstance(listed, list) else []:
        if isinstance(token, dict):
            added[str(token.get("content"))] = token.get("id")
    numbered = _read_optional(folder / TOKENIZER_CONFIG).get("added_tokens_decoder")
    for index, token in numbered.items() if isinstance(numbered, dict) else ():
        if isinstance(token, dict) and re.fullmatch("[0-9]{1,9}", index):
            added[str(token.get("content"))] = int(index)
    return {token: i for token, i in added.items() if type(i) is int and i >= pieces}


def _casing(
    pieces: tuple[str, ...],
    declared: list[tuple[pathlib.Path, Any]],
    given: bool | None,
    folder: pathlib.Path,
) -> bool:
    values = [(path, value) for path, value in declared if value is not None]
    for path, value in values:
        if not isinstance(value, bool):
            raise InputError(f"{path}: do_lower_case is {value!r}, expected true or false")
    for path, value in values[1:]:
        if value != values[0][1]:
            logging.warning("%s declares another casing than %s", path, values[0][0])
    if values:
        return log_casing(values[0][1], given, values[0][0])
    if given is not None:
        return log_casing(given, given, folder)
    return guess_lower_case(pieces, folder)


def _check_class(path: pathlib.Path, settings: dict[str, Any], has_json: bool) -> None:
    name = settings.get("tokenizer_class")
    if name is None or name in _CLASSES or (name in _GENERIC_CLASSES and has_json):
        return
    raise InputError(
        f"{path}: tokenizer_class is {name!r}; known here: {', '.join(_CLASSES)}, and with a "
        f"{TOKENIZER_JSON} {', '.join(_GENERIC_CLASSES)}. Other classes split text differently"
    )


def _check_never_split(path: pathlib.Path, settings: dict[str, Any]) -> None:
    words = settings.get("never_split") or []
    if not isinstance(words, list) or any(word not in SPECIAL_TOKENS for word in words):
        raise InputError(
            f"{path}: never_split is {words!r}; our tokenizer splits every word at its "
            "punctuation, so these would be split into other pieces than in training"
        )


def _read_optional(path: pathlib.Path) -> dict[str, Any]:
    return read_object(path) if path.exists() else {}


def _section(tokenizer_json: dict[str, Any], key: str, folder: pathlib.Path) -> dict[str, Any]:
    """A section of tokenizer.json; null, a tokenizer without this step, is an error."""
    value = tokenizer_json.get(key, {})
    if not isinstance(value, dict):
        raise InputError(
            f"{folder / TOKENIZER_JSON}: {key} is {value!r}, expected that of a BERT tokenizer"
        )
    return value


def _pieces(ids: Any, folder: pathlib.Path) -> tuple[str, ...]:
    if not isinstance(ids, dict):
        raise InputError(f"{folder} has neither {VOCABULARY} nor a WordPiece {TOKENIZER_JSON}")
    if {*map(repr, ids.values())} != {*map(repr, range(len(ids)))}:
        raise InputError(f"{folder / TOKENIZER_JSON}: the ids of the vocabulary leave gaps")
    return tuple(sorted(ids, key=ids.get))


def _check_same(pieces: tuple[str, ...], ids: dict[str, Any], folder: pathlib.Path) -> None:
    """Checks that vocab.txt and tokenizer.json have the same vocabulary.

    White space around a piece is ignored, since some tools strip it when they read vocab.txt.
    """
    for piece, index in ids.items():
        if not piece.strip():
            continue  # An empty line of vocab.txt, which must have been replaced by a piece.
        inside = type(index) is int and 0 <= index < len(pieces)
        if not inside or pieces[index].strip() != piece.strip():
            other = repr(pieces[index]) if inside else "nothing"
            raise InputError(
                f"{folder / TOKENIZER_JSON} gives {piece!r} the id {index!r}, where {VOCABULARY} "
                f"has {other}: they belong to different models; remove the file that does not "
                "belong to the weights"
            )
