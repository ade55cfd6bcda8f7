"""Speed of making records from text, by us and by Hugging Face `datasets`, and our memory.

    python benchmarks/records.py --torch_python=OTHER_VENV/bin/python

The peer does the same as `run_mlm.py` of `transformers`: `datasets.map` with `BertTokenizerFast`,
then `datasets.map` with `group_texts`; once with one process per core, once with one process whose
tokenizer has one thread per core. It runs in another interpreter, since neither package is a
dependency of ours (extra `compare`). All variants read the same file, use the same vocabulary and
write their rows to the disk. Each has one process, which processes a small part of the text first.
They are timed in alternation. Writes results/benchmarks/records.json.
"""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

import common
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("torch_python", "", "Interpreter with datasets and transformers; empty: none.")
flags.DEFINE_string("vocab_file", "", "Vocabulary for all variants; empty: train one of 8000.")
flags.DEFINE_integer("max_seq_length", 128, "Word pieces per row.")
flags.DEFINE_integer("rounds", 5, "Timed runs of each variant.")
flags.DEFINE_integer("times", 1, "Copies of the sample in the text of the timed runs.")
flags.DEFINE_integer(
    "memory_times", 10, "Copies in the larger corpus for memory; 0: do not measure memory."
)
flags.DEFINE_string("dir", None, "Folder for temporary files; by default a temporary folder.")

OURS = """
import json, shutil, sys, time
config = json.loads(sys.argv[1])
from undivided_tf.data.corpus import records
from undivided_tf.data.corpus.config import RecordsConfig

def run(text):
    shutil.rmtree(config["output_dir"], ignore_errors=True)
    made = RecordsConfig.from_dict({**config, "input_files": [text]})
    start = time.perf_counter()
    rows = records.create_records(made)["train"]["rows"]
    return time.perf_counter() - start, rows
"""
PEER = """
import itertools, json, os, shutil, sys, time
config = json.loads(sys.argv[1])
os.environ["TOKENIZERS_PARALLELISM"] = str(config["processes"] is None).lower()
os.environ["HF_HOME"] = config["cache"]
os.environ["HF_HUB_OFFLINE"] = "1"
import datasets
from transformers import BertTokenizerFast

datasets.disable_progress_bars()
pieces = [line.rstrip("\\n") for line in open(config["vocab_file"], encoding="utf-8")]
vocabulary = {piece: number for number, piece in enumerate(pieces)}
tokenizer = BertTokenizerFast(vocab=vocabulary, do_lower_case=True)
assert tokenizer.vocab_size == len(pieces), tokenizer.vocab_size
length = config["max_seq_length"]

def tokenize(examples):
    return tokenizer(examples["text"], return_special_tokens_mask=True)

def group(examples):
    joined = {k: list(itertools.chain(*examples[k])) for k in examples.keys()}
    total = len(joined["input_ids"]) // length * length
    return {k: [t[i : i + length] for i in range(0, total, length)] for k, t in joined.items()}

def run(text):
    shutil.rmtree(config["cache"], ignore_errors=True)
    start = time.perf_counter()
    data = datasets.load_dataset(
        "text", data_files=text, split="train", cache_dir=config["cache"]
    )
    options = {"batched": True, "num_proc": config["processes"], "load_from_cache_file": False}
    data = data.map(tokenize, remove_columns=["text"], **options)
    data = data.map(group, **options)
    return time.perf_counter() - start, len(data)
"""
VERSIONS = """
import importlib.metadata, json
names = ("datasets", "transformers", "tokenizers")
print(json.dumps({name: importlib.metadata.version(name) for name in names}))
"""
LOOP = """
for text in sys.stdin:
    print("RESULT", json.dumps(run(text.strip())), flush=True)
"""
MEMORY = """
if __name__ == "__main__":
    import psutil, threading
    peak, process = [0], psutil.Process()
    def watch():
        while True:
            total = 0
            for each in [process, *process.children(recursive=True)]:
                try:
                    total += each.memory_info().rss
                except psutil.Error:
                    pass
            peak[0] = max(peak[0], total)
            time.sleep(0.05)
    threading.Thread(target=watch, daemon=True).start()
    run(sys.argv[2])
    print("RESULT", json.dumps(peak[0]))
"""


