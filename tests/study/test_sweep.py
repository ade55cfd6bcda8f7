import json
import math

import made_up_study
import pytest

from undivided_tf import accounting, tokenization
from undivided_tf.config import EncoderConfig
from undivided_tf.data.corpus import records
from undivided_tf.data.corpus.config import RecordsConfig
from undivided_tf.errors import InputError
from undivided_tf.study import budgets, grid, report, sweep, swept_rates
from undivided_tf.study.config import StudyConfig, SweepConfig
from undivided_tf.training import pretraining
from undivided_tf.training.config import PretrainingConfig

ENCODER = EncoderConfig(hidden_size=8, num_attention_heads=2, intermediate_size=16)
RECIPE = PretrainingConfig(encoder=ENCODER, num_train_steps=10, num_warmup_steps=1)


def config_of(workdir, **changes):
    values = {
        "patterns": ("(AI)*2", "AA"),
        "learning_rates": (1e-3, 2e-3),
        "pilot_seeds": (7, 8),
        "pretraining": RECIPE,
    }
    return SweepConfig(workdir=str(workdir), **{**values, **changes})


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


def test_a_sweep_goes_on_from_kept_results_without_its_runs(tmp_path, best_at):
    asked = best_at(whole=1.5e-3, attention=6e-3, diverging=9e-3)
    first = sweep.run_sweep(config_of(tmp_path / "first"))
    assert {seed for _, _, seed in asked} == {7, 8}
    asked.clear()
    kept = str(tmp_path / "first" / "sweep.json")
    again = sweep.run_sweep(config_of(tmp_path / "again", records_dir="moved"), kept)
    assert again["patterns"] == first["patterns"] and not asked
    sweep.run_sweep(config_of(tmp_path / "more", pilot_seeds=(7, 8, 9)), kept)
    assert {seed for _, _, seed in asked} == {9}
    other = RECIPE.replace(num_train_steps=11)
    with pytest.raises(InputError, match="num_train_steps: 10 there, 11 asked for"):
        sweep.run_sweep(config_of(tmp_path / "other", pretraining=other), kept)
    assert not (tmp_path / "other").exists()


def test_a_kept_sweep_of_other_records_is_refused(tmp_path, best_at):
    asked = best_at(whole=1.5e-3, attention=1.5e-3)
    for name in ("first", "same", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / records.METADATA).write_text("{}" if name != "other" else "[]")
    sweep.run_sweep(config_of(tmp_path / "run", records_dir=str(tmp_path / "first")))
    kept = str(tmp_path / "run" / "sweep.json")
    asked.clear()
    sweep.run_sweep(config_of(tmp_path / "again", records_dir=str(tmp_path / "same")), kept)
    assert not asked
    with pytest.raises(InputError, match="measured on other records"):
        sweep.run_sweep(config_of(tmp_path / "no", records_dir=str(tmp_path / "other")), kept)


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
        ({"core_patterns": 9}, "core_patterns must be at most 2, the number of patterns, got 9"),
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
    tuned = swept_rates.with_rates(study, tmp_path / "sweep.json")
    assert tuned.learning_rates == {("(AI)*2", "", "steps"): 4e-3, ("A*2", "", "steps"): 1e-3}
    assert tuned.pilot_seeds == (7, 8)
    cells = [cell for cell in grid.expand(tuned) if cell.kind.name == "pretraining"]
    found = {(c.label["pattern"], c.recipe.learning_rate, c.label.get("budget")) for c in cells}
    assert found == {("(AI)*2", 4e-3, None), ("A*2", 1e-3, None), ("A*2", 1e-3, "flops")}
    assert StudyConfig.from_dict(tuned.to_dict()) == tuned
    for seed in (6, 7, 8):  # It has two seeds from there on.
        with pytest.raises(InputError, match="of the study is one of the pilot_seeds"):
            swept_rates.with_rates(study.replace(seed=seed), tmp_path / "sweep.json")
    for other, message in [
        (study.replace(patterns=("(AI)*2", "AAI")), "has no learning rate for A.2I; it has some"),
        (study.replace(pretraining=RECIPE.replace(optimizer="lamb")), "rates for adamw, but the"),
    ]:
        with pytest.raises(InputError, match=message):
            swept_rates.with_rates(other, tmp_path / "sweep.json")


