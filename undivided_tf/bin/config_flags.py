"""Flags for the fields of a config, with the help text, default and type of the field."""

import dataclasses
import errno
import functools
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
        prefix: prefix of all flag names.
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
    """Returns `config` with the values of the flags that are set.

    Args:
        config: as for `define`, or with other values, such as those of a preset.
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
    """The command that started this process, to record it with the results.

    Args:
        without: flags to leave out, such as those that limit the work of one call.
    """
    name = pathlib.Path(sys.argv[0]).stem.removeprefix("undivided-").replace("-", "_")
    kept, words = [], iter(sys.argv[1:])
    for word in words:
        flag, equals, _ = word.lstrip("-").partition("=")
        if not (word.startswith("-") and flag in without):
            kept.append(word)
        elif not (equals or FLAGS[flag].boolean):
            next(words, None)  # The next word is its value.
    return shlex.join(["python", "-m", f"undivided_tf.bin.{name}", *kept])


# Errors of a path that the user gave, or of its disk.
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
    """The message for an error of the user or the system; empty if the program may be wrong."""
    if isinstance(error, InputError | FloatingPointError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; with a work directory, the same command resumes"
    if isinstance(error, UnicodeDecodeError):
        return f"the input is not UTF-8 ({error}); convert it, for example with iconv -t UTF-8"
    if not isinstance(error, OSError) or error.filename is None:
        return ""
    path = pathlib.Path(os.fsdecode(error.filename))
    known = isinstance(error, _OF_PATHS) or error.errno in _OF_DISKS
    return f"{path}: {error.strerror}" if known and not path.is_relative_to(_PACKAGE) else ""


def program(
    config: Config, main: Callable[[Any], None], keep_freed_memory: bool = True
) -> tuple[Callable[[], Any], Callable[[], None]]:
    """Defines the flags of a binary that is a function of one config.

    Args:
        config: see `define`.
        main: function of the config.
        keep_freed_memory: see `process.set_up`.

    Returns:
        A function that returns the config of the flags, and the entry point of the binary.
    """
    define(config)
    given = functools.partial(parse, config)
    return given, lambda: run(lambda: main(given()), keep_freed_memory)


def run(main: Callable[[], None], keep_freed_memory: bool = True) -> None:
    """Runs a binary: parses the flags and calls `main`.

    Mistakes of the user, files that cannot be read or written, diverged training and interruption
    end the process with a message and status 1. Other errors are raised.

    Args:
        main: the function to run.
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

    # --help of absl shows the flags of the main module, but this module has defined them.
    for flag in FLAGS.flags_by_module_dict()[__name__]:
        FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    process.set_up(keep_freed_memory)
    app.run(guarded)
