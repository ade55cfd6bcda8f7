"""Apache Beam, an extra: `make test-beam` installs it and runs these."""

import pathlib

import distributed
import pytest
import toys

from undivided_tf.data.corpus import chunks, corpora, records
from undivided_tf.errors import InputError

pytest.importorskip("apache_beam", reason="needs the extra `beam`: make test-beam")

BEAM = {"runner": "DirectRunner"}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 300)
    monkeypatch.setattr(corpora, "PORTION_BYTES", 1000)


@pytest.fixture(scope="module")
def dask():
    """Beam's runner on a Dask cluster whose workers are threads of this process."""
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address=None,
    ) as cluster:
        address = f"--dask_client_address={cluster.scheduler_address}"
        yield {"runner": "DaskRunner", "pipeline_options": (address,)}


@pytest.mark.parametrize(
    ("packing", "runner"),
    [("full", "DirectRunner"), ("next_sentence", "DirectRunner"), ("full", "DaskRunner")],
)
def test_beam_writes_the_same_bytes(tmp_path, packing, runner, request):
    corpus = toys.write_corpus(tmp_path / "corpus", 60)
    config = toys.records_config(
        tmp_path / "here", corpus, packing=packing, deduplicate="near", validation_fraction=0.1
    )
    here = records.create_records(config)
    options = request.getfixturevalue("dask") if runner == "DaskRunner" else BEAM
    there = config.replace(output_dir=str(tmp_path / "there"), **options)
    assert records.create_records(there) == here
    names = [path.name for path in (tmp_path / "here").iterdir()]
    assert sorted(names) == sorted(path.name for path in (tmp_path / "there").iterdir())
    for name in names:
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


@pytest.mark.parametrize("runner", ["DirectRunner", "DaskRunner"])
def test_an_input_error_of_a_job_is_raised_unchanged(tmp_path, runner, request):
    options = request.getfixturevalue("dask") if runner == "DaskRunner" else BEAM
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n{"txt": "three"}\n')
    config = toys.records_config(tmp_path / "r", f"{tmp_path}/a.jsonl", **options)
    with pytest.raises(InputError, match=r"^.*a\.jsonl:3: no field 'text', only txt; name"):
        records.create_records(config)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--direct_num_wrkers=2", "Apache Beam has no --direct_num_wrkers"),
        ("direct_num_workers=2", "must be like --NAME=VALUE, got direct_num_workers=2"),
    ],
)
def test_options_that_beam_does_not_know_are_refused(tmp_path, option, message):
    corpus = toys.write_corpus(tmp_path / "corpus")
    config = toys.records_config(tmp_path / "r", corpus, pipeline_options=(option,), **BEAM)
    with pytest.raises(InputError, match=message):
        records.create_records(config)
    assert not (tmp_path / "r").exists()


def test_options_reach_beam(tmp_path, monkeypatch):
    from undivided_tf.data.corpus import beam_runner

    config = toys.records_config(
        pathlib.Path("r"), "c", pipeline_options=("--direct_num_workers=3",), **BEAM
    )
    assert beam_runner.pipeline_options(config).get_all_options()["direct_num_workers"] == 3
