import json
import pathlib
import subprocess
import sys

import toys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CORPUS = pathlib.Path(__file__).parent.parent / "data_files" / "corpus.txt"


def test_end_to_end(tmp_path):
    done = toys.run_binary(
        "create_pretraining_data", f"--input_files={CORPUS}",
        f"--output_dir={tmp_path}/records", "--vocab_size=120", "--max_seq_length=8",
        "--num_shards=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metadata = json.loads((tmp_path / "records" / "metadata.json").read_text())
    lines = done.stdout.splitlines()
    assert lines[1].split()[:4:3] == ["train", str(metadata["train"]["rows"])]
    assert f"written to {tmp_path}/records" in lines[-1]


def test_devlins_recipe_runs_from_text_to_a_pre_trained_encoder(tmp_path):
    """Records of pairs of both lengths, then the recipe with toy sizes in place of its own."""
    corpus = toys.write_corpus(tmp_path / "text", documents=60)
    flags = {"pairs_16": ["--vocab_size=60", "--max_seq_length=16"]}
    flags["pairs_32"] = [f"--vocab_file={tmp_path}/pairs_16/vocab.txt", "--max_seq_length=32"]
    for name, own in flags.items():
        done = toys.run_binary(
            "create_pretraining_data", f"--input_files={corpus}",
            f"--output_dir={tmp_path}/{name}", "--num_shards=2",
            "--packing=next_sentence", "--deduplicate=exact", "--validation_fraction=0.2", *own,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        metadata = json.loads((tmp_path / name / "metadata.json").read_text())
        assert metadata["packing"] == "next_sentence" and min(metadata["train"]["labels"]) > 5
        assert f"{metadata['left_out']['cut_tokens']:,} word pieces cut" in done.stdout
    done = toys.run_binary(
        "run_pretraining", f"--flagfile={ROOT}/flags/pretraining/devlin.flags",
        f"--workdir={tmp_path}/run",
        f"--records_dir={tmp_path}/pairs_16", f"--curriculum=4:4:{tmp_path}/pairs_32",
        "--train_batch_size=4", "--num_train_steps=6", "--num_warmup_steps=1",
        "--eval_every_steps=6", "--save_checkpoints_steps=6", "--nojit_compile",
        "--block_pattern=AI", "--hidden_size=8", "--num_attention_heads=2",
        "--intermediate_size=16", "--max_position_embeddings=32",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["steps"] == 6 and results["tokens"] == 4 * (4 * 16 + 2 * 32)
    assert 0 <= results["validation"]["next_sentence_accuracy"] <= 1


def test_mistakes_are_one_clear_message(tmp_path):
    command = [sys.executable, "-m", "undivided_tf.bin.create_pretraining_data"]
    command += [f"--output_dir={tmp_path}/records", "--max_seq_length=4"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: max_seq_length must be at least 8, got 4\n"
