"""Each budget gives a pattern the reference's budget, and the grid the cells that this takes."""

import dataclasses

import made_up_cells
import pytest

from undivided_tf import accounting
from undivided_tf.config import EncoderConfig
from undivided_tf.data.corpus.config import RecordsConfig
from undivided_tf.errors import InputError
from undivided_tf.study import budgets, grid, kept, outcomes, running
from undivided_tf.study.budgets import Arm
from undivided_tf.study.config import StudyConfig
from undivided_tf.support.process import machine
from undivided_tf.training.config import PretrainingConfig

CONFIG = StudyConfig(
    patterns=("(AI)*6", "(AAI)*3", "A*6"),
    budgets=("steps", "flops", "time", *budgets.INVESTMENTS, "surgery"),
    tasks=("wiki_topic",),
    records=RecordsConfig(vocab_size=1000, max_seq_length=64),
    pretraining=PretrainingConfig(
        encoder=EncoderConfig(hidden_size=128, num_attention_heads=1, intermediate_size=512),
        num_train_steps=1000, num_warmup_steps=100, train_batch_size=4,
    ),
    seed=5,
)  # fmt: skip


def pretraining(config=CONFIG):
    """Pre-training cells by pattern, seed and budget."""
    return {
        (c.label["pattern"], c.label["seed"], c.label.get("budget", "steps")): c
        for c in grid.expand(config)
        if c.kind.name == "pretraining" and "size" not in c.label
    }


def size(recipe):
    return accounting.count_parameters(recipe.encoder.replace(vocab_size=1000))


def test_equal_parameters_come_within_a_hundredth():
    cells = pretraining()
    full = size(cells["(AI)*6", 5, "steps"].recipe)
    partners = {key: c for key, c in cells.items() if key[2] in budgets.INVESTMENTS}
    # A*6 has no intermediate block that could widen.
    assert len(partners) == 7 and ("A*6", 5, "wider_intermediate") not in partners
    for key, found in partners.items():
        assert abs(size(found.recipe) / full - 1) <= 0.01, key
        assert found.recipe.num_train_steps == 1000
    [why] = budgets.infeasible(CONFIG)
    assert "`A*6` cannot have" in why and "no intermediate block that could widen" in why


def test_equal_flops_are_equal():
    cells = pretraining()
    full, own = (
        c.recipe.num_train_steps * budgets.step_flops(CONFIG, c.recipe.encoder)
        for c in (cells["(AI)*6", 5, "steps"], cells["A*6", 5, "flops"])
    )
    assert own == pytest.approx(full, rel=1e-3)
    recipe = cells["A*6", 5, "flops"].recipe
    assert recipe.num_warmup_steps == round(recipe.num_train_steps / 10)


def timed(*rounds):
    """Outcomes of cells: of timings these `(own, reference)` milliseconds, of others none."""
    own, full = map(list, zip(*rounds, strict=True))
    outcome = {"result": {"milliseconds": own, "reference_milliseconds": full}}
    return lambda cell: outcome if cell.kind.name == "timing" else None


def test_measured_times_decide_the_steps_and_the_hash():
    planned = pretraining()["A*6", 5, "time"]
    assert planned.label["budget"] == "time" and planned.timing in planned.needs
    found = grid.resolved(planned, timed((20.0, 30.0)))
    assert (found.recipe.num_train_steps, found.recipe.num_warmup_steps) == (1500, 150)
    again = grid.resolved(planned, timed((20.0, 33.0)))
    assert again.recipe.num_train_steps == 1650
    assert len({planned.hash, found.hash, again.hash}) == 3
    [tuned] = [c for c in grid.expand(CONFIG) if c.label.get("budget") == "time"
               and c.kind.name == "finetuning" and c.label["pattern"] == "A*6"]  # fmt: skip
    after = grid.resolved(tuned, timed((20.0, 30.0)))
    assert after.places["init_checkpoint"].hash == found.hash and after.hash != tuned.hash
    assert grid.resolved(tuned, lambda cell: None) is None


def test_a_machine_that_slows_down_changes_no_steps():
    planned = pretraining()["A*6", 5, "time"]
    # Four times as slow at the end, and once the load of a moment met one of the two.
    found = grid.resolved(planned, timed((20.0, 30.0), (20.0, 90.0), (80.0, 120.0)))
    assert found.recipe.num_train_steps == 1500


