"""Studies that add seeds until they have decided, on made-up losses with known multipliers."""

import copy
import math
import random

import made_up_study
import pytest

from undivided_tf.errors import InputError
from undivided_tf.study import multiplier_section, multipliers, report, study, until_decided, worth
from undivided_tf.study.kinds import read_results
from undivided_tf.study.worth.verdicts import DISPENSABLE, HARMFUL, UNDECIDED, WORTH

REFERENCE, THIRD, NONE = "(AI)*6", "(AAI)*3", "A*6"
STEPS = (300, 600, 1200, 1800)
SLOPE = 0.5  # Nats a unit of log compute.


def results(true, noise, seeds=3, draw=0, **changes):
    """A study in which an arm's seeds move its losses by `noise` nats; `true` multipliers."""
    raw = made_up_study.results(seeds=seeds, neighbours=6.5)
    full = next(c["result"] for c in raw["cells"] if c["kind"] == "pretraining")
    flops = full["training_flops"]

    def loss_of(pattern, seed, compute):
        own = random.Random(f"{draw} {pattern} {seed}").gauss(0, noise)
        return 4.0 - SLOPE * math.log(compute / true[pattern] / flops) + own

    raw = made_up_study.add_branches(raw, loss_of, STEPS[:-1])
    raw["config"] |= {"until_decided": True, "num_pretraining_seeds": 3, "max_seeds": 9}
    raw["config"]["arm_seeds"] = [f"{pattern}={seeds}" for pattern in true]
    raw["config"] |= changes
    return raw


def with_sizes(raw, other):
    """Both studies as one of two sizes; `other` has the second."""
    raw = copy.deepcopy(raw)
    raw["config"] |= {"sizes": ["64x1"], "arm_seeds": []}
    for cell in copy.deepcopy(other["cells"]):
        cell["label"]["size"] = "64x1"
        raw["cells"].append(cell | {"name": f"{cell['name']}/64x1"})
    return raw


@pytest.fixture
def simulated(monkeypatch):
    """Lets a study run at once: each arm gets the seeds that the config asks for."""

    def install(true, noise, draw=0):
        asked = []

        def run_study(config, command, scheduler="", kept_results="", sweeps=()):
            asked.append({p: len(config.seeds(p)) for p in config.canonical_patterns})
            raw = results(true, noise, seeds=9, draw=draw)
            raw["config"] = config.to_dict()
            raw["cells"] = [
                cell
                for cell in raw["cells"]
                if cell["kind"] != "pretraining"
                or cell["label"]["seed"] in config.seeds(cell["label"]["pattern"])
            ]
            return raw

        monkeypatch.setattr(until_decided, "run_study", run_study)
        return asked

    return install


def verdicts(raw):
    found = read_results(raw)
    return {p: multipliers.judged(found, p).headline.verdict.name for p in (THIRD, NONE)}


def crossovers(raw, pattern):
    arms = multipliers.judged_arms(read_results(raw))
    return multipliers.crossovers(arm for arm in arms if arm.pattern == pattern)


TRUE = {REFERENCE: 1.0, THIRD: 0.8, NONE: 0.55}


def test_seeds_are_added_to_the_arm_that_is_open_until_it_is_decided(simulated):
    asked = simulated(TRUE | {THIRD: 0.82}, 0.01)
    config = read_results(results(TRUE, 0.02)).config.replace(arm_seeds=())
    raw = until_decided.run_until_decided(config, "a command")
    assert verdicts(raw) == {THIRD: HARMFUL, NONE: HARMFUL}
    assert asked[0] == {REFERENCE: 3, THIRD: 3, NONE: 3} and len(asked) > 1
    # Only the arm that was open has more, and the reference as many, since they are pairs.
    assert asked[-1][NONE] == 3 and asked[-1][THIRD] == asked[-1][REFERENCE] in (5, 7, 9)


def test_it_ends_with_the_most_seeds(simulated):
    asked = simulated(TRUE | {THIRD: 0.9}, 0.05)
    config = read_results(results(TRUE, 0.05)).config.replace(arm_seeds=(), max_seeds=5)
    raw = until_decided.run_until_decided(config, "a command")
    assert verdicts(raw)[THIRD] == UNDECIDED and max(asked[-1].values()) == 5
    step = until_decided.next_step(read_results(raw))
    assert step.config is None and "5 seeds are the most" in step.reason


def test_it_ends_when_the_next_seeds_cost_more_than_is_left():
    open_one = results(TRUE | {THIRD: 0.88}, 0.03)
    step = until_decided.next_step(read_results(open_one))
    assert step.config is not None and f"adding 2 seeds of {THIRD} (about" in step.reason
    raw = results(TRUE | {THIRD: 0.88}, 0.03, budget_hours=0.01)
    step = until_decided.next_step(read_results(raw))
    assert step.config is None and "of 0.01 are spent" in step.reason
    failed = made_up_study.fail(copy.deepcopy(open_one), "probing")
    step = until_decided.next_step(read_results(failed))
    assert step.config is None and "not finished, so no seeds are added" in step.reason


def test_intervals_have_the_level_of_their_look():
    for seeds, look in ((3, 0), (5, 1), (9, 3)):
        found = read_results(results(TRUE, 0.02, seeds=seeds))
        one = multipliers.judged(found, THIRD).comparisons[1].multiplier
        assert one.level == worth.look_levels((3, 5, 7, 9))[look] > 0.95
        curves = [multipliers._curves(multipliers.annealed(found, p)) for p in (REFERENCE, THIRD)]
        (alone,) = worth.compute_multiplier(*curves, [one.budget])
        assert one.low < alone.low < alone.value == one.value < alone.high < one.high


