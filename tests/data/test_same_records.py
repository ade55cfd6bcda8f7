"""All runners make the same records of real text."""

import functools
import itertools
import pathlib

import pytest

from undivided_tf.data.corpus import chunks, corpora, records
from undivided_tf.data.corpus.config import RecordsConfig

RUNNERS = {
    "one process": {"runner": "dask", "num_processes": 1},
    "two processes": {"runner": "dask", "num_processes": 2},
    "DirectRunner": {"runner": "DirectRunner"},
}


@functools.cache
def contents(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


@pytest.fixture(scope="module")
def in_process(tmp_path_factory):
    """Makes records in this process, once per config; returns their config and metadata."""

    @functools.cache
    def create(**options):
        folder = str(tmp_path_factory.mktemp("here") / "records")
        config = RecordsConfig(output_dir=folder, vocab_size=4000).replace(**options)
        return config, records.create_records(config)

    return create


def check(runner, tmp_path, config, metadata):
    """Makes the same records with another runner, and compares them."""
    assert metadata["train"]["rows"] and metadata["validation"]["rows"]
    there = config.replace(output_dir=str(tmp_path / "there"), **RUNNERS[runner])
    assert records.create_records(there) == metadata
    assert contents(there.output_dir) == contents(config.output_dir)


def skip_without(runner):
    if runner == "DirectRunner":
        pytest.importorskip("apache_beam", reason="needs the extra `beam`: make test-beam")


@pytest.fixture
def sample_slice(tmp_path):
    """Two files of documents from either part of the embedded sample."""
    paths = []
    for source, count in zip(corpora.sources(["sample"]), (3, 300), strict=True):
        texts = (document.text for document in itertools.islice(source.read(), count))
        paths.append(tmp_path / f"{source.name}.txt")
        paths[-1].write_text("\n\n".join(texts))
    return tuple(map(str, paths))


@pytest.mark.parametrize("runner", ["two processes", "DirectRunner"])
def test_runners_agree_on_a_slice_of_the_sample(
    sample_slice, in_process, tmp_path, monkeypatch, runner
):
    skip_without(runner)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1 << 14)
    monkeypatch.setattr(corpora, "PORTION_BYTES", 1 << 14)
    options = {"packing": "next_sentence", "num_shards": 3, "deduplicate": "near"}
    config, metadata = in_process(input_files=sample_slice, **options)
    assert metadata["train"]["documents"] > 200
    check(runner, tmp_path, config, metadata)


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
def test_runners_agree_on_the_sample(in_process, tmp_path, runner):
    skip_without(runner)
    config, metadata = in_process(input_files=("sample",), deduplicate="near")
    assert metadata["train"]["documents"] > 7000
    check(runner, tmp_path, config, metadata)


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
def test_runners_agree_on_wikitext(shared_data, in_process, tmp_path, runner):
    skip_without(runner)
    files = (f"{shared_data}/wikitext-2/*.tokens",)
    config, metadata = in_process(input_files=files, packing="sentence_order")
    assert metadata["train"]["bytes"] > 10_000_000
    check(runner, tmp_path, config, metadata)
