"""The worth of blocks in a study with branches: closed forms, what is not judged, the report."""

import math
import re
import types

import made_up_study
import pandas as pd
import pytest

from undivided_tf.errors import InputError
from undivided_tf.study import judging, multiplier_section, multipliers, report, worth
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.kinds import read_results
from undivided_tf.study.summary import summary_lines
from undivided_tf.study.worth.verdicts import DISPENSABLE, HARMFUL, UNDECIDED, WORTH

REFERENCE, THIRD, NONE = "(AI)*6", "(AAI)*3", "A*6"
STEPS = (300, 600, 1200, 1800)
SLOPE, LAST = 0.5, 4.0  # Nats a unit of log compute; the reference's loss at its end.


def results(third=0.75, none=0.5, seeds=3, neighbours=6.0, noise=0.001, stuck=()):
    """A study whose losses fall with the log of compute, so that multipliers are known.

    Args:
        third, none: true multipliers of the two patterns.
        seeds: of each pattern.
        neighbours: loss of the neighbour model.
        noise: of a seed and pattern, in nats, beside what a seed does to all patterns.
        stuck: patterns that stay at the unigram entropy.
    """
    study = made_up_study.results(seeds=seeds, neighbours=neighbours)
    full = next(c["result"] for c in study["cells"] if c["kind"] == "pretraining")
    true = {REFERENCE: 1.0, THIRD: third, NONE: none}

    def loss_of(pattern, seed, flops):
        if pattern in stuck:
            return made_up_study.ENTROPY
        own = noise * (seed % 2 - 0.5) * (pattern != REFERENCE)
        relative = flops / true[pattern] / full["training_flops"]
        return LAST - SLOPE * math.log(relative) + 0.03 * seed + own

    return made_up_study.add_branches(study, loss_of, STEPS[:-1])


def compared(raw, pattern):
    return multipliers.judged(read_results(raw), pattern).comparisons


def sentence_of(raw, pattern):
    return multipliers.sentence(multipliers.judged(read_results(raw), pattern))


def table_of(raw):
    study = read_results(raw)
    return multiplier_section.table(study, multipliers.judged_arms(study))


def test_the_headlines_are_those_of_the_sentences():
    study = read_results(results())
    table = multiplier_section.headlines(study)
    assert table.columns == ("pattern", f"size {study.config.size_name('')}")
    for pattern, (arm, cell) in zip(study.reduced, table.rows, strict=True):
        judged = multipliers.judged(study, pattern)
        assert (arm.text, cell.number) == (pattern, judged.headline.multiplier.value)
        sentence = multipliers.sentence(judged)
        shown, verdict = cell.text.split(": ")
        assert f"{shown.split()[0]} times" in sentence
        assert verdict.removeprefix("blocks ") in sentence


def test_every_annealed_point_is_in_the_frame():
    raw = results()
    rows = read_results(raw).whole
    rows = rows[rows["metric"].str.startswith("annealed_")]
    wide = rows.pivot(index=["pattern", "seed", "run"], columns="metric", values="value")
    assert len(wide) == 3 * 3 * len(STEPS)
    for cell in raw["cells"]:
        if cell["kind"] == "pretraining":
            result = cell["result"]
            for point in result["branches"]:
                there = wide.loc[(result["pattern"], result["seed"], point["steps"])]
                assert there["annealed_loss"] == point["validation"]["loss"]
                assert there["annealed_training_flops"] == point["training_flops"]
                assert there["annealed_neighbour_model_loss"] == 6.0
                assert there["annealed_learnt"] == point["validation"]["learnt"]


@pytest.mark.parametrize(
    ("true", "name"),
    [(0.75, HARMFUL), (1.0, DISPENSABLE), (1.3, WORTH), (0.9, UNDECIDED)],
)
def test_known_multipliers_are_judged_rightly(true, name):
    """Curves are lines in log compute, so interpolation is exact up to the noise of seeds."""
    found = compared(results(third=true), THIRD)
    assert [one.steps for one in found] == list(STEPS)
    known = [one for one in found if not math.isnan(one.multiplier.value)]
    assert known and all(one.verdict.name == name for one in known)
    for one in known:
        # A loss that is off by x moves the multiplier by the factor exp(x / SLOPE).
        assert one.multiplier.value == pytest.approx(true, rel=2 * 0.001 / SLOPE)
        assert one.multiplier.low < one.multiplier.value < one.multiplier.high
        assert one.loss == pytest.approx(LAST - SLOPE * math.log(one.steps / 1800) + 0.06)


