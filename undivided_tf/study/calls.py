"""What cells of a study call where the library's own call is not all."""

import pathlib
import statistics
from typing import Any

from undivided_tf.analysis.latency import forward_milliseconds
from undivided_tf.models import checkpoints
from undivided_tf.support import files
from undivided_tf.surgery.config import SurgeryConfig
from undivided_tf.surgery.run import REPORT, run_surgery
from undivided_tf.training.config import PretrainingConfig
from undivided_tf.training.pretraining import pretrain

_ROUNDS = 15


def pretrain_and_time(config: PretrainingConfig) -> dict[str, Any]:
    """Pre-trains; what `pretrain` returns, and `latency_milliseconds`.

    That is the median time of a compiled forward pass of the encoder on one full row.
    """
    results = pretrain(config)
    encoder, _ = checkpoints.load_encoder(config.workdir)
    length = encoder.config.max_position_embeddings
    times = forward_milliseconds({0: encoder}, batch_size=1, length=length, rounds=_ROUNDS)
    return {**results, "latency_milliseconds": statistics.median(times[0])}


def operate_once(config: SurgeryConfig) -> dict[str, Any]:
    """Operates; where a killed study has done so already, what `run_surgery` returned then."""
    done = pathlib.Path(config.output_dir) / REPORT
    return files.read_json(done) if done.exists() else run_surgery(config)
