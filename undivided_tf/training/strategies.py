"""tf.distribute strategies by name, their input, and settings for repeatable runs."""

import json
import os

import keras
import tensorflow as tf

from undivided_tf.errors import InputError


def get(name: str, tpu_name: str = "") -> tf.distribute.Strategy:
    """The strategy of a `--strategy` flag; call it before anything else of TensorFlow.

    Args:
        name: `one_device` (the first GPU, else the CPU), `mirrored` (all GPUs, else all logical
            CPUs, of this machine), `multi_worker` (one process per machine, all named in the
            environment variable TF_CONFIG) or `tpu`.
        tpu_name: for `tpu`: name or grpc:// address; empty: the TPU of the environment variables,
            as in Colab, or of this machine.

    Raises:
        InputError: a TPU or TF_CONFIG is needed and missing.
    """
    if name == "multi_worker":
        return _multi_worker()
    if name == "tpu":
        return _tpu(tpu_name)
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy(devices[0])
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(devices)
    raise ValueError(f"unknown strategy {name!r}")


def _multi_worker() -> tf.distribute.Strategy:
    example = (
        '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
        '"task": {"type": "worker", "index": 0}}'
    )
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        count, index = len(config["cluster"]["worker"]), int(config["task"]["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"strategy multi_worker needs the environment variable TF_CONFIG, such as {example} "
            f"with another index in each process; it is {text!r}"
        ) from error
    if config["task"].get("type") != "worker" or not 0 <= index < count:
        raise InputError(f"TF_CONFIG names {count} workers, so its task cannot be {config['task']}")
    return tf.distribute.MultiWorkerMirroredStrategy()


def _tpu(tpu_name: str) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu_name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, OSError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"no TPU answers to tpu_name {tpu_name!r} ({reason}); give --tpu_name the name or the "
            "grpc:// address of one, or choose another --strategy"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the files of the run; of several workers only one does."""
    resolver = strategy.cluster_resolver
    return getattr(resolver, "task_type", None) != "worker" or not resolver.task_id


def distribute(
    strategy: tf.distribute.Strategy, dataset: tf.data.Dataset
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Gives each replica its rows of every global batch, in order and with static shapes.

    Every worker reads the whole stream and keeps its part, so that batches are the same for any
    number of workers.

    Args:
        strategy: any.
        dataset: dicts of tensors with a static, full batch dimension, which the number of
            replicas divides.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return dataset

    def part_of_worker(context):
        local_replicas = replicas // context.num_input_pipelines
        first = local_replicas * context.input_pipeline_id

        def part(batch):
            rows = {
                name: tf.reshape(value, [replicas, value.shape[0] // replicas, *value.shape[1:]])
                for name, value in batch.items()
            }
            return tf.data.Dataset.from_tensor_slices(
                {name: value[first : first + local_replicas] for name, value in rows.items()}
            )

        return dataset.flat_map(part).prefetch(2 * local_replicas)

    return strategy.distribute_datasets_from_function(part_of_worker)


def make_repeatable(seed: int, deterministic: bool) -> None:
    """Seeds Python, NumPy and TensorFlow, and asks for deterministic kernels.

    Args:
        seed: of all generators without an explicit seed.
        deterministic: raise an error for kernels whose result depends on the order of threads.
    """
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
