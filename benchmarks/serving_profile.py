"""Where one call of our SavedModel spends its time, operation by operation.

    TF_NUM_INTRAOP_THREADS=1 python benchmarks/serving_profile.py

The call is that of benchmarks/inference.py: raw strings to one vector per text, with the same
exports. The time of a call is taken without a trace, and the time of its operations with
TensorFlow's full trace. The rest of the call is spent between operations: on starting them and on
waiting. Several threads may run operations at the same time, so use one thread for shares that add
up. Writes
results/benchmarks/serving_profile.json; see benchmarks/README.md.
"""

import collections
import os
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

import common
import inference
import pretraining
from absl import app, flags

from undivided_tf.models import presets
from undivided_tf.support import files, process

FLAGS = flags.FLAGS
flags.DEFINE_integer("calls", 50, "Calls of each shape, without and with a trace.", lower_bound=1)

_PARTS = {  # By part of the call: how the names of its operations begin.
    "products": ("MatMul", "FusedMatMul", "BatchMatMul", "FusedBatchMatMul"),
    "LayerNorm": ("LayerNorm",),
    "softmax": ("Softmax",),
    "tokenizer": ("FastWordpiece", "FastBert", "Unicode", "RaggedTensorTo"),
    "reading weights": ("ReadVariable", "VarHandle", "ResourceGather", "Const"),
    "transposing": ("Transpose",),
}
_OTHER, _BETWEEN = "other operations", "between operations"


def part_of(operation: str) -> str:
    """The part of a call that an operation belongs to."""
    name = operation.removeprefix("_").removeprefix("Mkl").removeprefix("Native")
    return next((part for part, begins in _PARTS.items() if name.startswith(begins)), _OTHER)


def calls_of(export: pathlib.Path, texts: list[str]) -> tuple[list[float], list[dict[str, float]]]:
    """Milliseconds of calls without a trace, and of the operations of as many calls with one."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401 (the tokenizer's operations)

    v1 = tf.compat.v1
    options = v1.RunOptions(trace_level=v1.RunOptions.FULL_TRACE)
    plain, traced = [], []
    with tf.Graph().as_default(), v1.Session() as session:
        meta = v1.saved_model.load(session, ["serve"], str(export / "1"))
        signature = meta.signature_def["embed"]
        feed = {signature.inputs["text"].name: texts}
        call = session.make_callable(signature.outputs["mean"].name, list(feed))
        for _ in range(10):
            call(texts)
        for _ in range(FLAGS.calls):
            begin = time.perf_counter()
            call(texts)
            plain.append(1000 * (time.perf_counter() - begin))
        for _ in range(FLAGS.calls):
            metadata = v1.RunMetadata()
            session.run(signature.outputs["mean"].name, feed, options, metadata)
            traced.append(operations(metadata))
    return plain, traced


def operations(metadata: Any) -> dict[str, float]:
    """Milliseconds of each kind of operation in a trace, without operations that call others."""
    milliseconds = collections.Counter()
    for device in metadata.step_stats.dev_stats:
        for node in device.node_stats:
            kind = node.timeline_label.partition(" = ")[2].partition("(")[0]
            if kind and "PartitionedCall" not in kind:
                taken = (node.op_end_rel_micros - node.op_start_rel_micros) / 1000
                milliseconds[kind] += taken
    return dict(milliseconds)


def profile(export: pathlib.Path, length: int, batch: int) -> dict[str, Any]:
    """Median milliseconds of the calls of one shape, of their parts and their operations."""
    sys.path.insert(0, str(pretraining.PEERS))
    import serving

    plain, traced = calls_of(export, serving.texts(length, batch, inference.VOCABULARY))
    kinds = {kind for trace in traced for kind in trace}
    by_kind = {kind: statistics.median(trace.get(kind, 0) for trace in traced) for kind in kinds}
    call = statistics.median(plain)
    parts = collections.Counter({_BETWEEN: call - sum(by_kind.values())})
    for kind, spent in by_kind.items():
        parts[part_of(kind)] += spent
    return {
        "length": length,
        "batch": batch,
        "milliseconds": call,
        "parts": dict(parts.most_common()),
        "operations": dict(collections.Counter(by_kind).most_common()),
    }


def main(_):
    """Exports, traces, writes, and prints the shares."""
    layers = presets.preset(f"bert_{FLAGS.size}").pattern.num_attention
    result = {
        **common.header("milliseconds of each operation in one call of the SavedModel"),
        "size": FLAGS.size,
        "threads": os.environ.get("TF_NUM_INTRAOP_THREADS", "one per core"),
        "profiles": [],
    }
    with tempfile.TemporaryDirectory() as temporary:
        for name, pattern in inference.patterns(layers).items():
            folder = pathlib.Path(temporary) / name
            inference.write_models(folder, pattern, ["ours"])
            for length in map(int, FLAGS.lengths):
                for batch in map(int, FLAGS.batches):
                    profiled = profile(folder / "ours", length, batch)
                    result["profiles"].append({"pattern": pattern, **profiled})
                    shares = ", ".join(
                        f"{part} {spent / profiled['milliseconds']:.0%}"
                        for part, spent in profiled["parts"].items()
                    )
                    call = f"length {length}, batch {batch}: {profiled['milliseconds']:.2f} ms"
                    print(f"{pattern} {call}: {shares}", flush=True)
    files.write_json(common.results_path("serving_profile"), result)


if __name__ == "__main__":
    process.set_up()
    app.run(main)
