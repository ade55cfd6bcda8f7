"""Every flagfile parses with its binary's own flags, and is of the size that its header names."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

from undivided_tf import accounting
from undivided_tf.analysis_recipes import (
    BlimpConfig,
    CkaConfig,
    DiagnosticsConfig,
    ProbingConfig,
    StructuralConfig,
)
from undivided_tf.config import EncoderConfig
from undivided_tf.pretraining_recipes import PretrainingConfig
from undivided_tf.recipes import StudyConfig

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("flags/**/*.flags"))
PRETRAINING = [name for name in FILES if name.startswith("flags/pretraining/")]
STUDIES = [name for name in FILES if name.startswith("flags/study_")]
BENCHMARKS = [
    name for name in FILES if name.startswith(("flags/glue_", "flags/squad_", "flags/damage_"))
]
INSIDE = {
    "flags/cka_": ("run_cka", CkaConfig),
    "flags/diagnostics_": ("run_diagnostics", DiagnosticsConfig),
    "flags/probing_": ("run_probing", ProbingConfig),
    "flags/blimp_": ("run_blimp", BlimpConfig),
    "flags/structural_": ("run_structural_probe", StructuralConfig),
}
LOOKS_INSIDE = [name for name in FILES if name.startswith(tuple(INSIDE))]
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


def parse(binary, names):
    done = subprocess.run(
        [sys.executable, "-c", CODE, binary, *names],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def pretraining():
    return {
        name: PretrainingConfig.from_dict(values)
        for name, values in parse("run_pretraining", PRETRAINING).items()
    }


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
    assert len(PRETRAINING) > 20 and len(STUDIES) >= 2
    for name, header in headers.items():
        for part in ("What:", "Command:", "Expect:"):
            assert part in header, f"{name} has no {part}"
        assert name in header or "make study" in header, name


def test_studies_build_their_configs():
    for name, values in parse("run_study", STUDIES).items():
        config = StudyConfig.from_dict(values)
        assert config.workdir == f"runs/{pathlib.Path(name).stem}"


def test_every_flagfile_belongs_to_a_binary():
    assert sorted(PRETRAINING + STUDIES + BENCHMARKS + LOOKS_INSIDE) == FILES


@pytest.mark.parametrize("name", LOOKS_INSIDE)
def test_configs_of_what_looks_inside(name):
    (binary, config) = next(found for start, found in INSIDE.items() if name.startswith(start))
    (values,) = parse(binary, [name]).values()
    assert config.from_dict(values).workdir == f"runs/{pathlib.Path(name).stem}"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_parse(name):
    binary = f"run_{pathlib.Path(name).stem.split('_')[0]}"
    (values,) = parse(binary, [name]).values()
    assert values["workdir"] in ("", f"runs/{pathlib.Path(name).stem}")


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
            partner = accounting.matched_partner(found[pattern].encoder, base.encoder, investment)
            assert config.encoder == partner, stem
            assert abs(accounting.count_parameters(partner) / BASE - 1) < 0.01