def test_each_size_has_the_rates_of_its_own_sweep(tmp_path, best_at):
    study = StudyConfig(patterns=("(AI)*2", "A*2"), sizes=("16x1",), seed=20, pretraining=RECIPE)
    paths = []
    for size, rate in (("8x2", 4e-3), ("16x1", 1e-3)):
        best_at(whole=rate, attention=rate)
        encoder = study.encoder("A", "" if size == "8x2" else size)
        config = config_of(tmp_path / size).replace(pretraining=RECIPE.replace(encoder=encoder))
        sweep.run_sweep(config)
        paths.append(tmp_path / size / "sweep.json")
    tuned = swept_rates.with_rates(study, *reversed(paths))
    found = {
        (cell.recipe.encoder.hidden_size, cell.recipe.learning_rate)
        for cell in grid.expand(tuned)
        if cell.kind.name == "pretraining"
    }
    assert found == {(8, 4e-3), (16, 1e-3)}
    with pytest.raises(InputError, match="are of size 8x2, none is of 16x1: .*hidden_size=16"):
        swept_rates.with_rates(study, paths[0])
    with pytest.raises(InputError, match="and another sweep are both of size 8x2"):
        swept_rates.with_rates(study, paths[0], paths[0])


def test_a_rate_at_the_edge_of_its_sweep_is_refused(tmp_path, best_at):
    best_at(whole=1.5e-3, attention=1e-1)
    sweep.run_sweep(config_of(tmp_path, max_extensions=1))
    study = StudyConfig(patterns=("(AI)*2", "A*2"), seed=20, pretraining=RECIPE)
    with pytest.raises(InputError, match=r"the best rate of A\*2, .* is at the edge"):
        swept_rates.with_rates(study, tmp_path / "sweep.json")


WIDE = RECIPE.replace(
    encoder=EncoderConfig(hidden_size=128, num_attention_heads=2, intermediate_size=512)
)


@pytest.fixture
def partners_swept(tmp_path, best_at, monkeypatch):
    """A sweep of A*2 and its partners: the loss of an encoder is least with the wider hidden."""
    best_at(whole=1.5e-3, attention=1.5e-3)
    monkeypatch.setattr(
        records,
        "read_tokenizer",
        lambda _: tokenization.Tokenizer([*tokenization.SPECIAL_TOKENS, *"abcdefghijk"]),
    )

    def pretrain(run):
        best = {128: 1.5e-3}.get(run.encoder.hidden_size, 6e-3)
        wider = 3.0 if run.encoder.hidden_size > 128 else 0.0
        deeper = 0.1 * run.encoder.pattern.num_attention
        return {
            "validation": {"loss": 4 + abs(math.log(run.learning_rate / best)) - wider - deeper}
        }

    monkeypatch.setattr(pretraining, "pretrain", pretrain)
    shapes = ("more_attention", "wider_intermediate", "wider_hidden")
    return sweep.run_sweep(
        config_of(tmp_path, partners=shapes, pretraining=WIDE)
    ), tmp_path / "sweep.json"


def test_partners_have_the_parameters_of_the_first_pattern_and_rates_of_their_own(partners_swept):
    found, _ = partners_swept
    assert list(found["partners"]) == ["A*2"]
    deeper, none, wider = found["partners"]["A*2"].values()
    assert none == {"reason": "A*2 has no intermediate block that could widen"}
    whole = WIDE.encoder.replace(block_pattern="(AI)*2", vocab_size=16)
    full = accounting.count_parameters(whole)
    for partner in (deeper, wider):
        encoder = EncoderConfig.from_dict(partner["encoder"]).replace(vocab_size=16)
        assert accounting.count_parameters(encoder) == pytest.approx(full, rel=budgets.TOLERANCE)
    assert (wider["learning_rate"], wider["interior"]) == (8e-3, True)
    assert deeper["learning_rate"] == found["patterns"]["A*2"]["learning_rate"] == 2e-3
    table = sweep.table(found)
    assert "A*2, more_attention" in table and "A*2, wider_hidden" in table
    assert "A*2, wider_intermediate: no such partner, since A*2 has no intermediate" in table


def test_core_patterns_alone_have_partners(partners_swept):
    found, path = partners_swept
    config = SweepConfig.from_dict(found["config"])
    more = config.replace(patterns=(*config.patterns, "A*3"), core_patterns=2)
    grown = sweep.run_sweep(more, str(path))
    assert list(grown["patterns"]) == [*found["patterns"], "A*3"]
    assert grown["partners"] == found["partners"]


