import ast
import dataclasses
import importlib
import math
import pathlib
import typing

import hypothesis
import hypothesis.strategies as st
import pytest
from conftest import tiny_config

import undivided_tf
from undivided_tf import inputs
from undivided_tf.config import MAX_SEED, Config, EncoderConfig, Rule, option
from undivided_tf.errors import InputError
from undivided_tf.study.config import StudyConfig
from undivided_tf.training.config import PretrainingConfig, Stage

ROOT = pathlib.Path(undivided_tf.__file__).parent


def find_configs():
    """All configs of the package; only modules whose text defines one are imported."""
    known, found = {"Config"}, {}
    for _ in range(2):  # Also those whose base is a config that is no dataclass.
        for path in sorted(ROOT.rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if not isinstance(node, ast.ClassDef):
                    continue
                if known & {ast.unparse(base).rpartition(".")[2] for base in node.bases}:
                    parts = path.relative_to(ROOT.parent).with_suffix("").parts
                    module = importlib.import_module(".".join(parts))
                    found[node.name] = getattr(module, node.name)
        known |= found.keys()
    return [kind for kind in found.values() if dataclasses.is_dataclass(kind)]


CONFIGS = find_configs()
# Those without defaults for all of their fields: a head says what it was fed.
_WINDOWS = {"max_seq_length": 8, "doc_stride": 2, "max_query_length": 3}
GIVEN = {
    "ClassifierHead": {"labels": ("no", "yes"), "max_seq_length": 8},
    "SpanHead": _WINDOWS,
}


def made(kind):
    return kind(**GIVEN.get(kind.__name__, {}))


def test_all_configs_are_found():
    def below(kind):
        return {kind, *(other for child in kind.__subclasses__() for other in below(child))}

    ours = {kind for kind in below(Config) if kind.__module__.startswith("undivided_tf.")}
    assert set(CONFIGS) == {kind for kind in ours - {Config} if dataclasses.is_dataclass(kind)}
    assert len(CONFIGS) >= 22


@pytest.mark.parametrize("kind", CONFIGS)
def test_json_round_trip_and_help_for_every_field(kind, tmp_path):
    config = made(kind)
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
        PretrainingConfig.from_dict({"encoder": {"x": 1}})


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


def test_a_study_refuses_one_pattern_in_two_spellings():
    with pytest.raises(InputError, match="spell the same blocks"):
        StudyConfig(patterns=("AIAI", "(AI)*2"))


def rule_of(field):
    return field.metadata.get("rule", Rule())


NUMBERS = (int, float, tuple[int, ...], tuple[float, ...], int | None, float | None)
# Of numbers that may be any, with the reason.
UNBOUNDED = {
    ("SquadConfig", "null_score_diff_threshold"): "a difference of logits",
    ("SpanHead", "null_score_diff_threshold"): "a difference of logits",
    ("ClassifierHead", "score_range"): "scores of a regression may be any number",
    ("TaskConfig", "score_range"): "scores of a regression may be any number",
}


def test_numbers_have_a_rule():
    free, bounded = set(), 0
    for kind in CONFIGS:
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if hints[field.name] in NUMBERS:
                rule = rule_of(field)
                has_bound = any(bound is not None for bound in rule[:4])
                bounded += has_bound
                free |= set() if has_bound else {(kind.__name__, field.name)}
    assert free == UNBOUNDED.keys()
    assert bounded >= 100


def nearby(bound):
    return st.sampled_from([bound - 1, bound, bound + 1]) | st.integers(-(2**40), 2**40)


@st.composite
def broken_and_kept(draw):
    """A config with a field of numbers, its name, and a number for it or for one of its items."""
    kind = draw(st.sampled_from(CONFIGS))
    hints = typing.get_type_hints(kind)
    ruled = [f.name for f in dataclasses.fields(kind) if any(b is not None for b in rule_of(f)[:4])]
    hypothesis.assume(ruled)
    name = draw(st.sampled_from(ruled))
    rule = kind.__dataclass_fields__[name].metadata["rule"]
    bounds = [bound for bound in rule[:4] if bound is not None]
    number = draw(nearby(draw(st.sampled_from(bounds))))
    if float in (hints[name], *typing.get_args(hints[name])):
        number = draw(st.sampled_from([float(number), number + 0.5, math.nan]))
    return kind, name, number


@hypothesis.given(broken_and_kept())
def test_a_number_outside_of_its_bounds_is_named(case):
    kind, name, number = case
    rule = kind.__dataclass_fields__[name].metadata["rule"]
    inside = (
        (rule.above is None or number > rule.above)
        and (rule.at_least is None or number >= rule.at_least)
        and (rule.below is None or number < rule.below)
        and (rule.at_most is None or number <= rule.at_most)
    )
    value = getattr(made(kind), name)
    given = (*value, number) if isinstance(value, tuple) else number
    message = f"{name} must be {rule}, got {number}"
    try:
        made(kind).replace(**{name: given})
    except InputError as error:  # Of what is inside, that it does not go with other values.
        assert (str(error) == message) is not inside
    else:
        assert inside


@dataclasses.dataclass(frozen=True)
class ToyConfig(Config):
    share: float = option(0.5, "A share.", above=0, at_most=1)
    sizes: tuple[int, ...] = option((2,), "Sizes.", at_least=2, below=5, min_items=1)
    limit: int | None = option(None, "Empty: none.", at_most=9)
    names: tuple[str, ...] = option(("a",), "Names.", one_of=("a", "b"))
    free: float = option(0.0, "Any.")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 0}, "share must be above 0 and at most 1, got 0.0"),
        ({"share": 1.5}, "share must be above 0 and at most 1, got 1.5"),
        ({"share": math.nan}, "share must be above 0 and at most 1, got nan"),
        ({"share": None}, "ToyConfig.share must be of type float, got None"),
        ({"sizes": (2, 5)}, "sizes must be from 2 to below 5, got 5"),
        ({"sizes": ()}, "sizes must list 1 or more values, got ()"),
        ({"limit": 10}, "limit must be at most 9, got 10"),
        ({"limit": "x"}, "ToyConfig.limit must be of type int, got 'x'"),
        ({"names": ("b", "c")}, "names must be one of a, b, got 'c'"),
    ],
)
def test_rules_are_words(changes, message):
    with pytest.raises(InputError) as error:
        ToyConfig(**changes)
    assert str(error.value) == message


