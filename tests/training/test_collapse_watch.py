import logging

import numpy as np
import pytest
import toys

from undivided_tf.data.corpus import records
from undivided_tf.metrics.collapse import relative_residual
from undivided_tf.models.encoder import Encoder
from undivided_tf.training.collapse_watch import ALARM, CollapseWatch


def test_the_watch_sees_a_collapse_and_says_it_once(toy, caplog):
    tokenizer = records.read_tokenizer(toy)
    encoder = Encoder(toys.encoder_config(vocab_size=tokenizer.vocab_size), seed=1)
    watch = CollapseWatch(encoder, str(toy), tokenizer)
    with caplog.at_level(logging.WARNING):
        healthy = watch.residuals(4)
    assert list(healthy) == list(encoder.config.pattern.tap_names)
    assert min(healthy.values()) > ALARM and not caplog.records
    ids = np.asarray(watch._inputs["token_ids"])
    text = ids[0][ids[0] != tokenizer.pad_id]
    inputs = {
        "token_ids": text[None],
        "segment_ids": 0 * text[None],
        "padding_mask": 0 * text[None] + 1,
    }
    alone = encoder(inputs, return_taps=True)["taps"]["block_00/attention"][0]
    rows = [
        relative_residual(np.asarray(tap)[mask])
        for tap, mask in zip(
            encoder(watch._inputs, return_taps=True)["taps"]["block_00/attention"],
            ids != tokenizer.pad_id, strict=True,
        )
    ]  # fmt: skip
    assert rows[0] == pytest.approx(relative_residual(alone), abs=1e-5)
    assert healthy["block_00/attention"] == pytest.approx(np.mean(rows), abs=1e-6)
    scale = encoder.embeddings.layer_norm.weights[0]  # Tokens differ by their direction only.
    kept, offset = np.asarray(scale), encoder.embeddings.layer_norm.weights[1]
    scale.assign(0 * kept)
    offset.assign(np.ones(len(kept)) * np.linspace(1, 2, len(kept)))
    with caplog.at_level(logging.WARNING):
        assert watch.residuals(8)["embeddings"] == pytest.approx(0, abs=1e-6)
        watch.residuals(12)
    (record,) = caplog.records
    assert "step 8: RANK COLLAPSE begins: at embeddings" in record.getMessage()
    scale.assign(kept)
    offset.assign(0 * kept)
    with caplog.at_level(logging.WARNING):
        watch.residuals(16)
        scale.assign(0 * kept)
        offset.assign(np.linspace(1, 2, len(kept)))
        watch.residuals(20)
    assert "step 20" in caplog.records[-1].getMessage() and len(caplog.records) == 2
