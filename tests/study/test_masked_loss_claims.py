"""The kind `masked_loss`: its cells, differences by mask rate and class, and its claim."""

import made_up_study
import numpy as np
import pytest

from undivided_tf.analysis.masked_loss import CLASSES as MEASURED_CLASSES
from undivided_tf.study import claims, grid, report
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.judging import (
    DID_NOT_LEARN,
    NO_VERDICT,
    NOT_SUPPORTED,
    SUPPORTED,
    UNDERPOWERED,
)
from undivided_tf.study.kinds import masked_loss, read_results

PATTERNS = ("(AI)*6", "(AAI)*3", "A*6")
CLAIM = "facts are in the intermediate blocks"
RATES = (0.15, 0.3, 0.5, 0.7)
LEVELS = {"frequent": 2.0, "middle": 4.0, "rare": 6.0, "continuation": 4.0}


def loss_of(level, pieces):
    return {"pieces": pieces, "loss": level, "low": 0, "high": 9, "neighbour_model_loss": 5.0}


def study(slope, gap, seeds=4, losses=(3.5, 3.6, 3.6), patterns=PATTERNS, noise=0.001):
    """Encoders without blocks lose `slope` a mask rate of 1 and `gap` more at rare pieces."""
    results = made_up_study.results(
        patterns=patterns, tasks=("wiki_topic",), seeds=seeds, losses=losses, neighbours=3.9
    )
    results["config"] |= {"loss_by_piece": True}
    draw = np.random.default_rng(0)

    def by_class(base, offset, gap):
        levels = {**LEVELS, "rare": LEVELS["rare"] + gap + draw.normal(0, noise)}
        classes = {name: loss_of(base - 4 + x + offset, 25) for name, x in levels.items()}
        return {**loss_of(base + offset, 100), "classes": classes}

    for pattern in patterns:
        reduced = pattern != patterns[0]
        for seed in range(1, seeds + 1):
            base = 3 + 0.1 * seed
            rates = [
                {"rate": rate, **by_class(base + rate, draw.normal(0, noise) + offset, 0)}
                for rate in RATES
                for offset in [reduced * (0.05 + slope * rate)]
            ]
            everything = by_class(1 + base, draw.normal(0, noise), reduced * gap)
            label = {"pattern": pattern, "pretraining_seed": seed}
            result = {
                "kind": "masked_loss", "rows": 10, "held_out_rows": 5, "masked_pieces": 400,
                "all": everything, "rates": rates, **label,
            }  # fmt: skip
            results["cells"].append(
                {"name": f"masked_loss/{pattern}/{seed}", "kind": "masked_loss", "label": label,
                 "status": "finished", "error": None, "seconds": 1.0, "machine": "",
                 "result": result}
            )  # fmt: skip
    return read_results(results)


@pytest.mark.parametrize(
    ("slope", "gap", "status", "reason"),
    [
        (0.1, 0.05, SUPPORTED, "its loss rises more with the mask rate and with rarity"),
        (0.1, -0.05, NOT_SUPPORTED, "below 0: rare less frequent"),
        (-0.1, 0.05, NOT_SUPPORTED, "below 0: slope over the mask rate"),
        (0.0, 0.05, UNDERPOWERED, "not shown to be above 0: slope over the mask rate"),
    ],
)
def test_the_claim_needs_both_the_mask_rate_and_rarity(slope, gap, status, reason):
    found = claims.verdicts(study(slope, gap))[CLAIM]["A*6"]
    assert (found.status, found.reason) == (status, reason)
    means = {one.comparison: one.mean for one in found.evidence}
    assert means["slope over the mask rate"] == pytest.approx(slope / 10, abs=1e-3)
    assert means["rare less frequent"] == pytest.approx(gap, abs=3e-3)
    assert all(one.n == 4 for one in found.evidence)


def test_one_pair_decides_nothing():
    found = claims.verdicts(study(0.1, 0.05, seeds=1))[CLAIM]["A*6"]
    assert (found.status, found.reason) == (UNDERPOWERED, "encoders: 1, an interval takes 2")


def test_encoders_that_have_not_learnt_have_no_verdict():
    blank = claims.verdicts(study(0.1, 0.05, losses=(5.0, 3.6, 3.6)))[CLAIM]
    assert {verdict.status for verdict in blank.values()} == {NO_VERDICT}
    found = claims.verdicts(study(0.1, 0.05, losses=(3.5, 3.6, 5.0)))[CLAIM]
    assert (found["(AAI)*3"].status, found["A*6"].status) == (SUPPORTED, DID_NOT_LEARN)


def test_a_pattern_with_as_many_intermediate_blocks_is_not_judged():
    found = claims.verdicts(study(0.1, 0.05, patterns=("(AAI)*3", "(AI)*6", "A*6")))[CLAIM]
    assert found["(AI)*6"].status == UNDERPOWERED
    assert found["(AI)*6"].reason.endswith("6 intermediate blocks, no fewer than the reference's 3")
    assert found["A*6"].status == SUPPORTED


def test_tables_have_paired_differences_with_intervals():
    some = study(0.1, 0.05)
    rates, classes = masked_loss.by_rate(some), masked_loss.by_class(some)
    assert rates.columns[1:5] == ("15 % masked", "30 % masked", "50 % masked", "70 % masked")
    first, *_, last = rates.rows
    assert first[1].number == pytest.approx(3.15 + 0.25, abs=0.01)
    assert [value.number for value in last[1:5]] == pytest.approx(
        [0.05 + 0.1 * rate for rate in RATES], abs=3e-3
    )
    assert " to " in last[1].note and last[5].number == pytest.approx(0.01, abs=1e-3)
    assert last[6].number == 4
    *_, last = classes.rows
    assert last[3].number - last[1].number == pytest.approx(0.05, abs=3e-3)
    assert last[5].number == pytest.approx(0.05, abs=3e-3)


def test_the_report_draws_them_and_names_what_failed(tmp_path):
    some = study(0.1, 0.05)
    report.write_report(some.raw, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "Held-out loss by mask rate, nats" in text and "Held-out loss by class" in text
    assert (tmp_path / "figures" / "masked_loss.svg").exists()
    failed = read_results(made_up_study.fail(some.raw, "masked_loss/A*6"))
    *_, last = masked_loss.by_rate(failed).rows
    assert {value.text for value in last[1:]} == {"failed"}
    assert claims.verdicts(failed)[CLAIM]["A*6"].status == UNDERPOWERED


def test_classes_are_those_of_the_analysis():
    assert masked_loss.CLASSES == MEASURED_CLASSES


def test_cells_come_beside_those_of_the_study_and_read_its_records():
    config = StudyConfig(patterns=("AI", "A*2"))
    before = [cell.name for cell in grid.expand(config)]
    cells = grid.expand(config.replace(loss_by_piece=True))
    assert [cell.name for cell in cells if cell.kind.name != "masked_loss"] == before
    found = [cell for cell in cells if cell.kind.name == "masked_loss"]
    assert [cell.label["pattern"] for cell in found] == ["AI", "A*2"]
    for cell in found:
        assert cell.places["init_checkpoint"].kind.name == "pretraining"
        assert cell.places["records_dir"].kind.name == "records"
        assert cell.encoder.block_pattern == cell.label["pattern"]
        assert cell.recipe.seed == config.seed
