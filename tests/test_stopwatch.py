import itertools

import pytest

from undivided_tf.support import stopwatch


@pytest.fixture
def took(monkeypatch):
    """Names of calls as they come; the clock moves by 1, 2, 3 ... ms from reading to reading."""
    clock = itertools.accumulate(itertools.count(0))
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: 0.001 * next(clock))
    return []


def test_calls_have_their_turn_in_every_round_and_who_begins_changes(took):
    calls = {name: lambda name=name: took.append(name) for name in "ab"}
    rounds = list(stopwatch.in_turn(calls, rounds=3, repeats=2))
    assert "".join(took) == "ab" + "bbaa" + "aabb" + "bbaa"
    # Every turn has two calls, and a reading before and one after.
    milliseconds = [[1, 3], [5, 7], [9, 11]]
    for number, (found, (first, second)) in enumerate(zip(rounds, milliseconds, strict=True)):
        order = "ab" if number % 2 else "ba"
        expected = {order[0]: first / 2, order[1]: second / 2}
        assert found == {name: pytest.approx(value) for name, value in expected.items()}


def test_a_round_is_yielded_when_it_is_over(took):
    rounds = stopwatch.in_turn({"a": lambda: took.append("a")}, rounds=2)
    assert next(rounds) == {"a": pytest.approx(1)} and took == ["a", "a"]
