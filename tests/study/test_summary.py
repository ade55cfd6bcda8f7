"""Tests of the few lines that a study prints."""

import made_up_study
import pytest
from made_up_study import accuracies, shift

from undivided_tf.reporting import formatting
from undivided_tf.study.summary import summary_lines


@pytest.mark.parametrize("patterns", [3, 30])
def test_summary_fits_the_terminal(patterns):
    results = made_up_study.results(
        patterns=tuple(f"(AI)*{i + 1}" for i in range(patterns)),
        tasks=tuple(f"task_{i}" for i in range(9)),
    )
    results["config"]["budgets"] = ["steps", "flops", "time", "surgery"]
    lines = summary_lines(made_up_study.fail(results, "probing"))
    assert len(lines) <= 25 and max(map(len, lines)) <= 100
    assert lines[1].startswith("(AI)") or lines[1].startswith("AI")
    assert any(f"{9 * patterns} failed" in line for line in lines)
    assert any("columns in the report alone" in line for line in lines)
    assert ("more patterns in the report" in " ".join(lines)) == (patterns == 30)
    assert "more claims in the report" in " ".join(lines)
    assert "6.050" in lines[1] and f"{formatting.count(798_272)}" in lines[1]


def test_summary_of_a_pattern_wider_than_the_terminal():
    pattern = "".join("A" * i + "I" for i in range(1, 30))
    lines = summary_lines(made_up_study.results(patterns=(pattern,)))
    assert [line.split()[0] for line in lines[:1]] == ["pattern"]
    assert len(lines[1]) == 100 and max(map(len, lines)) == 100
    assert any("columns in the report alone: 5" in line for line in lines)
    assert not any(line.startswith(("claim", "verdicts")) for line in lines)  # Of nothing beside.


def test_summary_has_the_verdict_on_every_claim():
    results = made_up_study.results(seeds=4)
    for pattern, accuracy in (("(AI)*6", 0.8), ("(AAI)*3", 0.8), ("A*6", 0.7)):
        shift(results, "finetuning", pattern, accuracies(accuracy))
    lines = [line.split() for line in summary_lines(results)]
    assert ["claim", "(AAI)*3", "A*6"] in lines
    assert ["accuracy", "kept", "yes", "no"] in lines
    assert ["fewer", "parameters", "yes", "yes"] in lines
    assert ["similar", "attention", "open", "open"] in lines
