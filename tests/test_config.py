import dataclasses

import pytest
from conftest import tiny_config

from undivided_tf import files, pretraining_recipes, recipes
from undivided_tf.config import Config, EncoderConfig, claim_workdir
from undivided_tf.errors import InputError

CONFIGS = [EncoderConfig] + [
    value
    for value in vars(recipes).values()
    if isinstance(value, type) and issubclass(value, Config) and value is not Config
]


@pytest.mark.parametrize("kind", sorted(set(CONFIGS), key=lambda kind: kind.__name__))
def test_json_round_trip_and_help_for_every_field(kind, tmp_path):
    config = kind()
    config.to_json(tmp_path / "config.json")
    assert kind.from_json(tmp_path / "config.json") == config
    for field in dataclasses.fields(kind):
        assert field.metadata.get("help") or "prefix" in field.metadata


def test_the_pattern_is_stored_in_its_canonical_spelling():
    assert tiny_config(block_pattern="AIAIAI") == tiny_config(block_pattern="(AI)*3")


def test_unknown_key_is_an_error_with_the_nearest_name():
    with pytest.raises(InputError, match="unknown key 'hiden_size'; did you mean 'hidden_size'"):
        EncoderConfig.from_dict({"hiden_size": 8})
    with pytest.raises(InputError, match="encoder: unknown key 'x'"):
        recipes.PretrainingConfig.from_dict({"encoder": {"x": 1}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 10, "num_attention_heads": 3}, "10 is not divisible by .* 3"),
        ({"hidden_size": "8"}, "hidden_size must be of type int, got '8'"),
        ({"hidden_size": True}, "hidden_size must be of type int, got True"),
        ({"vocab_size": 0}, "vocab_size must be above 0"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob must be from 0"),
        ({"hidden_activation": "swish"}, "must be one of gelu, gelu_tanh, relu, got 'swish'"),
        ({"block_pattern": "AX"}, "column 2"),
    ],
)
def test_bad_values_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        tiny_config(**changes)


def test_a_file_that_is_no_config_is_named(tmp_path):
    with pytest.raises(InputError, match="there is no config at"):
        EncoderConfig.from_json(tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InputError, match="broken.json is not JSON"):
        EncoderConfig.from_json(tmp_path / "broken.json")


def test_a_used_workdir_shows_the_difference(tmp_path):
    config = recipes.PretrainingConfig(workdir=str(tmp_path))
    claim_workdir(tmp_path, config)
    claim_workdir(tmp_path, config)
    other = config.replace(learning_rate=1.0, encoder=config.encoder.replace(hidden_size=24))
    with pytest.raises(InputError) as error:
        claim_workdir(tmp_path, other)
    assert "encoder.hidden_size: 768 there, 24 asked for" in str(error.value)
    assert "learning_rate: 0.0001 there, 1.0 asked for" in str(error.value)


def test_a_workdir_from_before_a_flag_goes_on_with_its_default(tmp_path):
    config = recipes.PretrainingConfig(workdir=str(tmp_path))
    values = config.to_dict()
    del values["recompute"]
    files.write_json(tmp_path / "config.json", values)
    claim_workdir(tmp_path, config)
    with pytest.raises(InputError, match="recompute: False there, True asked for"):
        claim_workdir(tmp_path, config.replace(recompute=True))


def test_a_moved_workdir_is_still_the_same(tmp_path):
    claim_workdir(tmp_path / "a", recipes.PretrainingConfig(workdir="a"))
    (tmp_path / "a").rename(tmp_path / "b")
    claim_workdir(tmp_path / "b", recipes.PretrainingConfig(workdir="b"))


def test_a_study_refuses_one_pattern_in_two_spellings():
    with pytest.raises(InputError, match="spell the same blocks"):
        recipes.StudyConfig(patterns=("AIAI", "(AI)*2"))


def test_fingerprint_changes_with_every_value():
    base = tiny_config()
    assert base.fingerprint() == tiny_config().fingerprint()
    assert base.fingerprint() != tiny_config(norm_first=True).fingerprint()


def test_configs_from_before_masking_units_are_read():
    for before, unit in ((True, "whole_word"), (False, "token")):
        values = {"pretraining": {"do_whole_word_mask": before, "num_train_steps": 20_000}}
        config = recipes.StudyConfig.from_dict(values)
        assert config.pretraining.masking_unit == unit
        assert config.pretraining.num_train_steps == 20_000
    with pytest.raises(InputError, match="unknown key 'do_whole_word_masks'"):
        recipes.PretrainingConfig.from_dict({"do_whole_word_masks": True})


def test_stages_of_a_curriculum():
    config = recipes.PretrainingConfig(records_dir="short", num_train_steps=20_000)
    (only,) = config.stages
    assert only == pretraining_recipes.Stage(0, 20_000, 256, "short", 0)
    config = config.replace(curriculum=("100:512", "18000:64:a:b/long"))
    assert config.stages == (
        pretraining_recipes.Stage(0, 100, 256, "short", 0),
        pretraining_recipes.Stage(100, 18_000, 512, "short", 100 * 256),
        pretraining_recipes.Stage(18_000, 20_000, 64, "a:b/long", 0),
    )
    again = config.replace(curriculum=("9:2:long", "10:3:short"))
    assert [stage.first_row for stage in again.stages] == [0, 0, 9 * 256]


@pytest.mark.parametrize(
    ("curriculum", "message"),
    [
        (("5",), "STEP:BATCH_SIZE:RECORDS_DIR, got '5'"),
        (("",), "got ''"),
        (("5:x",), "got '5:x'"),
        (("5:0",), "got '5:0'"),
        (("-5:8",), "got '-5:8'"),
        (("0:8",), "must rise and lie between 0 and num_train_steps 20000, got 0:8"),
        (("20000:8",), "got 20000:8"),
        (("7:8", "7:16"), "got 7:8, 7:16"),
    ],
)
def test_a_curriculum_that_cannot_be_is_refused(curriculum, message):
    with pytest.raises(InputError, match=message):
        recipes.PretrainingConfig(num_train_steps=20_000, curriculum=curriculum)
