"""Downloads of TensorFlow Datasets, with a quick error if there is no network."""

import urllib.error
import urllib.request
from typing import Any

from undivided_tf.errors import InputError

NETWORK_SECONDS = 5
PREFIX = "tfds:"


def prepared_builder(source: str) -> Any:
    """The builder of a data set, which is downloaded if it is not on the disk.

    Args:
        source: such as `tfds:squad/v2.0`.

    Raises:
        InputError: no such data set, or it is not on the disk and its host does not answer.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(source.removeprefix(PREFIX))
    except tfds.core.DatasetNotFoundError as error:
        raise InputError(f"{source}: TensorFlow Datasets has no data set of this name") from error
    if not builder.is_prepared():
        require_network(source, builder.info.homepage)
        builder.download_and_prepare()
    return builder


def require_network(source: str, url: str) -> None:
    """Raises InputError within seconds; TensorFlow Datasets would retry for minutes."""
    host = "/".join(url.split("/")[:3])
    request = urllib.request.Request(host, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=NETWORK_SECONDS).close()
    except urllib.error.HTTPError:
        return  # The host answers.
    except OSError as error:
        raise InputError(
            f"{source}: is not downloaded yet, and {host} cannot be reached ({error}); give "
            "files instead"
        ) from error
