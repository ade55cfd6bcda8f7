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


def test_the_words_that_a_user_meets_have_examples():
    for name in ("pattern", "accounting", "metrics.inference", "analysis.cka", "models.encoder"):
        assert f"undivided_tf.{name}" in MODULES
