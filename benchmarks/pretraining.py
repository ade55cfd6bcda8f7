"""Time of one pre-training step, ours and of its peers, in alternation on the same machine.

    python benchmarks/pretraining.py --torch_python=compare/bin/python

Each peer has its own process. All peers of a size are warmed up first; then each takes a few steps
per round. Writes results/benchmarks/pretraining.json; see benchmarks/README.md.
"""

import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import common
from absl import app, flags

from undivided_tf import accounting
from undivided_tf.models import presets
from undivided_tf.support import files

FLAGS = flags.FLAGS
flags.DEFINE_string("torch_python", "", "Interpreter with torch and transformers; empty: none.")
flags.DEFINE_list(
    "sizes", ["mini", "small", "base"], "Which of mini, small, base; tiny tries this script."
)
flags.DEFINE_integer("rounds", 5, "Rounds; each round times all peers.")
flags.DEFINE_list(
    "dtypes",
    ["float32"],
    "Types of the computation for ours and the tuned peers: float32, bfloat16, or auto, for which "
    "the peers take bfloat16.",
)
flags.DEFINE_boolean("patterns", True, "Also time A*12 and (AAI)*6 against (AI)*12 at base.")
flags.DEFINE_boolean("real_input", True, "Also time mini on records against a constant batch.")
flags.DEFINE_string(
    "records_dir", "", "Records for --real_input; empty: made from the embedded sample."
)

PEERS = pathlib.Path(__file__).parent / "peers"
_COMMON = {"length": 128, "predictions": 20, "vocab_size": 30522}
SIZES = {  # Preset, rows per batch, and steps per round.
    "tiny": {"preset": "bert_tiny", "rows": 2, "steps": 1},
    "mini": {"preset": "bert_mini", "rows": 32, "steps": 4},
    "small": {"preset": "bert_small", "rows": 16, "steps": 3},
    "base": {"preset": "bert_base", "rows": 8, "steps": 2},
}
_PATTERNS = ("(AI)*12", "(AAI)*6", "A*12")
# glibc keeps freed memory in huge pages, which helps PyTorch most.
TUNED_ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
_OURS, _AS_IS = "ours", "transformers as it is"


