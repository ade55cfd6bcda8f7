"""The kind `mechanism`: its cells and partners, rows, claims and table."""

import made_up_study
import pytest

from undivided_tf.study import claims, grid, report
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.judging import NOT_SUPPORTED, SUPPORTED, UNDERPOWERED
from undivided_tf.study.kinds import mechanism, read_results
from undivided_tf.training.config import MechanismConfig

PATTERNS = ("(AI)*2", "A*2")
PARTNER, SEEDS, NUM_FACTS = "A*6", (1, 2, 3), (1000, 4000)
BLOCK_PARAMETERS = {"(AI)*2": 100_000, "A*2": 33_000, PARTNER: 100_000}


def encoder(pattern, share, copied):
    """Stores about `share` of the bits of all facts; copies about `copied` of the values."""
    noise = {seed: 0.001 * seed for seed in SEEDS}
    facts = [
        {
            "num_facts": number, "learning_rate": 0.01, "at_edge": number == 1000,
            "seeds": list(SEEDS), "loss": [0.5] * 3, "accuracy": [0.5] * 3,
            "bits": [(share + noise[seed]) * 8 * number for seed in SEEDS],
        }
        for number in NUM_FACTS
    ]  # fmt: skip
    accuracy = [copied + noise[seed] for seed in SEEDS]
    copying = {
        "learning_rate": 0.02, "at_edge": False, "seeds": list(SEEDS), "loss": [1.0] * 3,
        "accuracy": accuracy, "mean_accuracy": accuracy,
        "curve": [{"step": step, "loss": 1.0, "accuracy": copied} for step in (100, 200)],
    }  # fmt: skip
    blocks = BLOCK_PARAMETERS[pattern]
    return {
        "pattern": pattern, "parameters": blocks + 50_000, "block_parameters": blocks,
        "facts": facts, "copying": copying,
    }  # fmt: skip


def study(stored=(0.8, 0.5), copied=(0.6, 0.6), partner=True):
    """The reference and the partner of A*2 store and copy as given; A*2 itself next to nothing."""
    results = made_up_study.results(patterns=PATTERNS, tasks=("wiki_topic",))
    sizes = {"num_facts": NUM_FACTS, "num_values": 256}
    config = StudyConfig.from_dict(results["config"]).replace(
        synthetic_corpora=True, mechanism=MechanismConfig().replace(**sizes)
    )
    results["config"] = config.to_dict()
    encoders = {
        "(AI)*2": [encoder("(AI)*2", stored[0], copied[0])],
        "A*2": [
            encoder("A*2", 0.1, 0.1),
            *([encoder(PARTNER, stored[1], copied[1])] if partner else []),
        ],
    }
    for pattern, found in encoders.items():
        results["cells"].append(
            {"name": f"mechanism/{pattern}", "kind": "mechanism", "label": {"pattern": pattern},
             "status": "finished", "error": None, "seconds": 1.0, "machine": "",
             "result": {"kind": "mechanism", "bits_per_fact": 8.0, "encoders": found}}
        )  # fmt: skip
    return read_results(results)


def verdict(found, name):
    return claims.verdicts(found)[name]["A*2"]


def test_each_pattern_is_trained_with_its_partner_of_equal_parameters():
    config = StudyConfig(patterns=("(AI)*2", "A*2"), sizes=("64x1",), synthetic_corpora=True)
    cells = [cell for cell in grid.expand(config) if cell.kind.name == "mechanism"]
    assert [cell.recipe.patterns for cell in cells] == [("(AI)*2",), ("A*2", "A*6")]
    assert not [c for c in grid.expand(config.replace(synthetic_corpora=False)) if c in cells]


def test_rows_follow_their_definitions():
    found = study(stored=(0.8, 0.5))
    for pattern, prefix, share, blocks in (
        ("(AI)*2", "", 0.8, 100_000),
        ("A*2", "", 0.1, 33_000),
        ("A*2", "partner_", 0.5, 100_000),
    ):
        shares = found.by_seed("mechanism", f"{prefix}share_4000", pattern=pattern)
        assert shares == pytest.approx({seed: share + 0.001 * seed for seed in SEEDS})
        bits = found.by_seed("mechanism", f"{prefix}bits_per_block_parameter_4000", pattern=pattern)
        assert bits == pytest.approx({s: shares[s] * 4000 * 8 / blocks for s in SEEDS})
    # A pattern without a partner is its own, so that both are there to compare.
    own, partner = (
        found.by_seed("mechanism", prefix + "bits_4000", pattern="(AI)*2")
        for prefix in ("", "partner_")
    )
    assert own == partner
    assert found.values("mechanism", "at_edge_1000", pattern="(AI)*2") == [1]


@pytest.mark.parametrize(
    ("stored", "status"), [((0.8, 0.5), SUPPORTED), ((0.5, 0.8), NOT_SUPPORTED)]
)
def test_facts_are_compared_with_the_partner(stored, status):
    found = verdict(study(stored=stored), "blocks store facts")
    assert found.status == status
    (evidence,) = found.evidence
    assert evidence.mean == pytest.approx((stored[1] - stored[0]) * 4000 * 8 / 100_000)


@pytest.mark.parametrize(
    ("copied", "status"),
    [((0.6, 0.6), SUPPORTED), ((0.6, 0.5), NOT_SUPPORTED), ((0.004, 0.004), UNDERPOWERED)],
)
def test_copying_is_compared_with_the_partner(copied, status):
    assert verdict(study(copied=copied), "attention copies").status == status


def test_without_equal_parameters_nothing_is_compared():
    for name in ("blocks store facts", "attention copies"):
        found = verdict(study(partner=False), name)
        assert found.status == UNDERPOWERED
        assert "no number of attention blocks gives it as many parameters" in found.reason


def test_the_table_has_a_row_for_each_encoder_and_the_report_its_figure(tmp_path):
    found = study()
    table = mechanism.table(found)
    assert [(row[0].text, row[0].note) for row in table.rows] == [
        ("(AI)*2", ""), ("A*2", ""), ("A*2", "with more attention blocks"),
    ]  # fmt: skip
    report.write_report(found.raw, tmp_path)
    assert "Facts stored and values copied" in (tmp_path / "report.md").read_text()
    assert "A*6" in (tmp_path / "figures" / "mechanism.svg").read_text()
