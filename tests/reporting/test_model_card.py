import json
import pathlib
import xml.etree.ElementTree as ElementTree

import pytest
from conftest import tiny_config

from undivided_tf.export.config import ExportConfig
from undivided_tf.reporting import model_card


def exported(checkpoint, **changes):
    """What export.json holds of a classifier."""
    return {
        "kind": "export",
        "config": ExportConfig(input=str(checkpoint)).to_dict(),
        "checkpoint_format": "undivided",
        "encoder": tiny_config(block_pattern="AAI").to_dict(),
        "parameters": 1234567,
        "classifier": {
            "kind": "classification",
            "labels": ["yes", "no|maybe"],
            "max_seq_length": 12,
            "input": "single",
            "task": "toy",
        },
        "span_predictor": None,
        "files": {"1/saved_model.pb": 4096},
        "signatures": {
            "classify": {
                "inputs": {"text": "string (batch,)"},
                "outputs": {"label": "string (batch,)"},
                "max_seq_length": 12,
                "largest_difference": 2.5e-7,
            }
        },
        **changes,
    }


def write_run(workdir):
    results = {
        "kind": "finetuning",
        "task": "toy",
        "rows": {"train": 96, "test": 11},
        "runs": [
            {"seed": seed, "seconds": 1.0, "test": {"accuracy": score}}
            for seed, score in ((1, 0.25), (2, 0.75))
        ],
    }
    workdir.mkdir()
    (workdir / "results.json").write_text(json.dumps(results))
    (workdir / "config.json").write_text(json.dumps({"init_checkpoint": "runs/half"}))


def card(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def test_the_card_has_the_scores_of_this_model_alone(tmp_path):
    write_run(tmp_path / "run")
    model_card.write(tmp_path, exported(tmp_path / "run" / "model_2"))
    text = card(tmp_path)
    assert "fine-tuned on toy" in text and "| test | accuracy | 0.7500 |" in text
    assert "0.2500" not in text
    for part in (
        "1,234,567", "4,096 bytes", "`no\\|maybe`", "2.5e-07", "96 in train",
        "began with the weights of `runs/half`", "tensorflow_model_server", "Apache-2.0",
    ):  # fmt: skip
        assert part in text
    assert '"signature_name": "classify"' in text
    drawing = ElementTree.parse(tmp_path / "pattern.svg").getroot()
    assert drawing.tag.endswith("svg") and "(pattern.svg)" in text


@pytest.mark.parametrize(
    ("head", "parts"),
    [
        (
            {"kind": "regression", "input": "pair", "task": "STS-B", "score_range": [0, 5]},
            ("one score within 0 to 5", "pairs of texts of STS-B, up to 9", "a score to each pair"),
        ),
        (
            {"kind": "multi_label", "labels": ["rude", "loud"]},
            ("any number may hold at once: `rude`, `loud`", "is not known", "each label by itself"),
        ),
    ],
)
def test_the_card_says_what_the_head_answers(tmp_path, head, parts):
    model_card.write(tmp_path, exported("x", classifier={**head, "max_seq_length": 9}))
    assert not [part for part in parts if part not in card(tmp_path)]


def test_results_of_other_runs_are_left_alone(tmp_path, monkeypatch):
    write_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    for checkpoint in ("wheel:some-package", tmp_path / "run" / "converted"):
        model_card.write(tmp_path, exported(checkpoint))
        assert "nothing is known here" in card(tmp_path)


def test_scores_of_the_last_step_are_not_those_of_an_earlier_one(tmp_path):
    results = {
        "kind": "pretraining", "steps": 20, "tokens": 640, "unigram_entropy": 3.5,
        "validation": {"loss": 3.25, "masked_tokens": 12},
    }  # fmt: skip
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    steps = tmp_path / "run" / "checkpoints"
    for checkpoint, known in (
        (tmp_path / "run", True), (steps / "step_00000020", True), (steps / "step_00000010", False)
    ):  # fmt: skip
        model_card.write(tmp_path, exported(checkpoint))
        assert ("| held-out text | loss | 3.2500 |" in card(tmp_path)) == known
        assert "640 tokens in 20 steps" in card(tmp_path)


def test_an_encoder_that_has_not_learnt_has_it_on_its_card(tmp_path):
    results = {
        "kind": "pretraining", "steps": 20, "tokens": 640, "unigram_entropy": 3.5,
        "validation": {
            "loss": 3.25, "neighbour_model_loss": 2.5, "learnt": False, "loss_at_mask": None,
        },
    }  # fmt: skip
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text(json.dumps(results))
    model_card.write(tmp_path, exported(tmp_path / "run"))
    text = card(tmp_path)
    assert "Held-out loss is not below the neighbour model (3.25 against 2.50 nats): this" in text
    assert "| held-out text | neighbour\\_model\\_loss | 2.5000 |" in text
    assert "| learnt" not in text and "at\\_mask" not in text


def test_without_results_the_card_says_that_nothing_is_known(tmp_path):
    signatures = {"embed": exported("x")["signatures"]["classify"]}
    model_card.write(
        tmp_path, exported("wheel:some-package", classifier=None, signatures=signatures)
    )
    text = card(tmp_path)
    assert "nothing is known here of how good it is" in text
    assert "from a checkpoint in the format undivided" in text


def test_ids_are_documented_for_the_other_formats(tmp_path):
    config = ExportConfig(input="x", output_format="litert").to_dict()
    signatures = exported("x")["signatures"]
    signatures["classify"] = {
        **{k: v for k, v in signatures["classify"].items() if k != "largest_difference"},
        "differences": {"model.tflite": 1e-6, "model_float16.tflite": 1e-3},
    }
    model_card.write(tmp_path, exported("x", config=config, signatures=signatures))
    text = card(tmp_path)
    assert "1.0e-06 (`model.tflite`), 1.0e-03 (`model_float16.tflite`)" in text
    assert "tensorflow_model_server" not in text


def test_the_template_is_packaged():
    assert (pathlib.Path(model_card.__file__).parent / "model_card.md.j2").exists()
