"""Configs: frozen dataclasses that convert to JSON and back, where an unknown key is an error.

Every field has a help text, from which `undivided_tf.bin` makes the flag of the same name. So a
flag, a key of `config.json` and an attribute are one definition. Needs no TensorFlow.
"""

import dataclasses
import difflib
import json
import os
import typing
from typing import Any, Self

from undivided_tf.errors import InputError
from undivided_tf.inputs import Input
from undivided_tf.pattern import INTERMEDIATE, BlockPattern
from undivided_tf.support import files


class Rule(typing.NamedTuple):
    """Which values a field may have; for a list, which values its items may have.

    Attributes:
        above, at_least, below, at_most: bounds of a number; None: no bound.
        one_of: the allowed values; empty: any.
        min_items: smallest length of a list.
    """

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    one_of: tuple[str, ...] = ()
    min_items: int = 0

    def check(self, name: str, value: Any) -> None:
        """Raises InputError when `value` breaks the rule; names the field `name` and the value."""
        items = value if isinstance(value, tuple) else (value,)
        if len(items) < self.min_items:
            raise InputError(f"{name} must list {self.min_items} or more values, got {items}")
        for item in items:
            if not self._allows(item):
                shown = repr(item) if self.one_of else item
                raise InputError(f"{name} must be {self}, got {shown}")

    def _allows(self, item: Any) -> bool:
        # All comparisons with NaN are false, so NaN is outside of all bounds.
        return (
            (self.above is None or item > self.above)
            and (self.at_least is None or item >= self.at_least)
            and (self.below is None or item < self.below)
            and (self.at_most is None or item <= self.at_most)
            and (not self.one_of or item in self.one_of)
        )

    def __str__(self) -> str:
        """The text after "must be" in errors; empty if all values are allowed."""
        if self.one_of:
            return f"one of {', '.join(self.one_of)}"
        words = {"above": "above", "at_least": "at least", "below": "below", "at_most": "at most"}
        if self.at_least is not None and (self.below, self.at_most) != (None, None):
            words |= {"at_least": "from", "below": "to below", "at_most": "to"}
        bounds = [
            f"{word} {getattr(self, name)}"
            for name, word in words.items()
            if getattr(self, name) is not None
        ]
        return (" " if "from" in words.values() else " and ").join(bounds)


def option(default: Any, help: str, *, input: str = "", **rule: Any) -> Any:
    """A field of a config.

    Args:
        default: default value. If it is None, None is an allowed value.
        help: help text.
        input: for a path or a list of paths, the kind of input (see `inputs.LISTERS`). A run
            records the hashes of its inputs together with its config.
        **rule: attributes of a `Rule`, such as `above=0`; every config checks its rules.
    """
    metadata = {"help": help, "rule": Rule(**rule), "input": input}
    return dataclasses.field(default=default, metadata=metadata)


# Libraries take 32 bits, and runs with consecutive seeds start at the given one.
MAX_SEED = 2**31 - 1


def seed_option(help: str) -> Any:
    """A field of a config for a seed, from 0 to `MAX_SEED`."""
    return option(12345, help, at_least=0, at_most=MAX_SEED)


def section(config: "Config", prefix: str = "", without: tuple[str, ...] = ()) -> Any:
    """A field of a config that holds another config.

    Args:
        config: the default.
        prefix: prefix of the flags of its fields, such as `"finetuning."`.
        without: fields without a flag, which the program sets.
    """
    return dataclasses.field(default=config, metadata={"prefix": prefix, "without": without})


