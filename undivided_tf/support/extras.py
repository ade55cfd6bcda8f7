"""Packages of the extras, which not every installation has."""

import contextlib
from collections.abc import Iterator

from undivided_tf.errors import InputError


@contextlib.contextmanager
def needed(purpose: str, extra: str) -> Iterator[None]:
    """Turns a failed import into an error that names the extra to install.

    Args:
        purpose: what needs the packages.
        extra: name of the extra in setup.cfg.
    """
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"{purpose} needs the extra `{extra}` ({error}): pip install 'undivided_tf[{extra}]' "
            f"(in a checkout: pip install -e '.[{extra}]')"
        ) from error
