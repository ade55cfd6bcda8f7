import json
import math

import pytest

from undivided_tf.config import EncoderConfig
from undivided_tf.errors import InputError
from undivided_tf.study import budgets, grid, sweep
from undivided_tf.study.config import StudyConfig, SweepConfig
from undivided_tf.training import pretraining
from undivided_tf.training.config import PretrainingConfig

ENCODER = EncoderConfig(hidden_size=8, num_attention_heads=2, intermediate_size=16)
RECIPE = PretrainingConfig(encoder=ENCODER, num_train_steps=10, num_warmup_steps=1)


def config_of(workdir, **changes):
    values = {"patterns": ("(AI)*2", "AA"), "learning_rates": (1e-3, 2e-3), "pilot_seeds": (7, 8)}
    return SweepConfig(workdir=str(workdir), pretraining=RECIPE, **{**values, **changes})


@pytest.fixture
def best_at(monkeypatch):
    """Lets runs end at once, with a loss that is least at a rate of each pattern.

    Rates above `diverging` diverge. Gives the runs that were asked for.
    """

    def install(whole, attention, diverging=math.inf):
        best, asked = {"(AI)*2": whole, "A*2": attention}, []

        def pretrain(run):
            pattern, rate = run.encoder.block_pattern, run.learning_rate
            asked.append((pattern, rate, run.seed))
            if rate > diverging:
                raise FloatingPointError("step 3: loss sum nan")
            distance = abs(math.log(rate / best[pattern]))
            return {"validation": {"loss": 3.0 + distance + run.seed / 100}}

        monkeypatch.setattr(pretraining, "pretrain", pretrain)
        return asked

    return install


def test_rates_are_added_until_the_best_has_both_neighbours(tmp_path, best_at):
    asked = best_at(whole=9e-3, attention=3e-4)
    found = sweep.run_sweep(config_of(tmp_path))
    whole, attention = found["patterns"]["(AI)*2"], found["patterns"]["A*2"]
    assert [point["learning_rate"] for point in whole["curve"]] == [1e-3, 2e-3, 4e-3, 8e-3, 0.016]
    assert (whole["learning_rate"], whole["interior"]) == (8e-3, True)
    assert [point["learning_rate"] for point in attention["curve"]] == [
        1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3,
    ]  # fmt: skip
    assert (attention["learning_rate"], attention["interior"]) == (2.5e-4, True)
    for pattern in (whole, attention):
        assert pattern["loss"] == min(point["loss"] for point in pattern["curve"])
        for point in pattern["curve"]:
            assert point["loss"] == pytest.approx(sum(point["losses"]) / 2)
    assert {seed for *_, seed in asked} == {7, 8} and len(set(asked)) == len(asked) == 20
    assert json.loads((tmp_path / "sweep.json").read_text()) == found


def test_the_edge_is_told_where_no_more_rates_may_be_added(tmp_path, best_at):
    best_at(whole=1.0, attention=1.5e-3)
    found = sweep.run_sweep(config_of(tmp_path, max_extensions=2))
    whole = found["patterns"]["(AI)*2"]
    assert (whole["learning_rate"], whole["interior"]) == (8e-3, False)
    assert len(whole["curve"]) == 4
    lines = sweep.table(found).splitlines()
    assert "(AI)*2: the best rate 0.008 is at the edge of those measured" in lines[-1]
    assert not any(line.startswith("A*2:") for line in lines)


def test_diverged_runs_are_infinitely_bad_shown_and_not_run_again(tmp_path, best_at):
    asked = best_at(diverging=3e-3, whole=1.0, attention=2e-3)
    config = config_of(tmp_path)
    found = sweep.run_sweep(config)
    for pattern in found["patterns"].values():
        assert (pattern["learning_rate"], pattern["interior"]) == (2e-3, True)
        assert pattern["curve"][-1] == {"learning_rate": 4e-3, "loss": None, "losses": [None] * 2}
    assert "diverged" in sweep.table(found)
    diverged = [run for run in asked if run[1] > 3e-3]
    asked.clear()
    assert sweep.run_sweep(config) == found
    assert diverged and not any(run in asked for run in diverged)


def test_a_pattern_that_always_diverges_has_no_rate(tmp_path, best_at):
    best_at(diverging=0.0, whole=1.0, attention=1.0)
    found = sweep.run_sweep(config_of(tmp_path, max_extensions=1))
    whole = found["patterns"]["(AI)*2"]
    assert whole["learning_rate"] is None and whole["loss"] is None and not whole["interior"]
    assert [point["learning_rate"] for point in whole["curve"]] == [5e-4, 1e-3, 2e-3]
    assert "(AI)*2: every run diverged" in sweep.table(found)


def test_a_sweep_grows_but_never_changes_its_recipe(tmp_path, best_at):
    best_at(whole=1.5e-3, attention=1.5e-3)
    config = config_of(tmp_path)
    sweep.run_sweep(config)
    sweep.run_sweep(config.replace(pilot_seeds=(7, 8, 9), learning_rates=(1e-3, 2e-3, 3e-3)))
    with pytest.raises(InputError, match="num_train_steps: 10 there, 20 asked for"):
        sweep.run_sweep(config.replace(pretraining=RECIPE.replace(num_train_steps=20)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rates": (1e-3,)}, "learning_rates must list 2 or more values"),
        ({"learning_rates": (2e-3, 1e-3)}, "that rise, got 0.002, 0.001"),
        ({"learning_rates": (0.0, 1e-3)}, "learning_rates must be above 0, got 0.0"),
        ({"patterns": ("AA", "A*2")}, r"two patterns of AA, A\*2 spell the same blocks"),
        ({"pilot_seeds": ()}, "pilot_seeds must list 1 or more values"),
        ({"pilot_seeds": (1, 2, 1)}, "pilot_seeds has a seed twice: 1, 2, 1"),
        ({"pilot_seeds": (-1,)}, "pilot_seeds must be from 0 to"),
        ({"max_extensions": -1}, "max_extensions must be at least 0, got -1"),
    ],
)
def test_sweeps_of_nothing_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        config_of(tmp_path, **changes)