class Config:
    """Base of all configs: strict JSON, checked types, a hash."""

    def __post_init__(self):
        types = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            value = _checked(value, types[field.name], f"{type(self).__name__}.{field.name}")
            if "rule" in field.metadata:
                field.metadata["rule"].check(field.name, value)
            object.__setattr__(self, field.name, value)
        self.validate()

    def validate(self) -> None:
        """Raises InputError if the values contradict each other."""

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict; tuples become lists."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "") -> Self:
        """Builds the config; absent keys take their defaults.

        Args:
            values: as `to_dict` gives.
            where: named in errors, such as the path of the file.

        Raises:
            InputError: an unknown key or a wrong type.
        """
        fields = typing.get_type_hints(cls)
        if not isinstance(values, dict):
            raise InputError(f"{where or cls.__name__}: expected a JSON object, got {values!r}")
        values = cls.migrated(values)
        for key in values:
            if key not in fields:
                close = difflib.get_close_matches(key, fields, 1)
                hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(fields)}"
                raise InputError(f"{where or cls.__name__}: unknown key {key!r}{hint}")
        nested = {
            key: kind.from_dict(values[key], f"{where or cls.__name__}: {key}")
            for key, kind in fields.items()
            if key in values and isinstance(kind, type) and issubclass(kind, Config)
        }
        return cls(**{**values, **nested})

    @classmethod
    def migrated(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Converts `values` of an older release to the present fields."""
        return values

    def inputs(self, without: tuple[str, ...] = ()) -> dict[str, list[Input]]:
        """The inputs of a run of this config, by the field that names them.

        Args:
            without: fields to leave out; see `section`.
        """
        inputs = {}
        for field in dataclasses.fields(self):
            value, metadata = getattr(self, field.name), field.metadata
            if field.name in without:
                continue
            if isinstance(value, Config):
                inner = value.inputs((*without, *metadata["without"]))
                inputs |= {f"{field.name}.{name}": items for name, items in inner.items()}
            elif metadata.get("input"):
                values = (value,) if isinstance(value, str) else value
                items = [Input(metadata["input"], item) for item in values if item]
                inputs |= {field.name: items} if items else {}
        return inputs

    def to_json(self, path: str | os.PathLike) -> None:
        """Writes the config atomically; several processes may do so at once."""
        files.write_json(path, self.to_dict(), shared=True)

    @classmethod
    def from_json(cls, path: str | os.PathLike) -> Self:
        """Reads a file that `to_json` wrote.

        Raises:
            InputError: the file is missing or is not JSON, or has an unknown key or a wrong type;
                names the file.
        """
        try:
            values = files.read_json(path)
        except FileNotFoundError as error:
            raise InputError(f"there is no config at {path}") from error
        return cls.from_dict(values, where=str(path))

    def fingerprint(self) -> str:
        """Eight hexadecimal digits that change whenever a value changes."""
        return files.sha256(json.dumps(self.to_dict(), sort_keys=True))[:8]


def _checked(value: Any, kind: Any, where: str) -> Any:
    """Converts `value` to `kind` (int to float, list to tuple), or raises InputError."""
    if type(None) in typing.get_args(kind):  # The caller has handled None itself.
        (kind,) = set(typing.get_args(kind)) - {type(None)}
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{where} must be a list, got {value!r}")
        return tuple(_checked(item, typing.get_args(kind)[0], where) for item in value)
    if kind is float and type(value) is int:
        return float(value)
    if kind in (int, float, str, bool) and type(value) is not kind:
        raise InputError(f"{where} must be of type {kind.__name__}, got {value!r}")
    return value


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines such as `encoder.hidden_size: 128 there, 256 asked for`."""
    lines = []
    for key in sorted({*old, *new}):
        before, after = old.get(key, "absent"), new.get(key, "absent")
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before!r} there, {after!r} asked for")
    return lines


ACTIVATIONS = ("gelu", "gelu_tanh", "relu")
ATTENTION_NORMALIZATIONS = ("softmax", "relu")
POSITION_TYPES = ("absolute", "rotary")
DEFAULT_ROTARY_BASE = 10000.0
POOLINGS = ("first", "mean", "max")
PAIR_POOLING = "segments"
CLASSIFIER_POOLINGS = (*POOLINGS, PAIR_POOLING)
POOLING_HELP = (
    "Pooled vector of a row: first (the pooler on [CLS]), mean or max over tokens; for pairs also "
    "segments: the means u and v of both texts, |u - v| and u * v."
)
SPLITS = ("train", "validation", "test")
TASK_HELP = (
    "wiki_topic, wiki_pair or wiki_shift of the embedded sample, tfds:glue/NAME, a folder in "
    "GLUE's official layout such as glue_data/CoLA, or any folder with train.tsv and dev.tsv."
)
SENTENCE_TASK_HELP = (
    "ud:TASK:FOLDER of a treebank (length, depth, tense, subject_number, object_number, "
    f"word_content, bigram_shift), trec:qc.zip, subjectivity:subjectivity.zip, or: {TASK_HELP}"
)


