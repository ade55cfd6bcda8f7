"""tf.distribute strategies by name, and the settings that make a run repeatable."""

import keras
import tensorflow as tf


def get(name: str) -> tf.distribute.Strategy:
    """The strategy of a `--strategy` flag.

    Args:
        name: `one_device` (the first GPU, else the CPU) or `mirrored` (all GPUs, else all
            logical CPUs, of this machine).
    """
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    if name == "one_device":
        return tf.distribute.OneDeviceStrategy(devices[0])
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(devices)
    raise ValueError(f"unknown strategy {name!r}")


def make_repeatable(seed: int, deterministic: bool) -> None:
    """Seeds Python, NumPy and TensorFlow, and asks for deterministic kernels.

    Args:
        seed: of all generators that no explicit seed governs.
        deterministic: refuse kernels whose result depends on the order of threads.
    """
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