def test_the_interval_is_that_of_the_paired_t_test():
    found = compared(results(third=0.75, noise=0.02), THIRD)[2].multiplier
    # Differences of three seeds: 0.01, -0.01, 0.01; Student's t with two degrees of freedom.
    mean, half = 0.01 / 3, 4.302653 * 0.0115470 / math.sqrt(3)
    expected = [0.75 * math.exp((mean + x) / SLOPE) for x in (-half, 0, half)]
    assert [found.low, found.value, found.high] == pytest.approx(expected, rel=1e-4)


def test_what_leaves_the_curves_is_not_known_and_the_sentence_is_of_a_smaller_budget():
    raw = results(none=0.8)  # Its run has 0.56 of the FLOPs: 0.8 of the last budget is beyond.
    *known, last = compared(raw, NONE)
    assert not any(math.isnan(one.multiplier.value) for one in known)
    assert math.isnan(last.multiplier.value) and "ends above the loss" in last.verdict.reason
    assert multipliers.headline([*known, last]) == known[-1]
    sentence = sentence_of(raw, NONE)
    assert f"`{NONE}` needs 0.80 times (95 % interval " in sentence
    assert sentence.endswith("the blocks that it lacks are harmful.")


def test_an_interval_that_leaves_the_curve_gives_way_to_one_of_a_smaller_budget():
    found = compared(results(none=0.8, noise=0.05), NONE)
    assert math.isinf(found[2].multiplier.high) and math.isnan(found[3].multiplier.value)
    assert multipliers.headline(found) == found[1]
    assert math.isfinite(found[1].multiplier.high)
    assert multipliers.headline(found[2:]) == found[2]
    assert multipliers.headline(found[3:]) == found[3] and multipliers.headline([]) is None


def test_a_pattern_that_never_reaches_the_loss_is_judged_by_the_end_of_its_curve():
    raw = results(third=20.0)
    comparisons = compared(raw, THIRD)
    assert all(math.isnan(one.multiplier.value) for one in comparisons)
    ends = [one.multiplier.low for one in comparisons]
    # All are the training FLOPs at the end of one curve, over those of the budget.
    assert ends == pytest.approx([ends[-1] * STEPS[-1] / steps for steps in STEPS], rel=1e-6)
    verdicts = [one.verdict.name for one in comparisons]
    assert verdicts == [WORTH if end > 1.1 else UNDECIDED for end in ends]
    assert set(verdicts) == {WORTH, UNDECIDED}
    sentence = sentence_of(raw, THIRD)
    last = verdicts.count(WORTH) - 1
    assert f"`{THIRD}` needs more than {ends[last]:.2f} times (95 % interval) the" in sentence
    assert sentence.endswith("the blocks that it lacks are worth their compute.")


def test_no_verdict_where_the_reference_has_not_learnt():
    # The reference passes this loss between 300 and 600 steps.
    found = compared(results(neighbours=4.7), THIRD)
    assert [one.verdict.name for one in found] == [judging.NO_VERDICT, *[HARMFUL] * 3]
    assert "3 of 3 encoders not below the neighbour model" in found[0].verdict.reason
    raw = results(neighbours=1.0)
    assert {one.verdict.name for one in compared(raw, THIRD)} == {judging.NO_VERDICT}
    assert f"`{THIRD}`: no verdict at" in sentence_of(raw, THIRD)


def test_a_pattern_that_has_not_learnt_where_the_reference_has_is_told():
    raw = results(neighbours=4.7, stuck=[NONE])
    names = [one.verdict.name for one in compared(raw, NONE)]
    assert names == [judging.NO_VERDICT, *[judging.DID_NOT_LEARN] * 3]
    assert f"`{NONE}`: did not learn at" in sentence_of(raw, NONE)
    assert {one.verdict.name for one in compared(raw, THIRD)[1:]} == {HARMFUL}


