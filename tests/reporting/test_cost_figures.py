from undivided_tf.reporting import pretraining

POINTS = [
    {"pattern": "(AI)*2", "budget": "steps", "score": 0.8, "parameters": 9, "training_flops": 4e9,
     "training_seconds": 30.0, "latency_milliseconds": 3.0},
    {"pattern": "A*2", "budget": "steps", "score": 0.7, "parameters": 5, "training_flops": 2e9,
     "training_seconds": 20.0, "latency_milliseconds": 2.0},
    {"pattern": "A*2", "budget": "flops", "score": 0.78, "parameters": 5, "training_flops": 4e9,
     "training_seconds": 31.0, "latency_milliseconds": 2.0},
]  # fmt: skip


def test_frontier_is_what_nothing_surpasses_at_no_more_cost():
    points = [(3, 0.5), (1, 0.4), (2, 0.6), (2, 0.3), (4, 0.6), (5, 0.9)]
    assert pretraining.frontier(points) == [(1, 0.4), (2, 0.6), (5, 0.9)]


def test_figure_is_the_same_bytes_each_time(tmp_path):
    for name in ("a.png", "b.png"):
        pretraining.quality_against_cost(POINTS, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").stat().st_size > 5000
