"""Benchmarks run by hand, seldom: what they import must still be there."""

import importlib
import importlib.util
import pathlib
import re

import pytest

BENCHMARKS = pathlib.Path(__file__).resolve().parents[1] / "benchmarks"
FILES = sorted(BENCHMARKS.rglob("*.py"))
# In strings too, since some code runs in processes of its own.
IMPORT = re.compile(r"^\s*from (undivided_tf[\w.]*) import ([\w, ]+)$", re.MULTILINE)


def test_benchmarks_are_found():
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_benchmark_imports_what_exists(path):
    for module, names in IMPORT.findall(path.read_text(encoding="utf-8")):
        for name in names.split(", "):
            found = importlib.import_module(module)
            assert hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}"), (
                f"{path.name}: from {module} import {name}"
            )
