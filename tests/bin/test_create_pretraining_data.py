import json
import pathlib
import subprocess
import sys
import time

CORPUS = pathlib.Path(__file__).parent.parent / "data_files" / "corpus.txt"


def run(*arguments):
    command = [sys.executable, "-m", "undivided_tf.bin.create_pretraining_data", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_end_to_end(tmp_path):
    done = run(
        f"--input_files={CORPUS}", f"--output_dir={tmp_path}/records", "--vocab_size=120",
        "--max_seq_length=8", "--num_shards=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metadata = json.loads((tmp_path / "records" / "metadata.json").read_text())
    lines = done.stdout.splitlines()
    assert lines[1].split()[:4:3] == ["train", str(metadata["train"]["rows"])]
    assert f"written to {tmp_path}/records" in lines[-1]


def test_mistakes_are_one_clear_message(tmp_path):
    done = run(f"--output_dir={tmp_path}/records", "--max_seq_length=4")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: max_seq_length must be at least 8, got 4\n"


def test_help_answers_within_half_a_second():
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = run("--helpfull")
        times.append(time.perf_counter() - start)
    assert "--max_seq_length" in done.stdout and "--do_lower_case" in done.stdout.replace(
        "[no]", ""
    )
    assert min(times) < 0.5
