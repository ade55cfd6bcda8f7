"""Files for GLUE's evaluation server; needs no TensorFlow."""

import os
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from undivided_tf.data.tasks import glue
from undivided_tf.errors import InputError
from undivided_tf.support import files


def submission_text(task: str, predictions: Sequence[str | float]) -> str:
    """One file of a submission: a header, then a row number and a prediction per line.

    Args:
        task: key in `glue.TASKS`.
        predictions: label names, or scores, in the order of the test split. The server expects
            digits for CoLA, SST-2, MRPC, QQP and WNLI, names for MNLI, QNLI, RTE and AX, three
            decimals for STS-B.

    Raises:
        InputError: a name that is not a label of the task.
    """
    about = glue.TASKS[task]
    lines = ["index\tprediction"]
    for index, prediction in enumerate(predictions):
        if not about.labels:
            spelled = f"{np.clip(float(prediction), *about.score_range):.3f}"
        elif prediction not in about.labels:
            raise InputError(
                f"{about.folder}: prediction {index} is {prediction!r}, none of "
                f"{', '.join(about.labels)}"
            )
        else:
            digits = about.digits
            spelled = str(about.labels.index(prediction)) if digits else str(prediction)
        lines.append(f"{index}\t{spelled}")
    return "\n".join(lines) + "\n"


def write_submission(path: str | os.PathLike, contents: Mapping[str, str]) -> None:
    """Writes the archive; equal contents give equal bytes.

    Args:
        path: path of the zip archive.
        contents: text by file name, such as `MNLI-m.tsv`.
    """
    with files.atomic_path(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name in sorted(contents):
            member = zipfile.ZipInfo(name)  # With a constant date.
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, contents[name])
