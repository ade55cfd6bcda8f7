"""Tests of the work directory of a study."""

import pytest

from undivided_tf.errors import InputError
from undivided_tf.study.config import StudyConfig
from undivided_tf.study.study import open_study


@pytest.mark.parametrize(
    "more",
    [
        {"num_pretraining_seeds": 3},
        {"patterns": ("(AI)*6", "A*3(AI)*3", "(AAI)*3", "A*6")},
        {"tasks": ("wiki_topic", "wiki_pair", "shared/glue/CoLA")},
        {"budgets": ("steps", "flops")},
        {"sizes": ("256x4",)},
        {"num_workers": 2},
        {},
    ],
)
def test_a_study_may_grow_in_its_directory_but_not_shrink(tmp_path, more):
    config = StudyConfig(workdir=str(tmp_path))
    open_study(config)
    grown = config.replace(**more)
    open_study(grown)
    assert StudyConfig.from_json(tmp_path / "config.json") == grown
    if more not in ({}, {"num_workers": 2}):
        with pytest.raises(InputError, match=f"{next(iter(more))}: .* there, .* asked for"):
            open_study(config)
        assert StudyConfig.from_json(tmp_path / "config.json") == grown


def test_another_recipe_another_reference_or_another_margin_is_another_study(tmp_path):
    config = StudyConfig(workdir=str(tmp_path))
    open_study(config)
    for other in (
        config.replace(pretraining=config.pretraining.replace(learning_rate=3e-4)),
        config.replace(patterns=config.patterns[::-1]),
        config.replace(seed=1),
        config.replace(accuracy_margin=0.1),
        config.replace(worth_margins=(0.8, 1.2)),
    ):
        with pytest.raises(InputError, match="another config"):
            open_study(other)
    assert StudyConfig.from_json(tmp_path / "config.json") == config


def test_a_spoilt_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="config.json is not JSON"):
        open_study(StudyConfig(workdir=str(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pattern_learning_rates": ("(AI)*6=1e-3", "A*6=1e-3", "AAAAAA=2e-3")}, "AAAAAA twice"),
        ({"arm_seeds": ("A*6=2", "A*6=3", "(AI)*6=3")}, r"A\*6 twice"),
        ({"sizes": ("256x4", "256x4")}, "sizes must list sizes that differ"),
        ({"sizes": ("768x12",)}, "and from 768x12, that of the flags"),
    ],
)
def test_what_is_named_twice_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        StudyConfig(patterns=("(AI)*6", "A*6"), **changes)