def test_the_same_command_goes_on_whatever_seeds_the_directory_has(tmp_path):
    config = read_results(results(TRUE, 0.02)).config.replace(workdir=str(tmp_path / "study"))
    study.open_study(config.replace(arm_seeds=(f"{REFERENCE}=5", f"{THIRD}=5", f"{NONE}=3")))
    study.open_study(config.replace(arm_seeds=()))
    study.open_study(config.replace(arm_seeds=(f"{REFERENCE}=5", f"{THIRD}=5", f"{NONE}=3")))
    # More hours or workers are no other study, but the looks depend on the most seeds.
    study.open_study(config.replace(arm_seeds=(), budget_hours=10.0, num_workers=2))
    with pytest.raises(InputError, match="max_seeds"):
        study.open_study(config.replace(arm_seeds=(), max_seeds=15))
    with pytest.raises(InputError, match="worth_margins"):
        study.open_study(config.replace(arm_seeds=(), worth_margins=(0.8, 1.2)))


def test_each_size_is_judged_and_the_crossover_is_told():
    small = results(TRUE | {THIRD: 1.3, NONE: 1.0}, 0.002)
    found = read_results(with_sizes(results(TRUE, 0.002), small))
    arms = multipliers.judged_arms(found)
    names = {(arm.view.size, arm.pattern): arm.headline.verdict.name for arm in arms}
    assert names == {
        ("", THIRD): HARMFUL,
        ("", NONE): HARMFUL,
        ("64x1", THIRD): WORTH,
        ("64x1", NONE): DISPENSABLE,
    }
    told = multipliers.sentences(arms)
    assert len(told) == 8 and told[0].startswith(f"`{THIRD}` at size 128x4 needs 0.80 times")
    assert told[2].startswith(f"`{THIRD}` at size 64x1 needs 1.30 times")
    # A*6 ends at less compute than the reference, so sizes are compared one by one.
    for text, size in zip(told[4:], ("128x4", "64x1") * 2, strict=True):
        assert f"at size {size}, " in text
    sizes = {row[1].text for row in multiplier_section.table(found, arms).rows}
    assert sizes == {"128x4", "64x1"}
    step = until_decided.next_step(found)
    assert step.config is None and "is decided" in step.reason


def test_a_crossover_is_found_where_the_better_arm_changes(monkeypatch):
    raw = results(TRUE, 0.0)
    for cell in raw["cells"]:
        if cell["kind"] == "pretraining" and cell["label"]["pattern"] == THIRD:
            for branch in cell["result"]["branches"]:
                tilt = 0.2 * math.log(branch["steps"] / 800)
                noise = 0.002 * (cell["label"]["seed"] - 2)
                branch["validation"]["loss"] += tilt + noise
    (told,) = crossovers(raw, THIRD)
    assert f"`{THIRD}` leads below" in told and "noise" not in told
    (told,) = crossovers(raw, NONE)
    assert "lower loss throughout" in told


def test_curves_that_end_together_are_compared_at_the_best_size_of_each():
    one = dict.fromkeys((REFERENCE, THIRD, NONE), 1.0)
    raw = with_sizes(results(one, 0.002), results(one, 0.002, draw=1))
    for cell in raw["cells"]:
        if cell["kind"] == "pretraining":
            flops = 1e13 if cell["label"].get("size") else 4e13
            for branch in cell["result"]["branches"]:
                branch["training_flops"] = flops * branch["steps"] / STEPS[-1]
    (told,) = crossovers(raw, NONE)
    assert "each arm at its best size, " in told


def test_a_partner_of_equal_parameters_is_an_arm_of_its_own(tmp_path):
    raw = results(TRUE, 0.002, budgets=["steps", "more_attention"])
    for cell in copy.deepcopy(results(TRUE | {THIRD: 1.3, NONE: 1.0}, 0.002)["cells"]):
        if cell["kind"] == "pretraining" and cell["label"]["pattern"] != REFERENCE:
            cell["label"]["budget"] = "more_attention"
            raw["cells"].append(cell | {"name": f"{cell['name']}/more_attention"})
    found = read_results(raw)
    arms = multipliers.judged_arms(found)
    told = multipliers.sentences(arms)
    assert told[0].startswith(f"`{THIRD}` needs 0.80 times")
    grown = "(AAAAI)*3"
    assert told[2].startswith(f"`{grown}` (`{THIRD}` grown to equal parameters) needs 1.30 times")
    assert len(told) == 8  # Verdicts on four arms, and where each is better.
    rows = multiplier_section.table(found, arms).rows
    assert [bool(row[0].note) for row in rows] == [False] * 8 + [True] * 8
    report.write_report(raw, tmp_path)
    for figure in ("loss_over_compute", "compute_multipliers"):
        drawn = (tmp_path / "figures" / f"{figure}.svg").read_text()
        assert f"{THIRD}, grown to {grown}" in drawn and "stroke-dasharray" in drawn


@pytest.mark.slow
def test_few_studies_end_with_a_false_verdict(simulated):
    """The truth lies on a margin, where a false verdict is most likely: at most 5 % of studies."""
    false, number = 0, 60
    config = read_results(results(TRUE, 0.02)).config.replace(arm_seeds=())
    for draw in range(number):
        simulated({REFERENCE: 1.0, THIRD: 0.9, NONE: 0.3}, 0.02, draw)
        name = verdicts(until_decided.run_until_decided(config, ""))[THIRD]
        false += name not in (UNDECIDED, DISPENSABLE)
    assert false <= 0.05 * number + 2 * math.sqrt(0.05 * 0.95 * number)
