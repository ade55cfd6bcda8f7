"""The examples in docstrings give what they say."""

import doctest
import importlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in ROOT.glob("undivided_tf/**/*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert attempted and not failed


def test_examples_of_pages():
    pages = [path for path in ROOT.glob("docs/*.md") if ">>> " in path.read_text()]
    assert {path.name for path in pages} >= {"worth.md"}
    for path in pages:
        failed, attempted = doctest.testfile(str(path), module_relative=False, encoding="utf-8")
        assert attempted and not failed, path.name


def test_the_words_that_a_user_meets_have_examples():
    for name in ("pattern", "accounting", "metrics.inference", "analysis.cka", "models.encoder"):
        assert f"undivided_tf.{name}" in MODULES
