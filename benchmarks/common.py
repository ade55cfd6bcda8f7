"""What all benchmarks share: where results go, and what they say of command and machine."""

import os
import pathlib
import platform
import shlex
import sys
from typing import Any

from absl import flags

from undivided_tf.support import files

FLAGS = flags.FLAGS
flags.DEFINE_string("output", "", "File of the results; empty: results/benchmarks/NAME.json.")
FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS["output"])  # --help shows it.

ROOT = pathlib.Path(__file__).resolve().parents[1]
_CAPABILITIES = ("avx", "amx", "fma")


def results_path(name: str) -> pathlib.Path:
    """Where a benchmark writes: --output, or results/benchmarks/NAME.json."""
    default = ROOT / "results" / "benchmarks" / f"{name}.json"
    return pathlib.Path(FLAGS.output) if FLAGS.output else default


def header(benchmark: str) -> dict[str, Any]:
    """What results begin with: description, command, machine and its load."""
    hidden = FLAGS["torch_python"].value if "torch_python" in FLAGS else ""
    return {
        "benchmark": benchmark,
        "command": shlex.join(["python", *sys.argv]).replace(hidden or "\0", "PYTHON"),
        "machine": machine(),
        "load_before": os.getloadavg(),
    }


def machine() -> dict[str, Any]:
    """The processor and its features."""
    text = files.read_text("/proc/cpuinfo") if os.path.exists("/proc/cpuinfo") else ""
    lines = dict(_field(line) for line in text.splitlines())
    capable = [flag for flag in lines.get("flags", "").split() if flag.startswith(_CAPABILITIES)]
    return {
        "processor": lines.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "capabilities": sorted(capable),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()
