import pytest
import toys

from undivided_tf.errors import InputError
from undivided_tf.training import timing
from undivided_tf.training.config import TimingConfig


def test_patterns_are_timed_in_turn_and_who_begins_changes(toy, tmp_path, monkeypatch):
    took = []
    step = timing.Trainer.step

    def noted(self, *arguments):
        took.append(self.encoder_config.block_pattern)
        return step(self, *arguments)

    monkeypatch.setattr(timing.Trainer, "step", noted)
    recipe = toys.pretraining_config("", "", toys.encoder_config(block_pattern="A*2"))
    config = TimingConfig(
        workdir=str(tmp_path), records_dir=str(toy), pretraining=recipe, reference_pattern="(AI)*2",
        num_rounds=2, steps_per_round=3,
    )  # fmt: skip
    found = timing.time_in_turn(config)
    own, full = ["A*2"], ["(AI)*2"]
    assert took == [*own, *full, *3 * full, *3 * own, *3 * own, *3 * full]
    for name in ("milliseconds", "reference_milliseconds"):
        assert len(found[name]) == 2 and min(found[name]) > 0


def test_there_must_be_something_to_time():
    with pytest.raises(InputError, match="num_rounds must be"):
        TimingConfig(num_rounds=0)
