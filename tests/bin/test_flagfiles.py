"""Every flagfile parses with its binary's own flags, and is of the size that its header names."""

import functools
import json
import pathlib
import re
import subprocess
import sys

import pytest

from undivided_tf import accounting, partners
from undivided_tf.analysis.config import (
    CkaConfig,
    DiagnosticsConfig,
    ProbingConfig,
    StructuralConfig,
)
from undivided_tf.config import EncoderConfig
from undivided_tf.study import sweep
from undivided_tf.study.config import CompressConfig, StudyConfig, SweepConfig
from undivided_tf.surgery.config import DamageConfig
from undivided_tf.training.config import (
    GlueConfig,
    MechanismConfig,
    PretrainingConfig,
    SquadConfig,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("flags/**/*.flags"))
# How the names begin of the flagfiles of a binary, and the config they fill.
BINARIES = {
    "flags/pretraining/": ("run_pretraining", PretrainingConfig),
    "flags/study_": ("run_study", StudyConfig),
    "flags/sweep_": ("run_sweep", SweepConfig),
    "flags/glue_": ("run_glue", GlueConfig),
    "flags/squad": ("run_squad", SquadConfig),
    "flags/damage_": ("run_damage", DamageConfig),
    "flags/compress_": ("run_compress", CompressConfig),
    "flags/cka_": ("run_cka", CkaConfig),
    "flags/diagnostics_": ("run_diagnostics", DiagnosticsConfig),
    "flags/probing_": ("run_probing", ProbingConfig),
    "flags/structural_": ("run_structural_probe", StructuralConfig),
    "flags/mechanism": ("run_mechanism", MechanismConfig),
}
BASE = accounting.count_parameters(EncoderConfig())

# One process a binary: flags are defined once and for all when its module is imported.
CODE = """
import importlib, json, sys
from absl import flags
from absl.testing import flagsaver
from undivided_tf.bin import config_flags
binary = importlib.import_module(f"undivided_tf.bin.{sys.argv[1]}")
configs = {}
for name in sys.argv[2:]:
    with flagsaver.flagsaver():
        rest = flags.FLAGS([sys.argv[1], f"--flagfile={name}"])
        assert len(rest) == 1, (name, rest)
        configs[name] = binary.parse().to_dict()
print(json.dumps(configs))
assert "tensorflow" not in sys.modules
"""


def owner(name):
    """Beginning of the name by which a flagfile belongs to a binary."""
    (start,) = (start for start in BINARIES if name.startswith(start))
    return start


@functools.cache
def parse(start):
    """The configs of all flagfiles of a binary, as dicts, by name."""
    names = [name for name in FILES if name.startswith(start)]
    done = subprocess.run(
        [sys.executable, "-c", CODE, BINARIES[start][0], *names],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "circular" not in done.stderr  # absl's warning of a file that names itself.
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def pretraining():
    start = "flags/pretraining/"
    return {name: PretrainingConfig.from_dict(values) for name, values in parse(start).items()}


@pytest.fixture(scope="module")
def headers():
    """The comment of each flagfile, its lines joined."""
    return {
        name: " ".join(
            line.removeprefix("#").strip()
            for line in (ROOT / name).read_text().splitlines()
            if line.startswith("#")
        )
        for name in FILES
    }


def test_headers_say_what_it_is_how_to_run_it_and_what_to_expect(headers):
    assert len(headers) >= 40 and {owner(name) for name in headers} == set(BINARIES)
    for name, header in headers.items():
        for part in ("What:", "Command:", "Expect:"):
            assert part in header, f"{name} has no {part}"
        assert name in header or "make study" in header, name


def _sections(config):
    """A config, then its sections: one without a prefix, such as the encoder, is levels down."""
    yield config
    for value in config.values():
        if isinstance(value, dict):
            yield from _sections(value)


@pytest.mark.parametrize("name", [name for name in FILES if "/pretraining/" not in name])
def test_every_flag_reaches_the_config(name):
    values = parse(owner(name))[name]
    config = BINARIES[owner(name)][1].from_dict(values)  # All values go together.
    words = pathlib.Path(name).stem.split("_")
    names = ["_".join(order) for order in (words, words[::-1], words[1:])]
    assert config.workdir in ("", *(f"runs/{name}" for name in names))
    for line in map(str.strip, (ROOT / name).read_text().splitlines()):
        if line and not line.startswith(("#", "--flagfile=")):
            flag, _, text = line.removeprefix("--").partition("=")
            if flag == "learning_rate_sweep":
                sweeps = [json.loads((ROOT / path).read_text()) for path in text.split(",")]
                chosen = [
                    found["learning_rate"] for one in sweeps for found in sweep.arms(one).values()
                ]
                rates = dict(one.split("=") for one in values["pattern_learning_rates"])
                plain = [arm for arm in rates if ":" not in arm]  # Others are of partners.
                assert len(plain) == len(values["patterns"]) * (1 + len(values["sizes"]))
                assert set(map(float, rates.values())) <= set(chosen)
                continue
            value = values
            field = flag.removeprefix("no") if flag.startswith("no") and not text else flag
            for key in field.split("."):
                value = next(place[key] for place in _sections(value) if key in place)
            if isinstance(value, list):  # An empty text empties the list of an earlier flagfile.
                assert ",".join(map(str, value)) == text
            elif not text:
                assert value is (field == flag)
            else:
                assert type(value)(text) == value


def test_pretraining_recipes_have_the_size_that_they_name(pretraining, headers):
    workdirs = [config.workdir for name, config in pretraining.items() if "devlin" not in name]
    assert len(set(workdirs)) == len(workdirs)  # None would go on with another's run.
    for name, config in pretraining.items():
        named = re.search(r"Size: +([0-9,]+) parameters", headers[name])
        assert int(named[1].replace(",", "")) == accounting.count_parameters(config.encoder), name


def test_presets_follow_devlin(pretraining):
    for size in ("tiny", "mini", "small", "medium", "base"):
        config = pretraining[f"flags/pretraining/bert_{size}.flags"]
        first, second = config.stages
        assert (first.batch_size, second.batch_size, config.learning_rate) == (256, 256, 1e-4)
        assert (first.last_step, second.last_step) == (900_000, 1_000_000)
        assert (first.records_dir, second.records_dir) == ("runs/pairs_128", "runs/pairs_512")


def test_patterns_and_partners_differ_from_bert_base_in_the_encoder_only(pretraining):
    base = pretraining["flags/pretraining/bert_base.flags"]
    found = {
        pathlib.Path(name).stem.removeprefix("bert_base_"): config
        for name, config in pretraining.items()
        if "/bert_base_" in name and "tpu" not in name
    }
    reduced = [config for stem, config in found.items() if not re.search("_more_|_wider_", stem)]
    assert len({config.encoder.block_pattern for config in reduced}) == len(reduced) == 5
    names = {"more_attention": "attention", "wider_intermediate": "intermediate"}
    for stem, config in found.items():
        assert config.replace(encoder=base.encoder, workdir=base.workdir) == base, stem
        pattern, suffix = re.fullmatch("(.*?)_?((?:more|wider)_.*)?", stem).groups()
        if suffix:
            investment = names.get(suffix, "hidden")
            partner = partners.matched_partner(found[pattern].encoder, base.encoder, investment)
            assert config.encoder == partner, stem
            assert abs(accounting.count_parameters(partner) / BASE - 1) < 0.01
