import collections
import re

import pytest

from undivided_tf.analysis.config import DiagnosticsConfig
from undivided_tf.errors import InputError
from undivided_tf.study import grid
from undivided_tf.study.config import StudyConfig

CONFIG = StudyConfig(
    patterns=("AI", "A*2"), tasks=("wiki_topic", "my/task"), num_pretraining_seeds=2, seed=5
)


def hashes(config):
    """By what a cell is, whatever its name."""
    return {(cell.kind.name, str(cell.label)): cell.hash for cell in grid.expand(config)}


def changed(config):
    """Kinds of the cells whose hash differs from that under `CONFIG`."""
    before, after = hashes(CONFIG), hashes(config)
    assert before.keys() == after.keys()
    return {kind for kind, label in before if before[kind, label] != after[kind, label]}


# === Expansion ===


def test_the_grid_has_every_cell_once():
    cells = grid.expand(CONFIG)
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names)
    # 2 patterns x 2 seeds x 2 tasks; random weights once a pattern and task; the reference
    # against all 4 trained encoders, and each of these against its untrained twin.
    assert collections.Counter(cell.kind.name for cell in cells) == {
        "records": 1, "timing": 1, "pretraining": 4, "finetuning": 8 + 4, "cka": 4 + 4,
        "probing": 8,
    }  # fmt: skip
    scratch = [c.label for c in cells if c.label.get("start") == "scratch"]
    assert collections.Counter((s["pattern"], s["task"]) for s in scratch) == {
        (pattern, task): 1 for pattern in ("AI", "A*2") for task in CONFIG.tasks
    }
    assert all(c.recipe.from_scratch == (c.label["start"] == "scratch")
               for c in cells if c.kind.name == "finetuning")  # fmt: skip
    assert [c.label["seed"] for c in cells if c.kind.name == "pretraining"] == [5, 5, 6, 6]
    assert [c.recipe.seed for c in cells if c.kind.name == "pretraining"] == [5, 5, 6, 6]
    for c in cells:
        assert c.alone == (c.kind.name == "timing")
        assert set(c.name) <= set(re.sub("[^A-Za-z0-9_-]", "", c.name))


def test_every_pattern_is_timed_beside_the_reference():
    cells = grid.expand(CONFIG.replace(patterns=("AI", "A*2", "A*3"), core_patterns=2))
    timings = {cell.label["pattern"]: cell for cell in cells if cell.kind.name == "timing"}
    assert list(timings) == ["A*2", "A*3"]
    for pattern, cell in timings.items():
        assert cell.label["seed"] == CONFIG.seed
        assert cell.recipe.pretraining.encoder.block_pattern == pattern
        assert cell.recipe.reference_pattern == "AI" and list(cell.places) == ["records_dir"]
    assert timings["A*2"].turn < timings["A*3"].turn


def test_needs_come_before_those_that_need_them():
    seen = set()
    for c in grid.expand(CONFIG):
        assert {need.name for need in c.places.values()} <= seen
        seen.add(c.name)


def test_cka_compares_the_reference_with_all_and_all_with_their_twins():
    pairs = [c for c in grid.expand(CONFIG) if c.kind.name == "cka"]
    for c in pairs:
        first, second = c.label["first"], c.label["second"]
        assert first["trained"]
        need = c.places["first_checkpoint"].label
        assert need == {"pattern": first["pattern"], "seed": first["seed"]}
        assert ("second_checkpoint" in c.places) == second["trained"]
        if second["trained"]:
            assert first["pattern"] == "AI"
            assert first["seed"] == 5 or second["pattern"] == "AI"
            need = c.places["second_checkpoint"].label
            assert need == {"pattern": second["pattern"], "seed": second["seed"]}
        else:
            assert first["pattern"] == second["pattern"]


def test_cka_compares_every_two_seeds_of_the_reference():
    def seeds(number):
        config = CONFIG.replace(num_pretraining_seeds=number)
        sides = [
            (c.label["first"], c.label["second"])
            for c in grid.expand(config)
            if c.kind.name == "cka"
        ]
        return sorted((a["seed"], b["seed"]) for a, b in sides
                      if a["pattern"] == b["pattern"] and b["trained"])  # fmt: skip

    assert seeds(2) == [(5, 5), (5, 6)]
    assert seeds(4) == [(5, 5), (5, 6), (5, 7), (5, 8), (6, 7), (6, 8), (7, 8)]


def test_hashes_follow_recipes_and_needs_and_nothing_else():
    everything = {"records", "timing", "pretraining", "finetuning", "cka", "probing"}
    assert changed(CONFIG.replace(workdir="elsewhere", num_workers=7)) == set()
    pretraining = CONFIG.pretraining.replace(num_train_steps=20_000)
    assert changed(CONFIG.replace(pretraining=pretraining)) == everything - {"records"}
    records = CONFIG.records.replace(vocab_size=99)
    assert changed(CONFIG.replace(records=records)) == everything
    for kind in ("finetuning", "cka", "probing"):
        section = getattr(CONFIG, kind).replace(max_seq_length=9)
        assert changed(CONFIG.replace(**{kind: section})) == {kind}
    names = [cell.name for cell in grid.expand(CONFIG)]
    assert names == [cell.name for cell in grid.expand(CONFIG)]


def test_another_pattern_leaves_the_cells_of_the_others():
    names = {c.name for c in grid.expand(CONFIG)}
    more = {c.name for c in grid.expand(CONFIG.replace(patterns=("AI", "A*2", "AAI")))}
    assert names < more


def test_texts_longer_than_the_encoders_are_refused_before_anything_runs():
    config = StudyConfig(diagnose=True, diagnostics=DiagnosticsConfig(max_seq_length=1024))
    with pytest.raises(InputError, match=r"^diagnostics\.max_seq_length 1024 .* lower --diagnos"):
        grid.expand(config)
    assert grid.expand(config.replace(diagnose=False))  # No cell reads that length.