def test_values_that_keep_the_rules_are_kept():
    config = ToyConfig(share=1, sizes=[2, 4], limit=-3, names=(), free=math.inf)
    assert (config.share, config.sizes, config.limit) == (1.0, (2, 4), -3)
    assert ToyConfig().limit is None and ToyConfig.from_dict({"limit": None}) == ToyConfig()


# What must be given with a field, so that its other value goes.
_NO_CUT = {"cut": "none", "num_cut": 0}
COMPANIONS = {
    ("ExportConfig", "batch_sizes"): {"jit_compile": True},
    ("ExportConfig", "warm_up"): {"jit_compile": True, "pad_to": (8,), "batch_sizes": (1,)},
    ("ClassifierHead", "kind"): {"labels": ("score",), "kind": "regression"},
    ("ClassifierHead", "score_range"): {"labels": (), "kind": "regression"},
    ("EncoderConfig", "rotary_base"): {"position_type": "rotary"},
    ("EncoderConfig", "position_type"): {"rotary_base": 10_000.0},
    ("FinetuningConfig", "num_train_epochs"): {"new_weights": ()},
    ("PretrainingConfig", "masked_lm_weight"): {"teacher_checkpoint": "teacher"},
    ("PretrainingConfig", "new_weights"): {"init_checkpoint": "start"},
    ("PretrainingConfig", "adam_learning_rate_ratio"): {"optimizer": "muon"},
    ("PretrainingConfig", "muon_momentum"): {"optimizer": "muon"},
    **{
        ("PretrainingConfig", name): {"learning_rate_schedule": "trapezoid"}
        for name in ("cooldown_fraction", "cooldown_shape", "cooldown_steps")
    },
    ("RecordsConfig", "pipeline_options"): {"runner": "DirectRunner"},
    ("RecordsConfig", "scheduler"): {"runner": "dask"},
    ("SquadConfig", "validation_file"): {"version_2_with_negative": True},
    ("StudyConfig", "until_decided"): {
        "num_pretraining_seeds": 2,
        "pretraining": PretrainingConfig(
            learning_rate_schedule="trapezoid", cooldown_steps=(50_000,)
        ),
    },
    ("SurgeryConfig", "cut"): {"cut": "first", "num_cut": 1},
    ("SurgeryConfig", "num_cut"): {"cut": "first", "num_cut": 1},
    ("TaskConfig", "regression"): {"labels": ()},
    ("TaskConfig", "score_range"): {"regression": True},
    ("TaskConfig", "second"): {"first": "text"},
    **{
        ("SurgeryConfig", name): _NO_CUT
        for name in ("block_pattern", "drop_blocks", "drop_encoder_blocks")
    },
}
# Where no general one goes: other values of strings and lists with a form of their own.
OTHERS = {
    "arm_seeds": [("(AI)*6=1",)],
    "batch_sizes": [(1, 8)],
    "block_pattern": ["AI"],
    "cooldown_steps": [(50_000,)],
    "curriculum": [("7:8",)],
    "drop_blocks": [("block_01/attention",)],
    "dtype": ["bfloat16"],  # Studies refuse `auto`.
    "drop_encoder_blocks": [(1,)],
    "epochs": [(1,)],
    "budget": ["flops:0.5"],
    "budgets": [("steps", "flops")],
    "formats": [("saved_model", "onnx")],
    "kind": ["multi_label"],
    "labels": [("a", "b")],
    "latency_batch_sizes": [(2,)],
    "learning_rates": [(1e-4, 2e-4)],
    "leave_out": [("cka",)],
    "max_loss": [("drift:3",)],
    "mask_rates": [(0.2, 0.4)],
    "num_cut": [2, (0, 1)],
    "num_facts": [(100, 200)],
    "partner_shapes": [("A*6=wider_hidden",)],
    "partners": [("wider_hidden",)],
    "pad_to": [(16, 32)],
    "order_by": ["error:wiki_topic"],
    "pattern_learning_rates": [("(AI)*6=1e-3", "(AAI)*3=1e-3", "A*6=2e-3")],
    "patterns": [("AI", "A")],
    "pilot_seeds": [(7, 8)],
    "per_task": [("mrpc.num_train_epochs=5",)],
    "references": [("untrained",)],
    "score_range": [(0.0, 1.0)],
    "signatures": [("embed",)],
    "sizes": [("64x4",)],
    "tasks": [("cola",)],
    "worth_margins": [(0.8, 1.2)],
    "zero_shot": [("drift:sst2",)],
}