@dataclasses.dataclass(frozen=True)
class EncoderConfig(Config):
    """Architecture of an encoder, in BERT's own names; the defaults are BERT-Base uncased."""

    vocab_size: int = option(
        30522, "Rows of the word embeddings; the vocabulary may have fewer word pieces.", above=0
    )
    hidden_size: int = option(768, "Width of the residual stream.", above=0)
    num_attention_heads: int = option(12, "Attention heads; must divide hidden_size.", above=0)
    intermediate_size: int = option(3072, "Width inside an intermediate block.", above=0)
    block_pattern: str = option(
        "(AI)*12", "Blocks in order: A attention, I intermediate; (AAI)*6 keeps every second I."
    )
    max_position_embeddings: int = option(512, "Longest sequence, in word pieces.", above=0)
    type_vocab_size: int = option(2, "Number of segment ids.", above=0)
    position_type: str = option(
        "absolute",
        "Positions of tokens: a learnt embedding of each position (absolute), or rotations of "
        "queries and keys by angles in proportion to it (rotary; without parameters).",
        one_of=POSITION_TYPES,
    )
    rotary_base: float = option(
        DEFAULT_ROTARY_BASE,
        "Base of the rotary angles; a smaller base may suit short sequences.",
        above=0,
    )
    query_key_norm: bool = option(
        False, "RMS normalisation of the queries and keys of each head, with a learnt scale."
    )
    hidden_dropout_prob: float = option(
        0.1, "Dropout after embeddings and blocks.", at_least=0, below=1
    )
    attention_probs_dropout_prob: float = option(
        0.1, "Dropout on attention probabilities.", at_least=0, below=1
    )
    layer_norm_eps: float = option(1e-12, "Added to the variance in LayerNorm.", above=0)
    initializer_range: float = option(
        0.02, "Standard deviation of the truncated normal initialiser.", above=0
    )
    hidden_activation: str = option(
        "gelu", "Activation of intermediate blocks.", one_of=ACTIVATIONS
    )
    norm_first: bool = option(
        False, "LayerNorm before each block and after the last (pre-norm), instead of behind each."
    )
    attention_normalization: str = option(
        "softmax",
        "How scores become attention weights; relu: max(0, 1 + score) divided by the number of "
        "real tokens, without exponentials.",
        one_of=ATTENTION_NORMALIZATIONS,
    )
    half_layer_norms: bool = option(
        False,
        "Only every second block has a LayerNorm, counted back from the last; the embeddings keep "
        "theirs.",
    )
    share_intermediate: bool = option(
        False,
        "All intermediate blocks share one set of dense weights; each has its own LayerNorm.",
    )
    vocabulary_hash: str = option("", "SHA-256 of the vocabulary of the token ids.")
    do_lower_case: bool = option(True, "The vocabulary is uncased: lower case, no accents.")

    def validate(self) -> None:
        """Raises InputError if the values contradict each other."""
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"hidden_size {self.hidden_size} is not divisible by "
                f"num_attention_heads {self.num_attention_heads}"
            )
        if self.position_type == "rotary" and self.head_width % 2:
            raise InputError(
                f"position_type rotary rotates pairs of features: hidden_size {self.hidden_size} / "
                f"num_attention_heads {self.num_attention_heads} must be even"
            )
        if self.position_type != "rotary" and self.rotary_base != DEFAULT_ROTARY_BASE:
            raise InputError(
                f"rotary_base {self.rotary_base:g} is not used with position_type "
                f"{self.position_type}: give --position_type=rotary"
            )
        object.__setattr__(self, "block_pattern", str(BlockPattern.parse(self.block_pattern)))

    def require_length(self, max_seq_length: int) -> None:
        """Raises InputError if the encoder has fewer positions than `max_seq_length`."""
        if max_seq_length > self.max_position_embeddings:
            raise InputError(
                f"max_seq_length {max_seq_length} is more than the encoder's "
                f"max_position_embeddings {self.max_position_embeddings}"
            )

    def require_segments(self, number: int) -> None:
        """Raises InputError if the encoder has fewer segments than an input has texts."""
        if number > self.type_vocab_size:
            raise InputError(
                f"an input of {number} texts needs type_vocab_size {number}, but the encoder was "
                f"made with {self.type_vocab_size}: use a task of single texts or another encoder"
            )

    @property
    def pattern(self) -> BlockPattern:
        """The parsed `block_pattern`."""
        return BlockPattern.parse(self.block_pattern)

    @property
    def head_width(self) -> int:
        """Features of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def layer_norms(self) -> tuple[bool, ...]:
        """Whether each block of the pattern has a LayerNorm."""
        blocks = len(self.pattern)
        return tuple(not self.half_layer_norms or (blocks - i) % 2 == 1 for i in range(blocks))

    @property
    def owns_weights(self) -> tuple[bool, ...]:
        """Whether each block of the pattern has its own dense weights.

        With `share_intermediate` only the first intermediate block has them.
        """
        first = self.pattern.letters.find(INTERMEDIATE)
        return tuple(
            not self.share_intermediate or block.kind == "attention" or number == first
            for number, block in enumerate(self.pattern)
        )