def test_one_seed_is_undecided():
    raw = results(seeds=1)
    assert {one.verdict.name for one in compared(raw, THIRD)} == {UNDECIDED}
    assert "seeds: 1, an interval takes 2" in sentence_of(raw, THIRD)


def test_an_undecided_verdict_tells_the_seeds_that_would_decide():
    one = compared(results(third=0.95, noise=0.05), THIRD)[2]
    assert one.verdict == worth.judge(one.multiplier) and one.verdict.seeds_needed > 3
    sentence = sentence_of(results(third=0.95, noise=0.05), THIRD)
    assert "seeds in all would decide" in sentence


def test_margins_of_the_study_decide_and_stand_in_the_report():
    raw = results(third=0.75)
    raw["config"]["worth_margins"] = [0.5, 0.7]
    assert compared(raw, THIRD)[1].verdict.name == WORTH
    assert "margins 0.5 and 0.7 were set before the run" in table_of(raw).note


@pytest.mark.parametrize("margins", [(1.1, 0.9), (0.9,), (0.9, 1.0, 1.1), (0.0, 1.1)])
def test_margins_that_are_none_are_refused(margins):
    with pytest.raises(InputError, match="worth_margins must"):
        StudyConfig(worth_margins=margins)


def test_the_report_opens_with_the_verdict_and_the_summary_has_it(tmp_path):
    raw = results()
    report.write_report(raw, tmp_path)
    page, markdown = ((tmp_path / f"report.{kind}").read_text() for kind in ("html", "md"))
    first, second, *_ = re.findall(r"<h2>(.*?)</h2>", page)
    assert (first, second) == (multiplier_section.CHAPTER, report.SHOWS)
    for name in ("loss_over_compute", "compute_multipliers"):
        assert (tmp_path / "figures" / f"{name}.svg").stat().st_size > 5000
        assert f"figures/{name}.svg" in markdown
    lines = summary_lines(raw)
    assert max(map(len, lines)) <= 100
    for pattern in (THIRD, NONE):
        sentence = sentence_of(raw, pattern)
        assert sentence.replace("`", "") in " ".join(lines)
        assert sentence in markdown.replace("\\", "")
    for pattern, *values in table_of(raw).rows:
        told = [line.split() for line in lines if line.startswith(pattern.text)]
        assert any(set(values[1].text.split()) <= set(line) for line in told)
        assert f"| {values[1].text} |" in markdown


def test_nothing_is_told_of_a_study_without_branches_or_without_results(tmp_path):
    plain = made_up_study.results(seeds=3)
    assert multiplier_section.CHAPTER not in [
        s.chapter for s in report.sections(read_results(plain))
    ]
    assert not any("times" in line for line in summary_lines(plain))
    failed = made_up_study.fail(results(), "pretraining")
    (section,) = (
        s for s in report.sections(read_results(failed)) if s.chapter == multiplier_section.CHAPTER
    )
    assert [type(part).__name__ for part in section.parts] == ["Bullets", "Table"]
    assert section.parts[-1].rows == ()
    assert all("no encoder of" in text for text in section.parts[0].items)


def test_an_arm_without_a_pair_leaves_the_joint_fit_to_the_others(monkeypatch):
    def compare(label, size, compute):
        raise InputError(f"{label}: expected a mapping with at least two seeds, got [0]")

    fit = types.SimpleNamespace(
        compare=compare,
        coefficients=pd.DataFrame([{"E": 1.0, "a": 0.5, "b": 0.5}]),
        points=pd.DataFrame({"residual": [0.0]}),
        p_separate=0.5,
    )
    monkeypatch.setattr(worth, "fit_jointly", lambda rows, reference: fit)
    study = read_results(results())
    (table,) = multiplier_section._joint_fit(study, multipliers.judged_arms(study))
    assert len(table.rows) == 2
    for _, _, _, _, interpolated, agree in table.rows:
        assert (interpolated.text, agree.text) == ("not known", "-")
