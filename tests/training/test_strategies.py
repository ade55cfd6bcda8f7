import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
import toys
from safetensors.numpy import load_file

from undivided_tf.errors import InputError
from undivided_tf.training import pretraining, strategies

WORKER = """
import json, sys
import toys
from undivided_tf.training.pretraining import pretrain
encoder = toys.encoder_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
pretrain(toys.pretraining_config(sys.argv[1], sys.argv[2], encoder, strategy=sys.argv[3],
    num_train_steps=int(sys.argv[4]), learning_rate=1e-3, save_checkpoints_steps=5,
    **json.loads(sys.argv[5])))
"""


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "needs the environment variable TF_CONFIG"),
        ("{", "needs the environment variable TF_CONFIG"),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            "names 1 workers",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "x"}}',
            "needs the environment variable TF_CONFIG",
        ),
    ],
)
def test_a_bad_cluster_is_named(monkeypatch, given, message):
    monkeypatch.setenv("TF_CONFIG", given)
    with pytest.raises(InputError, match=message):
        strategies.get("multi_worker")


def test_an_absent_tpu_is_named():
    with pytest.raises(InputError, match="no TPU answers to tpu_name 'nowhere'.*--tpu_name"):
        strategies.get("tpu", "nowhere")


def test_a_batch_that_does_not_split_is_refused(toy, tmp_path):
    config = toys.pretraining_config(tmp_path / "run", toy, gradient_accumulation_steps=3)
    with pytest.raises(
        InputError, match="train_batch_size .* batch of 4 does not split .* multiple of 3"
    ):
        pretraining.Trainer(config)


@pytest.mark.parametrize("recompute", [False, True])
def test_each_dimension_of_the_steps_is_known(toy, tmp_path, recompute):
    """What a TPU asks for: of both steps, in functions within functions, but for two kinds.

    `BroadcastGradientArgs` gives the axes that a gradient sums over, whose number depends on its
    inputs. These are constants, so it is worked out when compiling; each sum has known dimensions.
    And the condition of a loop has a placeholder for each value that it does not read. Handles of
    variables have no dimensions; what is read from them is looked at.
    """
    config = toys.pretraining_config(
        tmp_path / "run", toy, gradient_accumulation_steps=2, recompute=recompute
    )
    trainer = pretraining.Trainer(config)
    batch = next(iter(trainer.batches(0)))
    held_out = next(iter(trainer.curriculum.validation_batches(trainer.strategy)))
    steps = (
        trainer.steps.train.get_concrete_function(batch, tf.constant(0.0)),
        trainer.steps.evaluate.get_concrete_function(held_out),
    )
    graphs = [
        found
        for step in steps
        for found in (step.graph, *(f.graph for f in step.graph._functions.values()))
    ]
    outputs = [
        output
        for graph in graphs
        for op in graph.get_operations()
        for output in op.outputs
        if output.dtype not in (tf.resource, tf.variant)
    ]
    unknown = [output for output in outputs if not output.shape.is_fully_defined()]
    assert len(outputs) > 600 and len(unknown) < 30
    for output in unknown:
        if output.op.type == "BroadcastGradientArgs":
            assert {tensor.op.type for tensor in output.op.inputs} == {"Const"}
        else:
            assert output.op.type == "Placeholder" and output.consumers() == [], output.name


@pytest.mark.parametrize("part", ["batches", "validation_batches"])
def test_no_batch_is_partial(toy, tmp_path, part):
    """The records do not divide by the batch: rows are dropped in training, filled up else."""
    trainer = pretraining.Trainer(toys.pretraining_config(tmp_path / "run", toy))
    assert trainer.curriculum.metadata["train"]["rows"] % 4
    batches = {
        "batches": itertools.islice(trainer.batches(0), 20),
        "validation_batches": trainer.curriculum.validation_batches(trainer.strategy),
    }[part]
    shapes = {
        tuple((name, tuple(value.shape)) for name, value in batch.items()) for batch in batches
    }
    assert len(shapes) == 1 and all(shape[0] == 4 for _, shape in next(iter(shapes)))


def test_two_replicas_exchange_each_gradient_once(toy, tmp_path):
    """Counted in the traced step: Keras's optimizers would sum what is summed once more."""
    code = toys.TWO_DEVICES + (
        "import sys\n"
        "import toys\n"
        "from undivided_tf.training.pretraining import Trainer\n"
        "trainer = Trainer(toys.pretraining_config('', sys.argv[1], strategy='mirrored'))\n"
        "batch = next(iter(trainer.batches(0)))\n"
        "graph = trainer.steps.train.get_concrete_function(batch, tf.constant(0.0)).graph\n"
        "graphs = [graph, *(f.graph for f in graph._functions.values() if hasattr(f, 'graph'))]\n"
        "elements = [op.outputs[0].shape.num_elements() for g in graphs\n"
        "    for op in g.get_operations() if op.type == 'CollectiveReduceV2']\n"
        "print(sum(elements), trainer.model.count_params())\n"
    )
    done = toys.run_python(code, toy)
    assert done.returncode == 0, done.stderr
    exchanged, parameters = map(int, done.stdout.split()[-2:])
    sizes = 2  # Of the global batch: masked tokens and sequences.
    assert exchanged == 2 * (parameters + sizes)  # One operation on each of two devices.


