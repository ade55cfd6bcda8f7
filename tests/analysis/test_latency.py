import itertools

from conftest import tiny_config

from undivided_tf.analysis import latency
from undivided_tf.models.encoder import Encoder
from undivided_tf.support import stopwatch


def test_every_encoder_has_a_time_in_every_round(monkeypatch):
    encoders = {n: Encoder(tiny_config(block_pattern=f"A*{n}")) for n in (1, 2)}
    clock = itertools.accumulate(itertools.count(0))
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: 0.001 * next(clock))
    times = latency.forward_milliseconds(encoders, batch_size=4, length=6, rounds=3)
    # Turns take 1, 3, 5 ... ms, with 8 passes of 4 rows in each; the second begins.
    assert [round(8 * t) for t in times[1]] == [3, 5, 11]
    assert [round(8 * t) for t in times[2]] == [1, 7, 9]
