"""Imports run one way only, and what needs no TensorFlow does not import it."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1] / "undivided_tf"

# From the bottom up; a module may import from its own room and from rooms below.
LAYERS = [
    ["errors"],
    ["support"],
    ["inputs", "pattern"],
    ["config"],
    ["accounting", "tokenization", "workdir"],
    ["layers", "partners"],
    ["models", "data", "metrics"],
    ["training", "analysis"],
    ["convert"],
    ["surgery"],
    ["export"],
    ["reporting"],
    ["study"],
    ["bin"],
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def _imports(path):
    """Rooms of this package that a file imports, late imports included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("undivided_tf"):
            parts = node.module.split(".")[1:]
            names = [alias.name for alias in node.names if alias.name != "__version__"]
            yield from [parts[0]] if parts else names
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("undivided_tf."):
                    yield alias.name.split(".")[1]


def _room(path):
    return path.relative_to(ROOT).with_suffix("").parts[0]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    room = _room(path)
    if room == "__init__":
        return
    for other in _imports(path):
        allowed = other == room or LEVEL[other] < LEVEL[room]
        assert allowed, f"{path.relative_to(ROOT)} imports {other}"


def test_what_needs_no_tensorflow_does_not_import_it():
    modules = [
        "pattern", "config", "inputs", "workdir", "accounting", "partners",
        "support.progress", "support.stopwatch",
        "data.corpus.config", "training.config", "analysis.config", "convert.config",
        "surgery.config", "export.config", "study.config", "training.memory", "training.scores",
        "metrics.inference", "metrics.classification", "metrics.glue", "metrics.squad",
        "metrics.neighbour_model", "models.heads",
        "data.sample", "data.corpus.corpora", "data.corpus.survey", "data.corpus.deduplication",
        "data.corpus.runners", "data.tasks.tasks", "data.tasks.submission", "data.tasks.squad",
        "data.tasks.windows", "data.tasks.answers",
        "analysis.cka", "reporting.content", "reporting.layout", "study.grid", "study.kinds",
        "study.report", "study.sweep", "study.worth",
    ]  # fmt: skip
    code = "import sys\n" + "".join(f"import undivided_tf.{module}\n" for module in modules)
    code += "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