def test_workers_share_each_batch_and_none_sees_a_row_twice():
    """The rows of every replica, two on each of two workers, and again as on the first run."""

    class Strategy:
        num_replicas_in_sync = 4

        def distribute_datasets_from_function(self, function):
            contexts = (tf.distribute.InputContext(2, worker, 4) for worker in range(2))
            return [list(function(context)) for context in contexts]

    rows = {"token_ids": np.arange(3 * 8 * 5).reshape(24, 5)}
    dataset = tf.data.Dataset.from_tensor_slices(rows).batch(8, drop_remainder=True)
    first, second = strategies.distribute(Strategy(), dataset)
    assert len(first) == len(second) == 3 * 2  # Steps x replicas of the worker.
    for step in range(3):
        shares = [*first[2 * step : 2 * step + 2], *second[2 * step : 2 * step + 2]]
        assert [share["token_ids"].shape for share in shares] == [(2, 5)] * 4
        together = np.concatenate([share["token_ids"] for share in shares])
        np.testing.assert_array_equal(together, rows["token_ids"][8 * step : 8 * step + 8])


def two_free_addresses():
    with socket.socket() as one, socket.socket() as other:
        one.bind(("localhost", 0))
        other.bind(("localhost", 0))
        return [f"localhost:{s.getsockname()[1]}" for s in (one, other)]


def start_workers(workdir, records_dir, steps, changes="{}"):
    addresses = two_free_addresses()
    for index in (0, 1):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        path = os.pathsep.join(filter(None, sys.path))
        environment = {**os.environ, "PYTHONPATH": path, "TF_CONFIG": json.dumps(task)}
        arguments = map(str, (workdir, records_dir, "multi_worker", steps, changes))
        yield subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments],
            env=environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip


@pytest.mark.slow
def test_two_workers_one_of_them_killed_equal_one_process(toy, tmp_path):
    steps = 400
    done = toys.run_python(WORKER, tmp_path / "one", toy, "one_device", steps, "{}")
    assert done.returncode == 0, done.stderr
    workdir = tmp_path / "two"
    first = list(start_workers(workdir, toy, steps))
    try:
        until = time.monotonic() + 300
        while not (workdir / "checkpoints" / "step_00000010").exists():
            assert time.monotonic() < until and first[0].poll() is None, first[0].communicate()[1]
            time.sleep(0.02)
        first[1].send_signal(signal.SIGKILL)
        # The survivor cannot go on alone; whoever starts the job again ends it.
        time.sleep(1)
        assert not (workdir / "results.json").exists()
    finally:
        for process in first:
            process.kill()
            process.communicate()
    second = list(start_workers(workdir, toy, steps))
    errors = [process.communicate(timeout=300)[1] for process in second]
    assert [process.returncode for process in second] == [0, 0], errors
    results = [json.loads((tmp_path / n / "results.json").read_text()) for n in ("one", "two")]
    one, two = results
    assert one["steps"] == two["steps"] == steps
    for name in ("training_history", "validation_history"):
        assert [p["step"] for p in one[name]] == [p["step"] for p in two[name]]
        np.testing.assert_allclose(
            [p["loss"] for p in two[name]], [p["loss"] for p in one[name]], atol=1e-4
        )
    # It depends on which loss belongs to which row: workers keep their order.
    for key in ("loss_at_mask", "excess_bound"):
        assert two["validation"][key] == pytest.approx(one["validation"][key], abs=1e-4)
    path = f"checkpoints/step_{steps:08d}/weights.safetensors"
    weights = [load_file(tmp_path / name / path) for name in ("one", "two")]
    for key in weights[0]:
        np.testing.assert_allclose(weights[1][key], weights[0][key], atol=1e-4)


@pytest.mark.slow
def test_two_workers_train_a_branch_as_one_process_does(toy, tmp_path):
    changes = json.dumps({"learning_rate_schedule": "trapezoid", "cooldown_steps": [10]})
    done = toys.run_python(WORKER, tmp_path / "one", toy, "one_device", 20, changes)
    assert done.returncode == 0, done.stderr
    workers = list(start_workers(tmp_path / "two", toy, 20, changes))
    errors = [process.communicate(timeout=300)[1] for process in workers]
    assert [process.returncode for process in workers] == [0, 0], errors
    for name in ("results.json", "branches/step_00000010/results.json"):
        one, two = (json.loads((tmp_path / n / name).read_text()) for n in ("one", "two"))
        assert two["validation"]["loss"] == pytest.approx(one["validation"]["loss"], abs=1e-4)
