"""Real text: all runners give the same bytes."""

import functools
import itertools
import pathlib

import pytest

from undivided_tf.data import blocks, corpora, records
from undivided_tf.pretraining_recipes import RecordsConfig

RUNNERS = {
    "one process": {"runner": "processes", "num_processes": 1},
    "two processes": {"runner": "processes", "num_processes": 2},
    "DirectRunner": {"runner": "DirectRunner"},
}


@functools.cache
def contents(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def check(runners, tmp_path, **options):
    """Makes records in this process, then by each of the runners."""
    config = RecordsConfig(output_dir=str(tmp_path / "here"), vocab_size=4000).replace(**options)
    metadata = records.create_records(config)
    assert metadata["train"]["rows"] and metadata["validation"]["rows"]
    for name in runners:
        if name == "DirectRunner":
            pytest.importorskip("apache_beam", reason="needs the extra `beam`: make test-beam")
        folder = tmp_path / name
        there = config.replace(output_dir=str(folder), **RUNNERS[name])
        assert records.create_records(there) == metadata
        assert contents(folder) == contents(tmp_path / "here"), name
    return metadata


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
def test_runners_agree_on_a_slice_of_the_sample(sample_slice, tmp_path, monkeypatch, runner):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1 << 14)
    monkeypatch.setattr(corpora, "PORTION_BYTES", 1 << 14)
    options = {"packing": "next_sentence", "num_shards": 3, "deduplicate": "near"}
    metadata = check([runner], tmp_path, input_files=sample_slice, **options)
    assert metadata["train"]["documents"] > 200


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
def test_runners_agree_on_the_sample(tmp_path, runner):
    metadata = check([runner], tmp_path, input_files=("sample",), deduplicate="near")
    assert metadata["train"]["documents"] > 7000


@pytest.mark.slow
@pytest.mark.parametrize("runner", RUNNERS)
def test_runners_agree_on_wikitext(shared_data, tmp_path, runner):
    files = (f"{shared_data}/wikitext-2/*.tokens",)
    metadata = check([runner], tmp_path, input_files=files, packing="sentence_order")
    assert metadata["train"]["bytes"] > 10_000_000
