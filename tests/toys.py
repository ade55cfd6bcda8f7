"""Small made-up text, a task of two labels and configs on which everything runs in seconds."""

import multiprocessing
import os
import random
import runpy
import subprocess
import sys
import tempfile

from undivided_tf.config import EncoderConfig
from undivided_tf.data.corpus.config import RecordsConfig
from undivided_tf.study.worker import PRELOADED
from undivided_tf.training.config import FinetuningConfig, PretrainingConfig

SENTENCES = ("the cat sat on a mat", "one dog ran up the hill", "a bird sang in that tree")
FILLERS = "the a one mat hill tree sat ran sang".split()
LENGTH = 16


def write_corpus(folder, documents=18, seed=0):
    """Two text files; returns the glob that finds them."""
    chooser = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("one", "two"):
        texts = (
            "\n".join(chooser.choice(SENTENCES) for _ in range(chooser.randint(2, 5)))
            for _ in range(documents // 2)
        )
        (folder / f"{part}.txt").write_text("\n\n".join(texts) + "\n")
    return f"{folder}/*.txt"


def records_config(folder, corpus, **changes):
    """Records of `LENGTH` word pieces."""
    return RecordsConfig(
        input_files=(corpus,), output_dir=str(folder), vocab_size=60, max_seq_length=LENGTH,
        num_shards=2, validation_fraction=0.2,
    ).replace(**changes)  # fmt: skip


def write_task(folder, rows=96, test="labelled", seed=0):
    """A task folder: `cat` or `dog` in the text decides the label."""
    chooser = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", rows), ("dev", 13), ("test", 11)):
        lines = ["sentence\tlabel"]
        for number in range(count):
            word, label = (("cat", "yes"), ("dog", "no"))[number % 2]
            words = [*chooser.sample(FILLERS, 4), word]
            chooser.shuffle(words)
            lines.append(" ".join(words) + f"\t{label}")
        if name == "test" and test == "unlabelled":
            lines = [line.split("\t")[0] for line in lines]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return str(folder)


def encoder_config(**changes):
    """An encoder whose vocabulary the records fill in; dropout is on."""
    return EncoderConfig(
        hidden_size=8, num_attention_heads=2, intermediate_size=16, block_pattern="AI",
        max_position_embeddings=LENGTH,
    ).replace(**changes)  # fmt: skip


def encoder_for(tokenizer, **changes):
    """An encoder of a vocabulary. Its words differ from the start, so little training is enough."""
    return encoder_config(
        vocab_size=tokenizer.vocab_size,
        vocabulary_hash=tokenizer.vocabulary_hash,
        initializer_range=0.3,
        **changes,
    )


def pretraining_config(workdir, records, encoder=None, **changes):
    """Ten steps, a checkpoint after five."""
    values = {
        "num_train_steps": 10,
        "num_warmup_steps": 2,
        "save_checkpoints_steps": 5,
        "eval_every_steps": 4,
        "learning_rate": 0.01,
        "train_batch_size": 4,
        "jit_compile": False,
        **changes,
    }
    encoder = encoder or encoder_config()
    return PretrainingConfig(
        workdir=str(workdir), records_dir=str(records), encoder=encoder, **values
    )


def finetuning_config(workdir, checkpoint, task, **changes):
    """Two short runs."""
    values = {
        "max_seq_length": LENGTH,
        "train_batch_size": 8,
        "num_train_epochs": 2,
        "learning_rate": 0.01,
        "num_runs": 2,
        "deterministic": True,
        **changes,
    }
    return FinetuningConfig(
        workdir=str(workdir), init_checkpoint=str(checkpoint), task=task, **values
    )


TWO_DEVICES = """
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
"""  # Begins the code of `run_python` where a strategy has two replicas.


def run_python(code, *arguments, **options):
    """Runs code in a fresh Python process that finds what this one finds."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, env=environment, check=False, **options,
    )  # fmt: skip


def run_binary(binary, *flags):
    """Runs `python -m undivided_tf.bin.BINARY` in a process forked from one that has TensorFlow."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        said = [os.path.join(folder, name) for name in ("stdout", "stderr")]
        command = [f"undivided_tf.bin.{binary}", *map(str, flags)]
        process = context.Process(target=_be_binary, args=(command, said))
        process.start()
        process.join()
        texts = []
        for path in said:
            with open(path) as file:
                texts.append(file.read())
    return subprocess.CompletedProcess(command, process.exitcode, *texts)


def _be_binary(command, said):
    for descriptor, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = command
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
