"""Activations on disk, one file per minibatch, for runs that need the same activations again."""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from undivided_tf.analysis.taps import Activations
from undivided_tf.data.tasks.tasks import Rows
from undivided_tf.models.encoder import Encoder
from undivided_tf.support import files

_KEY = "key.json"
_being_written: set[pathlib.Path] = set()


def encoder_hash(encoder: Encoder) -> str:
    """SHA-256 of architecture and weights."""
    return files.sha256(
        encoder.config.fingerprint(), *(np.asarray(weight).tobytes() for weight in encoder.weights)
    )


def rows_hash(rows: Rows) -> str:
    """SHA-256 of the texts, without labels."""
    return files.sha256(json.dumps([rows.first, rows.second], ensure_ascii=False))


def cached(
    directory: str, key: Mapping[str, Any], make: Callable[[], Iterator[Activations]]
) -> Iterator[Activations]:
    """Minibatches of activations, read from disk if present, else made and written.

    Each minibatch is written when it is made, so only one is in memory. If the consumer stops
    early, nothing is kept on disk.

    Args:
        directory: holds a directory for each key; empty: nothing is read or written.
        key: everything that determines the activations, as JSON: hashes of encoder and data, taps,
            draw.
        make: function that yields the minibatches.

    Yields:
        The minibatches of `make`, in order.
    """
    place = pathlib.Path(directory) / files.sha256(json.dumps(key, sort_keys=True))[:16]
    if directory and (place / _KEY).exists():
        for path in sorted(place.glob("*.npz")):
            with np.load(path) as arrays:
                yield {name: arrays[name] for name in arrays.files}
    elif not directory or place in _being_written:  # By another stream of the same encoder.
        yield from make()
    else:
        _being_written.add(place)
        try:
            with files.atomic_path(place, shared=True) as partial:
                partial.mkdir()
                for number, batch in enumerate(make()):
                    np.savez(partial / f"{number:08d}.npz", **batch)
                    yield batch
                files.write_json(partial / _KEY, dict(key))
        finally:
            _being_written.discard(place)