def test_one_timing_a_pattern_serves_all_seeds():
    config = CONFIG.replace(num_pretraining_seeds=2, core_patterns=2, budgets=("time",))
    cells = grid.expand(config)
    timings = {c.label["pattern"]: c for c in cells if c.kind.name == "timing"}
    assert set(timings) == {"(AAI)*3", "A*6"}  # The latter for the table of costs alone.
    later = [c for c in cells if c.timing]
    assert [c.label["seed"] for c in later] == [5, 6]
    assert {c.timing.name for c in later} == {timings["(AAI)*3"].name}


def test_partners_are_timed_where_their_pattern_alone_is_another():
    """Beside a wider one the reference would have to be built with other sizes than its own."""
    timings = [c for c in grid.expand(CONFIG) if c.kind.name == "timing"]
    assert [(c.label["pattern"], c.label.get("budget")) for c in timings] == [
        ("(AAI)*3", None), ("A*6", None), ("(AAI)*3", "more_attention"), ("A*6", "more_attention"),
    ]  # fmt: skip
    partner = timings[-1].recipe.pretraining.encoder
    assert partner == budgets.partner(CONFIG, "A*6", "more_attention")


def test_other_budgets_are_fine_tuned_only_and_of_core_patterns_only():
    config = CONFIG.replace(core_patterns=2, num_pretraining_seeds=2, budgets=("flops",))
    cells = [c for c in grid.expand(config) if "budget" in c.label]
    assert {c.label["pattern"] for c in cells} == {"(AAI)*3"}
    assert sorted(c.kind.name for c in cells) == ["finetuning"] * 2 + ["pretraining"] * 2


def test_core_patterns_have_all_their_seeds_first_and_each_seed_is_whole():
    config = CONFIG.replace(core_patterns=2, num_pretraining_seeds=2, budgets=("flops",))
    order = [
        (c.label["pattern"], c.label["seed"], c.label.get("budget"))
        for c in grid.expand(config)
        if c.kind.name == "pretraining"
    ]
    assert order == [
        ("(AI)*6", 5, None), ("(AAI)*3", 5, None), ("(AI)*6", 6, None), ("(AAI)*3", 6, None),
        ("A*6", 5, None), ("(AAI)*3", 5, "flops"), ("A*6", 6, None), ("(AAI)*3", 6, "flops"),
    ]  # fmt: skip
    kinds = [c.kind.name for c in grid.expand(config)]
    assert kinds.index("probing") < len(kinds) - 1 - kinds[::-1].index("pretraining")


def from_random_weights(cells):
    return {c.label["pattern"] for c in cells if c.label.get("start") == "scratch"}


def test_patterns_beyond_the_core_may_have_fewer_seeds_and_no_random_weights():
    options = {"core_patterns": 2, "num_pretraining_seeds": 3, "num_other_seeds": 1}
    config = CONFIG.replace(**options, budgets=("steps",))
    cells = grid.expand(config)
    seeds = [(c.label["pattern"], c.label["seed"]) for c in cells if c.kind.name == "pretraining"]
    assert seeds == [
        (pattern, seed) for seed in (5, 6, 7) for pattern in ("(AI)*6", "(AAI)*3")
    ] + [("A*6", 5)]  # fmt: skip
    assert from_random_weights(cells) == {"(AI)*6", "(AAI)*3"}
    for number in (1, 3):
        asked = config.replace(from_scratch_patterns=number)
        assert from_random_weights(grid.expand(asked)) == set(config.patterns[:number])
    last = {c.label["pattern"] for c in cells if c.turn == 3 and c.kind.name == "finetuning"}
    assert last == {"A*6"}
    with pytest.raises(InputError, match="num_other_seeds must be at most .* = 3, got 4"):
        config.replace(num_other_seeds=4)


def test_what_is_cut_out_starts_from_the_reference_of_its_seed():
    """Healing brings weights along, so it drops the study's initial values."""
    start = {"output_bias_initializer": "unigram", "zero_residual_outputs": True}
    config = CONFIG.replace(
        budgets=("surgery",), num_pretraining_seeds=2, healing_proportion=0.25,
        pretraining=CONFIG.pretraining.replace(position_initializer="neighbours", **start),
    )  # fmt: skip
    cells = grid.expand(config)
    operations = {c.label["pattern"]: c for c in cells if c.kind.name == "surgery" and c.turn == 3}
    trained = pretraining(config)
    for pattern in ("(AAI)*3", "A*6"):
        healed, operation = trained[pattern, 6, "surgery"], operations[pattern]
        assert healed.places["init_checkpoint"] == operation
        assert operation.places == {"input": trained["(AI)*6", 6, "steps"]}
        assert operation.recipe.block_pattern == pattern and operation.label["budget"] == "surgery"
        assert (healed.recipe.num_train_steps, healed.recipe.num_warmup_steps) == (250, 25)
        assert healed.recipe.replace(init_checkpoint="there").position_initializer == "normal"
        assert trained[pattern, 6, "steps"].recipe.position_initializer == "neighbours"
        assert cells.index(operation) < cells.index(healed)
    assert sum(c.kind.name == "surgery" for c in cells) == 4  # Two patterns, two seeds.
    tuned = [c for c in cells if c.kind.name == "finetuning" and c.label.get("budget") == "surgery"]
    assert len(tuned) == 4 and {c.label["start"] for c in tuned} == {"pretrained"}