class Peer:
    """A process of a script in peers/ that answers requests."""

    def __init__(self, script, folder, job, python=sys.executable, environment=None):
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [python, str(PEERS / script), str(folder), json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=common.environment() | (environment or {}),
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Sends a request and waits; raises RuntimeError with the log if the process has ended."""
        try:
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._process.wait()
            self._log.seek(0)
            raise RuntimeError(f"{self._process.args[1]} ended:\n{self._log.read()[-3000:]}")
        return json.loads(answer)

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def peers_of(folder: pathlib.Path) -> dict[str, Peer]:
    """All available peers, by name."""
    peers = {}
    for dtype in FLAGS.dtypes:
        suffix = "" if len(FLAGS.dtypes) == 1 else f" {dtype}"
        peers[_OURS + suffix] = Peer("ours.py", folder, {"run": {"dtype": dtype}})
        policy = "float32" if dtype == "float32" else "mixed_bfloat16"
        for jit in (True, False):
            job = {"dtype": policy, "jit_compile": jit}
            name = f"KerasHub{' with XLA' if jit else ''}{suffix}"
            peers[name] = Peer("keras_hub_bert.py", folder, job, environment=TUNED_ALLOCATOR)
        if FLAGS.torch_python:
            peers["tuned torch" + suffix] = Peer(
                "torch_bert.py",
                folder,
                {"tuned": True, "dtype": "float32" if dtype == "float32" else "bfloat16"},
                FLAGS.torch_python,
                TUNED_ALLOCATOR,
            )
    if FLAGS.torch_python:
        job = {"tuned": False, "dtype": "float32"}
        peers[_AS_IS] = Peer("torch_bert.py", folder, job, FLAGS.torch_python)
    return peers


@contextlib.contextmanager
def running(peers: dict[str, Peer]):
    """Yields the peers; ends them after the block."""
    try:
        yield peers
    finally:
        for peer in peers.values():
            peer.close()


def start(folder: pathlib.Path, size: str) -> pathlib.Path:
    """Writes initial weights and the batch of a size, and returns their folder."""
    job = {**_COMMON, **SIZES[size]}
    if (folder / size).exists():
        return folder / size
    subprocess.run(
        [sys.executable, str(PEERS / "start.py"), str(folder / size), json.dumps(job)],
        check=True,
        capture_output=True,
        env=common.environment(),
    )
    return folder / size


def take_turns(peers: dict[str, Peer], steps: int) -> dict[str, dict[str, Any]]:
    """Times all peers in rounds after two warm-up steps; returns times and peak memory by name."""
    timings = {}
    for name, peer in peers.items():
        timings[name] = {"loss_before_training": peer.ask("loss")["loss"], "milliseconds": []}
        timings[name]["first_step_milliseconds"] = peer.ask("train", steps=1)["milliseconds"][0]
        peer.ask("train", steps=1)
    for _ in range(FLAGS.rounds):
        for name, peer in peers.items():
            answer = peer.ask("train", steps=steps)
            timings[name]["milliseconds"].append([round(t, 1) for t in answer["milliseconds"]])
            timings[name]["peak_memory_bytes"] = answer["peak_memory_bytes"]
    for values in timings.values():
        rounds = [statistics.median(times) for times in values["milliseconds"]]
        values["median_milliseconds"] = statistics.median(rounds)
    return timings


def ratio(slow: dict[str, Any], fast: dict[str, Any]) -> float:
    """Median over the rounds of the time of `slow` divided by that of `fast`."""
    medians = ([statistics.median(times) for times in v["milliseconds"]] for v in (slow, fast))
    return statistics.median(a / b for a, b in zip(*medians, strict=True))


def step_flops(size: str, pattern: str | None = None, gathered: bool = True) -> int:
    """FLOPs of a step: those that ours needs, or with all positions in every block."""
    job = {**_COMMON, **SIZES[size]}
    config = presets.preset(job["preset"]).replace(vocab_size=job["vocab_size"])
    config = config.replace(block_pattern=pattern or config.block_pattern)
    if gathered:
        return accounting.training_flops(config, job["length"], job["predictions"], job["rows"])
    parts = accounting.forward_flops_breakdown(config, job["length"])
    head = accounting.masked_lm_head_flops(config, job["predictions"])
    return 3 * job["rows"] * (parts["attention"] + parts["intermediate"] + head)


def products(folder: pathlib.Path) -> dict[str, list[float]]:
    """Rates of matrix products by engine, in GFLOP/s, the best of six for each shape."""
    rates = {}
    peers = {"tensorflow": Peer("ours.py", folder, {})}
    if FLAGS.torch_python:
        job = {"tuned": False, "dtype": "float32"}
        peers["torch"] = Peer("torch_bert.py", folder, job, FLAGS.torch_python)
    with running(peers):
        for dtype in ("float32", "bfloat16"):
            for jit in (False, True):
                answer = peers["tensorflow"].ask("products", dtype=dtype, jit_compile=jit)
                rates[f"tensorflow {dtype}{' XLA' if jit else ''}"] = answer["gigaflops"]
            if "torch" in peers:
                rates[f"torch {dtype}"] = peers["torch"].ask("products", dtype=dtype)["gigaflops"]
    return rates


def compare(folder: pathlib.Path, size: str, peak: float) -> dict[str, Any]:
    """Times of all peers at one size, with ratios to the best other and to `transformers`."""
    job, folder = {**_COMMON, **SIZES[size]}, start(folder, size)
    with running(peers_of(folder)) as peers:
        about = {name: peer.ask("about") for name, peer in peers.items()}
        timings = take_turns(peers, job["steps"])
    for name, values in timings.items():
        values["about"] = {k: v for k, v in about[name].items() if k != "peak_memory_bytes"}
        values["tokens_per_second"] = (
            1000 * job["rows"] * job["length"] / values["median_milliseconds"]
        )
    ours = min((n for n in timings if n.startswith(_OURS)), key=lambda n: _median(timings[n]))
    other_peers = {name: values for name, values in timings.items() if not name.startswith(_OURS)}
    result = {"job": job, "peers": timings, "ours": ours, "flops_of_ours": step_flops(size)}
    result["flops_of_others"] = step_flops(size, gathered=False)
    rate = result["flops_of_ours"] / _median(timings[ours]) / 1e6
    result["gigaflops"], result["share_of_peak"] = rate, rate / peak
    if other_peers:
        best = min(other_peers, key=lambda name: _median(other_peers[name]))
        result["best_other"], result["over_best_other"] = (
            best,
            ratio(other_peers[best], timings[ours]),
        )
        leanest = min(values["peak_memory_bytes"] for values in other_peers.values())
        result["memory_over_leanest"] = timings[ours]["peak_memory_bytes"] / leanest
    if _AS_IS in other_peers:
        result["over_transformers"] = ratio(other_peers[_AS_IS], timings[ours])
    return result


def _median(values: dict[str, Any]) -> float:
    return values["median_milliseconds"]


def patterns(folder: pathlib.Path) -> dict[str, Any]:
    """Time and FLOPs at base without intermediate blocks, relative to BERT."""
    jobs = {pattern: {"encoder": {"block_pattern": pattern}} for pattern in _PATTERNS}
    with running({p: Peer("ours.py", folder / "base", job) for p, job in jobs.items()}) as peers:
        timings = take_turns(peers, SIZES["base"]["steps"])
    reference = _PATTERNS[0]
    for pattern, values in timings.items():
        values["time_over_full"] = 1 / ratio(timings[reference], values)
        values["flops_over_full"] = step_flops("base", pattern) / step_flops("base")
        values["time_over_flops"] = values["time_over_full"] / values["flops_over_full"]
    return timings


def real_input(folder: pathlib.Path) -> dict[str, Any]:
    """Time at mini on real records, relative to a constant batch."""
    records_dir = FLAGS.records_dir or str(folder / "records")
    if not FLAGS.records_dir:
        common.create_records(records_dir)
    times = {"constant": [], "real": []}
    with running({_OURS: Peer("ours.py", folder / "mini", {})}) as peers:
        ask = peers[_OURS].ask
        for _ in range(FLAGS.rounds + 1):
            times["constant"].append(ask("train", steps=6)["milliseconds"])
            answer = ask("real_input", steps=6, records_dir=records_dir)
            times["real"].append(answer["milliseconds"])
    timings = {name: {"milliseconds": rounds[1:]} for name, rounds in times.items()}
    return {**timings, "real_over_constant": ratio(timings["real"], timings["constant"])}


def main(_):
    """Times everything; writes after each size, so that a later failure loses no results."""
    output = common.results_path("pretraining")
    result = {**common.header("milliseconds of a pre-training step, peers in turns"), "sizes": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        result["products"] = products(start(folder, FLAGS.sizes[0]))
        peak = max(max(rates) for rates in result["products"].values())
        result["peak_gigaflops"] = peak
        for size in FLAGS.sizes:
            comparison = result["sizes"][size] = compare(folder, size, peak)
            files.write_json(output, result)
            for name, values in comparison["peers"].items():
                print(
                    f"{size:<6}{name:<24}{_median(values):9.1f} ms"
                    f"{values['tokens_per_second']:9.0f} tokens/s"
                    f"{values['peak_memory_bytes'] / 2**20:7.0f} MiB"
                    f"  loss {values['loss_before_training']:.5f}"
                )
            print(
                f"{size}: {comparison.get('over_best_other', 0):.2f} times the best other, "
                f"{comparison.get('over_transformers', 0):.2f} times transformers as it is, "
                f"{comparison['share_of_peak']:.0%} of the peak {peak:.0f} GFLOP/s"
            )
        if FLAGS.patterns and "base" in FLAGS.sizes:
            result["patterns"] = patterns(folder)
            for pattern, values in result["patterns"].items():
                print(
                    f"{pattern:<9}time x{values['time_over_full']:.3f}, "
                    f"FLOPs x{values['flops_over_full']:.3f}, "
                    f"ratio {values['time_over_flops']:.3f}"
                )
            files.write_json(output, result)
        if FLAGS.real_input and "mini" in FLAGS.sizes:
            result["real_input"] = real_input(folder)
            print(
                f"real input over a constant batch: "
                f"{result['real_input']['real_over_constant']:.3f}"
            )
        result["load_after"] = os.getloadavg()
        files.write_json(output, result)
    print(output)


if __name__ == "__main__":
    app.run(main)
