"""Cooldown branches of a run against uninterrupted runs of their budgets."""

import json
import pathlib

import numpy as np
import pytest
import toys
from safetensors.numpy import load_file

from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.training import pretraining

BUDGETS = (5, 10, 15)
OF_A_BRANCH = {"steps", "tokens", "training_flops", "training_seconds", "validation"}


def config_of(workdir, toy, **changes):
    """Twenty steps with dropout and a masking rate that falls."""
    values = {
        "num_train_steps": 20,
        "learning_rate_schedule": "trapezoid",
        "cooldown_fraction": 0.4,
        "cooldown_steps": BUDGETS,
        "masked_lm_prob": 0.15,
        "initial_masked_lm_prob": 0.4,
        "eval_every_steps": 3,
        "save_checkpoints_steps": 4,
        **changes,
    }
    return toys.pretraining_config(workdir, toy, **values)


@pytest.fixture(scope="module")
def branched(toy, tmp_path_factory):
    config = config_of(tmp_path_factory.mktemp("branched") / "run", toy)
    return config, pretraining.pretrain(config)


def assert_equal_checkpoints(one, other):
    one, other = checkpoints.resolve(one), checkpoints.resolve(other)
    names = [str(path.relative_to(one)) for path in one.rglob("*.safetensors")]
    assert len(names) >= 2
    for name in names:
        first, second = (load_file(path / name) for path in (one, other))
        assert first.keys() == second.keys()
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])


def branch_of(config, steps):
    return pathlib.Path(config.workdir) / "branches" / f"step_{steps:08d}"


def assert_branch_equals(config, results, alone):
    """The branch of a run, or the run itself, against an uninterrupted run without branches."""
    steps = alone.num_train_steps
    expected = pretraining.pretrain(alone)
    where = branch_of(config, steps) if steps in BUDGETS else config.workdir
    assert_equal_checkpoints(where, alone.workdir)
    found = json.loads((pathlib.Path(where) / "results.json").read_text())
    summary = next(branch for branch in results["branches"] if branch["steps"] == steps)
    assert set(summary) == OF_A_BRANCH
    for key in ("steps", "tokens", "training_flops"):
        assert found[key] == expected[key] == summary[key], key
    if not config.curriculum:  # Rows are evaluated in batches of the size of the last stage.
        for key in ("validation_history", "best", "validation"):
            assert found[key] == expected[key], key
    assert summary["validation"] == found["validation"]
    assert summary["validation"]["loss"] == pytest.approx(expected["validation"]["loss"], rel=1e-5)


def test_a_branch_equals_a_run_of_its_budget_bit_for_bit(branched, tmp_path):
    config, results = branched
    for steps in (10, 20):
        alone = config.replace(
            workdir=str(tmp_path / f"{steps}"), num_train_steps=steps, cooldown_steps=()
        )
        assert_branch_equals(config, results, alone)
    assert [branch["steps"] for branch in results["branches"]] == [*BUDGETS, 20]


@pytest.mark.slow
def test_a_branch_equals_a_run_with_muon_and_a_batch_that_grows(toy, tmp_path):
    config = config_of(
        tmp_path / "run", toy, optimizer="muon", ema_momentum=0.5, cooldown_shape="1-sqrt",
        curriculum=(f"8:6:{toy}", f"12:8:{toy}"),
    )  # fmt: skip
    results = pretraining.pretrain(config)
    for steps, stages in ((5, 0), (10, 1), (20, 2)):
        alone = config.replace(
            workdir=str(tmp_path / f"{steps}"), num_train_steps=steps, cooldown_steps=(),
            curriculum=config.curriculum[:stages],
        )  # fmt: skip
        assert_branch_equals(config, results, alone)


def test_a_branch_loads_like_a_run(branched):
    config, _ = branched
    encoder, _ = checkpoints.load_encoder(branch_of(config, 10), seed=1)
    path = checkpoints.resolve(branch_of(config, 10))
    assert path.name == "step_00000010"
    weights = load_file(path / "weights.safetensors")
    for variable in encoder.weights:
        np.testing.assert_array_equal(variable, weights[variable.path])


@pytest.mark.parametrize(
    "taken", [4, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 8, 14))]
)
def test_a_run_stopped_in_trunk_or_branch_goes_on(branched, tmp_path, monkeypatch, taken):
    """The order of steps: 1-3, branch 4-5; 4-6, branch 7-10; 7-9, branch 10-15; 10-20."""
    whole, results = branched
    config = whole.replace(workdir=str(tmp_path / "run"))
    step = pretraining.Trainer.step
    steps = []

    def stop(self, batch, stop=False):
        steps.append(int(self.optimizer.iterations) + 1)
        return step(self, batch, len(steps) == taken)

    with monkeypatch.context() as patch:
        patch.setattr(pretraining.Trainer, "step", stop)
        with pytest.raises(SystemExit, match="143"):
            pretraining.pretrain(config)
        assert len(steps) == taken
        patch.setattr(pretraining.Trainer, "step", lambda s, b, stop=False: stop_never(s, b))

        def stop_never(self, batch):
            steps.append(int(self.optimizer.iterations) + 1)
            return step(self, batch)

        resumed = pretraining.pretrain(config)
    pieces = ((1, 3), (4, 5), (4, 6), (7, 10), (7, 9), (10, 15), (10, 20))
    assert steps == [n for first, last in pieces for n in range(first, last + 1)]
    for budget in BUDGETS:
        assert_equal_checkpoints(branch_of(config, budget), branch_of(whole, budget))
    assert_equal_checkpoints(config.workdir, whole.workdir)
    assert resumed["validation_history"] == results["validation_history"]
    assert resumed["training_history"] == results["training_history"]
    validations = [[b["validation"] for b in r["branches"]] for r in (resumed, results)]
    assert validations[0] == validations[1]


def test_budgets_that_do_not_fit_are_refused(toy, tmp_path):
    for changes, message in [
        ({"cooldown_steps": (10, 5)}, "must increase and be below num_train_steps 20, got 10, 5"),
        ({"cooldown_steps": (20,)}, "must increase and be below num_train_steps 20, got 20"),
        ({"cooldown_steps": (2,)}, "to step 2 starts at step 1, before or within the 2 num"),
        ({"learning_rate_schedule": "linear"}, r"need --learning_rate_schedule=trapezoid"),
        ({"cooldown_fraction": 0.0}, r"cooldown_fraction must be above 0"),
    ]:
        with pytest.raises(InputError, match=message):
            config_of(tmp_path / "run", toy, **changes)


def test_a_branch_whose_results_are_gone_is_missed(branched, tmp_path):
    """The run has passed the place where it begins, so nothing can make it again."""
    whole, _ = branched
    config = config_of(tmp_path / "run", whole.records_dir)
    trainer = pretraining.Trainer(config)
    with pytest.raises(InputError, match="step 4 and has passed step 3, where this branch starts"):
        trainer.train({**trainer.restore(), "step": 4})