class Variant:
    """A process that makes rows from each file that it is given.

    Args:
        python: the interpreter of the process.
        code: code that defines `run`.
        config: settings that the code reads.
    """

    def __init__(self, python: str, code: str, config: dict):
        self._process = subprocess.Popen(
            [python, "-c", code + LOOP, json.dumps(config)],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=common.environment(),
        )

    def run(self, text: pathlib.Path) -> tuple[float, int]:
        """Makes rows from a file; returns seconds and rows."""
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("RESULT "):
                return tuple(json.loads(line.removeprefix("RESULT ")))
        raise RuntimeError(f"a variant ended with status {self._process.wait()}")

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def write_text(path: pathlib.Path, times: int, documents: int | None = None) -> None:
    """Writes copies of the embedded sample; an added line makes the documents of copies differ."""
    from undivided_tf.data.corpus import corpora

    with open(path, "w", encoding="utf-8") as file:
        for number in range(times):
            count = 0
            for source in corpora.sources(["sample"]):
                for document in source.read():
                    count += 1
                    if documents is None or count <= documents:
                        line = f"Copy {number} of document {count}.\n" if times > 1 else ""
                        file.write(f"{line}{document.text}\n\n")


def peak_memory(config: dict, text: pathlib.Path, folder: pathlib.Path) -> int:
    """Peak resident bytes, child processes included, while records are made from a file."""
    script = folder / "memory.py"  # A file, since spawned processes import the main module.
    script.write_text(OURS + MEMORY)
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(config), str(text)],
        capture_output=True,
        text=True,
        check=True,
        env=common.environment(),
    )
    return json.loads(done.stdout.split("RESULT ")[1])


def main(_):
    """Measures times and memory and writes the results."""
    from undivided_tf.support import files

    folder = pathlib.Path(FLAGS.dir or tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    text, part = folder / "text.txt", folder / "part.txt"
    write_text(text, FLAGS.times)
    write_text(part, 1, 60)
    ours = {"output_dir": str(folder / "records"), "max_seq_length": FLAGS.max_seq_length}
    vocabulary = FLAGS.vocab_file
    if not vocabulary:
        from undivided_tf.data.corpus import records
        from undivided_tf.data.corpus.config import RecordsConfig

        config = RecordsConfig(input_files=(str(text),), output_dir=str(folder / "trained"))
        records.create_records(config)
        vocabulary = str(folder / "trained" / "vocab.txt")
    ours["vocab_file"] = vocabulary
    result = {
        **common.header("text to rows of word pieces on the disk"),
        "flags": common.flag_values(without=("torch_python", "dir")),
        "bytes": text.stat().st_size,
    }
    if FLAGS.torch_python:
        result |= compare(ours, text, part, folder)
    if FLAGS.memory_times:
        larger = folder / "larger.txt"
        write_text(larger, FLAGS.memory_times)
        result["peak_memory"] = {}
        for runner in ({}, {"runner": "dask", "num_processes": 2}):
            name = runner.get("runner", "in_process")
            for path in (text, larger):
                peak = peak_memory({**ours, **runner}, path, folder)
                result["peak_memory"].setdefault(name, []).append(
                    {"bytes": path.stat().st_size, "peak_bytes": peak}
                )
                print(
                    f"{name:<12}{path.stat().st_size / 1e6:8.1f} MB of text: {peak / 1e6:8.0f} MB"
                )
    path = common.results_path("records")
    files.write_json(path, result)
    print(path)
    if not FLAGS.dir:
        shutil.rmtree(folder)


def compare(ours: dict, text: pathlib.Path, part: pathlib.Path, folder: pathlib.Path) -> dict:
    """Times all variants in alternation."""
    peer = {
        "vocab_file": ours["vocab_file"],
        "max_seq_length": ours["max_seq_length"],
        "cache": str(folder / "cache"),
    }
    variants = {
        "ours": Variant(sys.executable, OURS, ours),
        "datasets, a process a core": Variant(
            FLAGS.torch_python, PEER, {**peer, "processes": os.cpu_count()}
        ),
        "datasets, one process": Variant(FLAGS.torch_python, PEER, {**peer, "processes": None}),
    }
    for variant in variants.values():
        variant.run(part)
    seconds = {name: [] for name in variants}
    rows = {}
    for _ in range(FLAGS.rounds):
        for name, variant in variants.items():
            taken, rows[name] = variant.run(text)
            seconds[name].append(taken)
    for variant in variants.values():
        variant.close()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best = min((name for name in variants if name != "ours"), key=medians.get)
    size = text.stat().st_size / 1e6
    for name in variants:
        print(f"{name:<28}{size / medians[name]:8.2f} MB/s, {rows[name]:,} rows")
    speedup = medians[best] / medians["ours"]
    print(f"ours is {speedup:.2f} times as fast as {best}")
    versions = subprocess.run(
        [FLAGS.torch_python, "-c", VERSIONS], capture_output=True, text=True, check=True
    )
    return {
        "peer": json.loads(versions.stdout),
        "rows": rows,
        "seconds": seconds,
        "megabytes_per_second": {name: size / median for name, median in medians.items()},
        "speedup_of_medians": speedup,
        "speedup_over": best,
    }


if __name__ == "__main__":
    app.run(main)
