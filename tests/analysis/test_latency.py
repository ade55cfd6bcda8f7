import itertools

from conftest import tiny_config

from undivided_tf.analysis import latency
from undivided_tf.models.encoder import Encoder


def test_every_encoder_has_its_turn_in_every_round(monkeypatch):
    encoders = {n: Encoder(tiny_config(block_pattern=f"A*{n}")) for n in (1, 2)}
    clock = itertools.count()
    monkeypatch.setattr(latency.time, "perf_counter", lambda: 0.001 * next(clock) ** 2)
    times = latency.forward_milliseconds(encoders, batch_size=4, length=6, rounds=3)
    # The clock is read before and after each turn, and 8 passes of 4 rows lie between.
    turns = [(2 * n + 1) ** 2 - (2 * n) ** 2 for n in range(6)]
    assert [round(8 * t) for t in times[1]] == turns[::2]
    assert [round(8 * t) for t in times[2]] == turns[1::2]
