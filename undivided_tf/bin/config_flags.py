"""One flag for each field of a config: the field's help, default and type are the flag's."""

import dataclasses
import errno
import os
import pathlib
import shlex
import sys
import typing
from collections.abc import Callable, Iterator
from typing import Any

from absl import app, flags

from undivided_tf.config import Config
from undivided_tf.errors import InputError
from undivided_tf.support import process

FLAGS = flags.FLAGS
_DEFINE = {int: flags.DEFINE_integer, float: flags.DEFINE_float, bool: flags.DEFINE_boolean}


def define(config: Config, prefix: str = "", without: tuple[str, ...] = ()) -> None:
    """Defines the flags of a config.

    Args:
        config: gives the names, help texts and default values.
        prefix: stands before every flag name.
        without: fields to leave out.
    """
    for field, kind, value in _fields(config, without):
        name = prefix + field.name
        if isinstance(value, Config):
            inner = (*without, *field.metadata["without"])
            define(value, prefix + field.metadata["prefix"], inner)
            continue
        help, rule = field.metadata["help"], field.metadata["rule"]
        if typing.get_origin(kind) is tuple:
            flags.DEFINE_list(name, list(value), f"{help} Each {rule}." if str(rule) else help)
        elif rule.one_of:  # absl lists them.
            flags.DEFINE_enum(name, value, list(rule.one_of), help)
        else:
            allowed = f"{help} {str(rule).capitalize()}." if str(rule) else help
            _DEFINE.get(kind, flags.DEFINE_string)(name, value, allowed)


def parse(config: Config, prefix: str = "", without: tuple[str, ...] = ()) -> Any:
    """Returns `config` with the values of the flags that were given.

    Args:
        config: as for `define`; may be another default, such as a preset.
        prefix: as for `define`.
        without: as for `define`.
    """
    changes = {}
    for field, kind, value in _fields(config, without):
        if isinstance(value, Config):
            inner = (*without, *field.metadata["without"])
            changes[field.name] = parse(value, prefix + field.metadata["prefix"], inner)
        elif FLAGS[prefix + field.name].present:
            given = FLAGS[prefix + field.name].value
            changes[field.name] = _items(field.name, given, kind) if type(given) is list else given
    return config.replace(**changes)


def _items(name: str, given: list[str], kind: Any) -> tuple[Any, ...]:
    (of, *_) = typing.get_args(kind)
    try:
        return tuple(of(item) for item in given)
    except ValueError as error:
        raise InputError(f"{name} must be a list of {of.__name__}, got {given!r}") from error


def _fields(config: Config, without: tuple[str, ...]) -> Iterator[tuple[Any, Any, Any]]:
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        if field.name not in without:
            yield field, hints[field.name], getattr(config, field.name)


def command(without: tuple[str, ...] = ()) -> str:
    """The command that this process was started with, to write beside its results.

    Args:
        without: flags to leave out, such as those that say how much of the work a call does.
    """
    name = pathlib.Path(sys.argv[0]).stem.removeprefix("undivided-").replace("-", "_")
    kept, words = [], iter(sys.argv[1:])
    for word in words:
        flag, equals, _ = word.lstrip("-").partition("=")
        if not (word.startswith("-") and flag in without):
            kept.append(word)
        elif not (equals or FLAGS[flag].boolean):
            next(words, None)  # Its value is a word of its own.
    return shlex.join(["python", "-m", f"undivided_tf.bin.{name}", *kept])


# What is wrong with a path that the user gave, or with the disk behind it.
_OF_PATHS = (
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG)
_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


def sentence(error: BaseException) -> str:
    """What a user is told of an error that is no fault of the program; empty when it may be one."""
    if isinstance(error, InputError | FloatingPointError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; where there is a work directory, the same command goes on"
    if isinstance(error, UnicodeDecodeError):
        return f"what was read is not UTF-8 ({error}); convert it, as with iconv -t UTF-8"
    if not isinstance(error, OSError) or error.filename is None:
        return ""
    path = pathlib.Path(os.fsdecode(error.filename))
    known = isinstance(error, _OF_PATHS) or error.errno in _OF_DISKS
    return f"{path}: {error.strerror}" if known and not path.is_relative_to(_PACKAGE) else ""


def run(main: Callable[[], None], keep_freed_memory: bool = True) -> None:
    """Runs a binary: parses the flags, calls `main`, turns a known error into one clear message.

    A mistake of the user, a file that cannot be read or written, a training that diverged and an
    interruption leave with status 1. What is unknown is raised.

    Args:
        main: what it does.
        keep_freed_memory: see `process.set_up`.
    """

    def guarded(arguments: list[str]) -> None:
        try:
            if len(arguments) > 1:
                raise InputError(f"unexpected argument {arguments[1]!r}; flags start with --")
            main()
        except (ValueError, OSError, FloatingPointError, KeyboardInterrupt) as error:
            if not (message := sentence(error)):
                raise
            print(f"error: {message}", file=sys.stderr)
            sys.exit(1)

    # absl shows in --help the flags of the module that runs; these were defined here.
    for flag in FLAGS.flags_by_module_dict()[__name__]:
        FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    process.set_up(keep_freed_memory)
    app.run(guarded)