def test_a_study_trains_each_pattern_at_the_rate_of_the_sweep(tmp_path, best_at):
    best_at(whole=4e-3, attention=1e-3)
    sweep.run_sweep(config_of(tmp_path))
    study = StudyConfig(
        patterns=("(AI)*2", "A*2"), budgets=("steps", "flops"), tasks=("wiki_topic",), seed=20,
        pretraining=RECIPE.replace(num_train_steps=1000), num_pretraining_seeds=2,
    )  # fmt: skip
    tuned = sweep.with_rates(study, tmp_path / "sweep.json")
    assert tuned.learning_rates == {("(AI)*2", ""): 4e-3, ("A*2", ""): 1e-3}
    assert tuned.pilot_seeds == (7, 8)
    cells = [cell for cell in grid.expand(tuned) if cell.kind.name == "pretraining"]
    found = {(c.label["pattern"], c.recipe.learning_rate, c.label.get("budget")) for c in cells}
    assert found == {("(AI)*2", 4e-3, None), ("A*2", 1e-3, None), ("A*2", 1e-3, "flops")}
    assert StudyConfig.from_dict(tuned.to_dict()) == tuned
    for seed in (6, 7, 8):  # It has two seeds from there on.
        with pytest.raises(InputError, match="of the study is one of the pilot_seeds"):
            sweep.with_rates(study.replace(seed=seed), tmp_path / "sweep.json")
    for other, message in [
        (study.replace(patterns=("(AI)*2", "AAI")), "has no learning rate for A.2I; it has some"),
        (study.replace(pretraining=RECIPE.replace(optimizer="lamb")), "rates for adamw, but the"),
    ]:
        with pytest.raises(InputError, match=message):
            sweep.with_rates(other, tmp_path / "sweep.json")


def test_each_size_has_the_rates_of_its_own_sweep(tmp_path, best_at):
    study = StudyConfig(patterns=("(AI)*2", "A*2"), sizes=("16x1",), seed=20, pretraining=RECIPE)
    paths = []
    for size, rate in (("8x2", 4e-3), ("16x1", 1e-3)):
        best_at(whole=rate, attention=rate)
        encoder = study.encoder("A", "" if size == "8x2" else size)
        config = config_of(tmp_path / size).replace(pretraining=RECIPE.replace(encoder=encoder))
        sweep.run_sweep(config)
        paths.append(tmp_path / size / "sweep.json")
    tuned = sweep.with_rates(study, *reversed(paths))
    found = {
        (cell.recipe.encoder.hidden_size, cell.recipe.learning_rate)
        for cell in grid.expand(tuned)
        if cell.kind.name == "pretraining"
    }
    assert found == {(8, 4e-3), (16, 1e-3)}
    with pytest.raises(InputError, match="are of size 8x2, none is of 16x1: .*hidden_size=16"):
        sweep.with_rates(study, paths[0])
    with pytest.raises(InputError, match="and another sweep are both of size 8x2"):
        sweep.with_rates(study, paths[0], paths[0])


def test_a_rate_at_the_edge_of_its_sweep_is_refused(tmp_path, best_at):
    best_at(whole=1.5e-3, attention=1e-1)
    sweep.run_sweep(config_of(tmp_path, max_extensions=1))
    study = StudyConfig(patterns=("(AI)*2", "A*2"), seed=20, pretraining=RECIPE)
    with pytest.raises(InputError, match=r"the best rate of A\*2, .* is at the edge"):
        sweep.with_rates(study, tmp_path / "sweep.json")


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        (("A*2=x", "(AI)*2=1"), "must list PATTERN=RATE .* got 'A\\*2=x'"),
        (("A*2=1e-3",), r"every pattern .* but \(AI\)\*2 is only in the study"),
        (("AA=1e-3", "AIAI=1", "AAA=1"), "no\\s+other, but A\\*3 is only there"),
        (("AA=1", "AIAI=1", "AA@64x1=1"), "but A\\*2@64x1 is only there"),
    ],
)
def test_rates_that_are_not_those_of_the_patterns_are_refused(rates, message):
    with pytest.raises(InputError, match=message):
        StudyConfig(patterns=("(AI)*2", "A*2"), pattern_learning_rates=rates)


def test_budgets_of_branches_keep_their_share_of_other_steps():
    recipe = RECIPE.replace(
        num_train_steps=1000, num_warmup_steps=50, learning_rate_schedule="trapezoid",
        cooldown_steps=(250, 500),
    )  # fmt: skip
    longer = budgets.with_steps(recipe, 1.5)
    assert (longer.num_train_steps, longer.cooldown_steps) == (1500, (375, 750))
    assert recipe.branch_steps() == 50 + 100
    # The branches run from 200 to 250 and from 400 to 500.
    assert recipe.branch_steps(0, 230) == 30 and recipe.branch_steps(230, 450) == 20 + 50