def other_values(field, value):
    if type(value) is bool:
        return [not value]
    if type(value) is int:
        general = [value + 1, value * 2, value - 1]
    elif type(value) is float:
        general = [value / 2, value + 0.01]
    elif type(value) is str:
        general = [c for c in field.metadata["rule"].one_of if c != value] or [f"{value}other"]
    else:
        general = [("other",), (0.5,)]
    return [other for other in (*OTHERS.get(field.name, ()), *general) if other != value]


def pairs(config):
    """For every value, those of sections too: its name, a config, and one that differs in it."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), field.name
        if isinstance(value, Config):
            for inner, *both in pairs(value):
                yield f"{name}.{inner}", *(config.replace(**{name: one}) for one in both)
        elif len(field.metadata["rule"].one_of) != 1:  # With one choice it has one value.
            base = config.replace(**COMPANIONS.get((type(config).__name__, name), {}))
            yield name, base, changed(base, field)


def changed(base, field):
    """`base` with the first other value of a field that goes."""
    problems = []
    for other in other_values(field, getattr(base, field.name)):
        try:
            return base.replace(**{field.name: other})
        except InputError as error:
            problems.append(str(error))
    return pytest.fail(f"{type(base).__name__}.{field.name}: no known value goes: {problems}")


@pytest.mark.parametrize("kind", CONFIGS)
def test_fingerprint_changes_with_every_value(kind):
    assert made(kind).fingerprint() == made(kind).fingerprint()
    seen = set()
    for name, base, other in pairs(made(kind)):
        assert base.fingerprint() != other.fingerprint(), name
        assert kind.from_dict(other.to_dict()) == other, name
        seen.add(name.partition(".")[0])
    fields = {f.name for f in dataclasses.fields(kind) if len(rule_of(f).one_of) != 1}
    assert seen == fields


@pytest.mark.parametrize("kind", CONFIGS)
def test_seeds_that_no_library_takes_are_refused(kind):
    for field in dataclasses.fields(kind):
        if field.name in ("seed", "random_seed"):
            assert kind(**{field.name: 0}) != kind(**{field.name: MAX_SEED})
            for value in (-1, MAX_SEED + 1):
                with pytest.raises(InputError, match=f"{field.name} must be from 0 to 2147483647"):
                    kind(**{field.name: value})


def test_fields_that_name_files_are_declared_as_inputs():
    """All but results, and inputs of what leaves no directory to go on in."""
    words = ("checkpoint", "file", "dir", "task", "data", "input", "model", "treebank")
    no_inputs = {
        "workdir", "output_dir", "cache_dir", "runner",  # Not read.
        "TaskConfig", "PredictConfig", "ConversionConfig", "ExportConfig",  # Nothing goes on.
        "ClassifierHead", "SpanHead",
        "save_checkpoints_steps", "keep_checkpoints", "control_task", "per_task",
        "intermediate_drop_rate", "save_models",
    }  # fmt: skip
    kinds = set()
    for kind in CONFIGS:
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            kinds.add(field.metadata.get("input"))
            texts = hints[field.name] in (str, tuple[str, ...])
            if texts and any(word in field.name for word in words):
                declared = field.metadata.get("input") or {kind.__name__, field.name} & no_inputs
                by_method = (kind.__name__, field.name) in {
                    ("GlueConfig", "data"),
                    ("GlueConfig", "tasks"),
                }
                assert declared or by_method, f"{kind.__name__}.{field.name}"
    assert kinds - {None, ""} <= set(inputs.LISTERS)


def test_configs_from_before_masking_units_are_read():
    for before, unit in ((True, "whole_word"), (False, "token")):
        values = {"pretraining": {"do_whole_word_mask": before, "num_train_steps": 20_000}}
        config = StudyConfig.from_dict(values)
        assert config.pretraining.masking_unit == unit
        assert config.pretraining.num_train_steps == 20_000
    with pytest.raises(InputError, match="unknown key 'do_whole_word_masks'"):
        PretrainingConfig.from_dict({"do_whole_word_masks": True})


def test_stages_of_a_curriculum():
    config = PretrainingConfig(records_dir="short", num_train_steps=20_000)
    (only,) = config.stages
    assert only == Stage(0, 20_000, 256, "short", 0)
    config = config.replace(curriculum=("100:512", "18000:64:a:b/long"))
    assert config.stages == (
        Stage(0, 100, 256, "short", 0),
        Stage(100, 18_000, 512, "short", 100 * 256),
        Stage(18_000, 20_000, 64, "a:b/long", 0),
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
        (("0:8",), "must increase between 0 and num_train_steps 20000, got 0:8"),
        (("20000:8",), "got 20000:8"),
        (("7:8", "7:16"), "got 7:8, 7:16"),
    ],
)
def test_a_curriculum_that_cannot_be_is_refused(curriculum, message):
    with pytest.raises(InputError, match=message):
        PretrainingConfig(num_train_steps=20_000, curriculum=curriculum)