def test_only_what_the_reference_has_can_be_cut_out_of_it():
    config = CONFIG.replace(budgets=("surgery",), patterns=("(AAI)*3", "(AI)*6", "A*9", "A*6"))
    more_intermediate, more_attention = budgets.infeasible(config)
    assert "`(AI)*6` cannot have" in more_intermediate and "no counterpart" in more_intermediate
    assert "`A*9` cannot have" in more_attention and "more attention blocks" in more_attention
    made = {c.label["pattern"] for c in grid.expand(config) if c.kind.name == "surgery"}
    assert made == {"A*6"}


def test_a_partner_that_is_in_the_grid_is_not_trained_twice():
    partner = budgets.partner(CONFIG, "A*6", "more_attention").block_pattern
    config = CONFIG.replace(patterns=(*CONFIG.patterns, partner), budgets=("more_attention",))
    assert budgets.same_as(config, "A*6", "more_attention") == partner
    assert budgets.same_as(config, partner, "more_attention") == partner  # It has its budget.
    made = [c.label["pattern"] for c in grid.expand(config) if "budget" in c.label]
    assert set(made) == {"(AAI)*3"}


def test_sizes_multiply_the_grid():
    config = CONFIG.replace(sizes=("32x2",), budgets=("steps",))
    cells = grid.expand(config)
    assert len(cells) == 2 * len(grid.expand(CONFIG.replace(budgets=("steps",)))) - 1
    assert len({c.name for c in cells}) == len(cells)
    small = next(c for c in cells if c.label.get("size") and c.kind.name == "pretraining").recipe
    encoder = small.encoder
    assert (encoder.hidden_size, encoder.num_attention_heads, encoder.intermediate_size) == (
        32, 2, 128
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": ("speed",)}, "budgets must be one of steps, .*, got 'speed'"),
        ({"sizes": ("big",)}, "HIDDENxHEADS"),
        ({"core_patterns": 9}, "core_patterns must be"),
        ({"from_scratch_patterns": 4}, "from_scratch_patterns must be at most 3"),
        ({"healing_proportion": 0.0}, "healing_proportion must be"),
    ],
)
def test_what_cannot_be(changes, message):
    with pytest.raises(InputError, match=message):
        CONFIG.replace(**changes)


@pytest.mark.slow
def test_cells_of_equal_time_run_with_the_steps_that_were_measured(tmp_path):
    """A real cluster and places; only what a cell computes is made up."""
    config = CONFIG.replace(budgets=("time",), patterns=("(AI)*6", "A*6"))
    cells = [c for c in grid.expand(config) if c.kind.name in ("records", "pretraining", "timing")]
    cells = made_up_cells.with_invented_results(cells)
    running.run(cells[:-1], tmp_path)
    # A cell that failed with the steps that were measured is tried again.
    failed = outcomes.outcome(outcomes.actual(cells[-1], tmp_path), error="no luck")
    outcomes.write(failed, tmp_path)
    found = running.run(cells, tmp_path)
    *_, last = found
    assert last["label"]["budget"] == "time" and last["result"]["steps"] == 1500
    assert last["machine"] == machine()
    assert (tmp_path / "cells" / last["name"] / "finished.json").exists()
    assert last["name"] != cells[-1].name
    assert running.run(cells, tmp_path) == found
    elsewhere = tmp_path / "elsewhere"
    in_turn = kept.take_up(cells, elsewhere, {outcome["name"]: outcome for outcome in found})
    assert outcomes.listed(in_turn, elsewhere) == found


def test_an_arm_is_labelled_only_where_it_differs():
    assert Arm("A", 1).extra == {}
    assert dataclasses.replace(Arm("A", 1), budget="time", size="8x1").extra == {
        "budget": "time", "size": "8x1"
    }  # fmt: skip