def test_a_study_takes_the_shape_that_is_best_on_pilot_seeds(partners_swept):
    found, path = partners_swept
    study = StudyConfig(
        patterns=("(AI)*2", "A*2"), budgets=("steps", "parameters", "more_attention"), seed=20,
        pretraining=WIDE, records=RecordsConfig(vocab_size=16),
    )  # fmt: skip
    with pytest.raises(InputError, match="needs the shapes .* --learning_rate_sweep"):
        grid.expand(study)
    tuned = swept_rates.with_rates(study, path)
    assert tuned.shapes == {("A*2", ""): "wider_hidden"}
    arms = {
        (cell.label["pattern"], cell.label.get("budget")): cell.recipe
        for cell in grid.expand(tuned)
        if cell.kind.name == "pretraining"
    }
    swept = found["partners"]["A*2"]
    for budget, shape in (("parameters", "wider_hidden"), ("more_attention", "more_attention")):
        recipe = arms["A*2", budget]
        assert recipe.encoder == EncoderConfig.from_dict(swept[shape]["encoder"])
        assert recipe.learning_rate == swept[shape]["learning_rate"]
    assert StudyConfig.from_dict(tuned.to_dict()) == tuned
    other = study.replace(patterns=("(AI)*3", "(AI)*2", "A*2"))
    with pytest.raises(InputError, match="has no learning rate for"):
        swept_rates.with_rates(other, path)
    found["patterns"] = dict(reversed(found["patterns"].items()))
    path.write_text(json.dumps(found))
    with pytest.raises(InputError, match=r"parameters of A\*2, but the reference .* \(AI\)\*2"):
        swept_rates.with_rates(study, path)


def test_the_report_shows_the_curves_of_its_sweeps(partners_swept, tmp_path):
    swept, _ = partners_swept
    raw = made_up_study.results(patterns=("(AI)*2", "A*2"))
    raw["sweeps"] = [{**swept, "patterns": {**swept["patterns"], "A*9": swept["patterns"]["A*2"]}}]
    report.write_report(raw, tmp_path)
    text = (tmp_path / "report.md").read_text()
    (row,) = (
        line for line in text.splitlines() if line.startswith("| 128x2 | `A*2, wider_hidden`")
    )
    (best,) = (
        p for p in swept["partners"]["A*2"]["wider_hidden"]["curve"] if p["learning_rate"] == 8e-3
    )
    assert "| 0.008 |" in row and f"0.008: {best['loss']:.3f}" in row
    assert "figures/learning_rates.svg" in text and "A\\*9" not in text and "`A*9`" not in text
    assert "A*2, wider_hidden" in (tmp_path / "figures" / "learning_rates.svg").read_text()
    swept["partners"]["A*2"]["wider_hidden"] |= {
        "learning_rate": None, "loss": None, "curve": [
            {"learning_rate": 8e-3, "loss": None, "losses": [None]}
        ],
    }  # fmt: skip
    report.write_report(raw, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| `A*2, wider_hidden` | every run diverged |" in text
    del raw["sweeps"]
    report.write_report(raw, tmp_path)
    assert "Sweeps of the learning rate" not in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (("A*2=deep",), r"must list PATTERN=BUDGET such as .* got 'A\*2=deep'"),
        (("(AI)*2=wider_hidden",), r"partner_shapes has \(AI\)\*2, which has no partner"),
        (("A*2:flops=wider_hidden",), r"partner_shapes has A\*2:flops, but takes no budget"),
    ],
)
def test_shapes_of_no_partner_are_refused(shapes, message):
    with pytest.raises(InputError, match=message):
        StudyConfig(patterns=("(AI)*2", "A*2"), partner_shapes=shapes)


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        (("A*2=x", "(AI)*2=1"), "must list PATTERN=RATE .* got 'A\\*2=x'"),
        (("A*2=1e-3",), r"every pattern .* but \(AI\)\*2 is only in the study"),
        (("AA=1e-3", "AIAI=1", "AAA=1"), "no\\s+other, but A\\*3 is only there"),
        (("AA=1", "AIAI=1", "AA@64x1=1"), "but A\\*2@64x1 is only there"),
        (("AA=1", "AIAI=1", "AIAI:parameters=1"), r"but \(AI\)\*2:parameters is only there"),
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
