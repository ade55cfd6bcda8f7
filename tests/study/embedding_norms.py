"""A kind of cells that the package does not know: a researcher's own analysis."""

import dataclasses

from undivided_tf.config import Config, option
from undivided_tf.reporting.content import Section, Table, code, number
from undivided_tf.study.cells import INSIDE, Kind, per_encoder


@dataclasses.dataclass(frozen=True)
class NormsConfig(Config):
    """Norms of the token embeddings of an encoder."""

    workdir: str = option("", "Directory of the cell.")
    init_checkpoint: str = option("", "Pre-training workdir.")


def norms(config):
    """The mean norm of the rows of the embedding matrix."""
    import numpy as np  # Only the cell's own process imports what it computes with.

    from undivided_tf.models import checkpoints

    encoder, _ = checkpoints.load_encoder(config.init_checkpoint)
    size = (encoder.config.vocab_size, encoder.config.hidden_size)
    (table,) = (weight.numpy() for weight in encoder.weights if tuple(weight.shape) == size)
    return {"kind": "norms", "mean_norm": float(np.linalg.norm(table, axis=-1).mean())}


class EmbeddingNorms(Kind):
    """One cell an encoder."""

    name = "norms"
    title = "Norms"
    call = "embedding_norms:norms"

    def cells(self, config, encoders):
        return per_encoder(self, encoders, [({}, NormsConfig())])

    def rows(self, result):
        yield {"metric": "mean_norm", "value": result["mean_norm"]}

    def report(self, study):
        means = {p: study.mean("norms", "mean_norm", pattern=p) for p in study.patterns}
        rows = tuple((code(p), number(mean, "{:.6f}".format)) for p, mean in means.items())
        table = Table("Norms of embeddings", ("pattern", "mean norm"), rows)
        yield Section(INSIDE, "Embeddings", (table,))
