"""The binaries that look inside, on a checkpoint with random weights."""

import json
import subprocess
import sys

import pytest

from undivided_tf import files
from undivided_tf.config import EncoderConfig
from undivided_tf.models.encoder import Encoder
from undivided_tf.tokenization import Tokenizer
from undivided_tf.training import checkpoints

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz")
SUFFIXED = tuple(f"##{letter}" for letter in PIECES[5:])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a pre-training run leaves behind, as far as it matters here."""
    tokenizer = Tokenizer((*PIECES, *SUFFIXED))
    config = EncoderConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=8, num_attention_heads=2,
        intermediate_size=16, block_pattern="AAI", max_position_embeddings=32,
        vocabulary_hash=tokenizer.vocabulary_hash,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("run")
    step = path / "checkpoints" / "step_00000007"
    step.mkdir(parents=True)
    checkpoints.save_model(step, Encoder(config, seed=1).weights, config, tokenizer)
    files.write_json(path / "config.json", {"seed": 77})
    return path


def call(binary, *flags):
    command = [sys.executable, "-m", f"undivided_tf.bin.{binary}", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("binary", "flags", "figure", "words"),
    [
        (
            "run_cka",
            ["--first_checkpoint={run}", "--num_examples=24", "--batch_size=8"],
            "cka.png",
            ["rows: A*2I, seed 77, trained: True", "columns: A*2I, seed 12345, trained: False"],
        ),
        (
            "run_probing",
            ["--init_checkpoint={run}/checkpoints/step_00000007", "--max_train_rows=60",
             "--max_test_rows=40"],
            "probes.png",
            ["A*2I, pre-training seed 77, wiki_topic: 60 training sentences, 40 of test",
             "majority"],
        ),
    ],
)  # fmt: skip
def test_binary_writes_results_and_figure_and_shows_them_again(
    run, tmp_path, binary, flags, figure, words
):
    workdir = tmp_path / "work"
    flags = [flag.format(run=run) for flag in flags]
    flags += ["--max_seq_length=32", f"--workdir={workdir}"]
    first = call(binary, *flags)
    assert first.returncode == 0, first.stderr
    for word in words:
        assert word in first.stdout
    results = (workdir / "results.json").read_bytes()
    assert json.loads(results)["kind"] in binary
    assert (workdir / figure).read_bytes().startswith(b"\x89PNG")
    again = call(binary, *flags)
    assert again.stdout == first.stdout
    assert (workdir / "results.json").read_bytes() == results


def test_a_missing_checkpoint_is_named(tmp_path):
    done = call("run_probing", f"--init_checkpoint={tmp_path}/none", f"--workdir={tmp_path}/work")
    assert done.returncode == 2
    assert f"there is no checkpoint in {tmp_path}/none" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "work").exists()  # So that the mended command can use it.
