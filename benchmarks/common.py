"""What all benchmarks share: the file of results and its header, and the environment of peers."""

import os
import pathlib
import platform
import shlex
import subprocess
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
    """The file of the results: --output, or results/benchmarks/NAME.json."""
    default = ROOT / "results" / "benchmarks" / f"{name}.json"
    return pathlib.Path(FLAGS.output) if FLAGS.output else default


def header(benchmark: str) -> dict[str, Any]:
    """The first entries of the results: description, command, machine and its load."""
    hidden = FLAGS["torch_python"].value if "torch_python" in FLAGS else ""
    return {
        "benchmark": benchmark,
        "command": shlex.join(["python", *sys.argv]).replace(hidden or "\0", "PYTHON"),
        "machine": machine(),
        "load_before": os.getloadavg(),
    }


def flag_values(without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of the benchmark's own flags."""
    values = {flag.name: flag.value for flag in FLAGS.get_key_flags_for_module(sys.argv[0])}
    return {name: value for name, value in values.items() if name not in without}


def environment() -> dict[str, str]:
    """The environment of this process, with little logging and this checkout on the path."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "2"}


def create_records(output_dir: str | pathlib.Path, *arguments: str) -> None:
    """Runs create_pretraining_data in another process."""
    command = [sys.executable, "-m", "undivided_tf.bin.create_pretraining_data"]
    subprocess.run(
        [*command, f"--output_dir={output_dir}", *arguments], check=True, env=environment()
    )


def machine() -> dict[str, Any]:
    """The processor and its features."""
    text = files.read_text("/proc/cpuinfo") if os.path.exists("/proc/cpuinfo") else ""
    lines = dict(_field(line) for line in text.splitlines())
    features = lines.get("flags", "").split()
    return {
        "processor": lines.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "capabilities": sorted(name for name in features if name.startswith(_CAPABILITIES)),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()
