"""Runners of Apache Beam (an extra), for jobs on one or many machines.

Results are written to the work folder, not sent through the pipeline, so all workers must see this
folder. A worker takes one portion of the corpus (`corpora.PORTION_BYTES` of files, or one larger
file) at a time. So a corpus of many files is distributed well, and no text is kept in memory or
sent.
"""

import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from undivided_tf.data.corpus.config import RecordsConfig
from undivided_tf.errors import InputError
from undivided_tf.support import extras, files

with extras.needed("a runner of Apache Beam", "beam"):
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.dask.dask_runner import DaskRunner
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

# Beam finds other runners by their names. By the name DirectRunner it would use Prism, which it
# downloads; it does not know the name DaskRunner.
_GIVEN_RUNNERS = {"DirectRunner": FnApiRunner, "DaskRunner": DaskRunner}


def run(
    config: RecordsConfig,
    job: Any,
    items: Sequence[Any],
    expand: Callable[[Any], Iterable[Any]] | None = None,
) -> None:
    """Runs a job for all items in a pipeline; see `runners.run`.

    Raises:
        InputError: as the job, or `pipeline_options` has an unknown option.
    """
    options = pipeline_options(config)
    errors = pathlib.Path(job.folder) / "errors"
    files.remove(errors)
    errors.mkdir()
    given = _GIVEN_RUNNERS.get(config.runner)
    with beam.Pipeline(given() if given else config.runner, options) as pipeline:
        (
            pipeline
            | "items" >> beam.Create(list(items))
            | "spread" >> beam.Reshuffle()
            | "job" >> beam.Map(_work, job, expand, str(errors))
        )
    if config.runner == "DaskRunner":  # Beam would keep the client, and its cluster, open.
        pipeline.result.client.close()
    for path in sorted(errors.iterdir()):
        raise InputError(files.read_text(path))


def _work(item: Any, job: Any, expand: Callable[[Any], Iterable[Any]] | None, errors: str) -> None:
    try:
        for part in expand(item) if expand else (item,):
            for _ in job(part):
                pass
    except InputError as error:
        # Beam would retry errors that must occur again, and lose the type of the error.
        text = str(error)
        with files.atomic_path(pathlib.Path(errors) / files.sha256(text), shared=True) as partial:
            files.write_text(partial, text)


def pipeline_options(config: RecordsConfig) -> PipelineOptions:
    """Beam's options; raises InputError for unknown ones."""
    flags = list(config.pipeline_options)
    if wrong := [flag for flag in flags if not flag.startswith("--")]:
        raise InputError(f"pipeline_options must be like --NAME=VALUE, got {', '.join(wrong)}")
    options = PipelineOptions(flags)
    if config.runner in _GIVEN_RUNNERS:  # Other runners may have more options.
        every = options.get_all_options(retain_unknown_options=True)
        if unknown := sorted(every.keys() - options.get_all_options().keys()):
            raise InputError(f"pipeline_options: Apache Beam has no --{', --'.join(unknown)}")
    return options
