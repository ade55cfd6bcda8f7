"""Downloads of TensorFlow Datasets, with a quick error if there is no network."""

import urllib.error
import urllib.request
from typing import Any

from undivided_tf.errors import InputError
from undivided_tf.inputs import TFDS

NETWORK_SECONDS = 5


def builder_of(source: str) -> Any:
    """The builder of a data set, such as `tfds:squad/v2.0`.

    Raises:
        InputError: there is no such data set.
    """
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(source.removeprefix(TFDS))
    except tfds.core.DatasetNotFoundError as error:
        raise InputError(f"{source}: TensorFlow Datasets has no data set of this name") from error


def prepare(builder: Any, source: str, url: str) -> None:
    """Downloads a data set unless it is on the disk.

    Args:
        builder: builder of the data set.
        source: name of the data set, for errors.
        url: URL of a host that must answer.

    Raises:
        InputError: the host does not answer.
    """
    if not builder.is_prepared():
        require_network(source, url)
        builder.download_and_prepare()


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
