import numpy as np
import pytest
from small import PIECES, rows, subject

from undivided_tf.analysis import diagnostics, rank, subjects
from undivided_tf.analysis.config import DiagnosticsConfig
from undivided_tf.analysis.subjects import Subject
from undivided_tf.errors import InputError
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.tokenization import Tokenizer

CONFIG = DiagnosticsConfig(
    num_examples=8, num_attention_examples=5, max_seq_length=64, batch_size=3, top=2
)


@pytest.fixture(scope="module")
def result():
    seen = subject()
    return diagnostics.diagnose(
        seen, rows(), CONFIG, Pretrainer(seen.encoder), subject(seed=2, block_pattern="AIAA")
    )


def test_results_have_all_measurements_and_those_of_the_untrained_twin(result):
    assert result["kind"] == "diagnostics"
    assert result["encoder"] == {"pattern": "A*2I", "seed": 1, "trained": True}
    assert (result["examples"], result["attention_examples"]) == (8, 5)
    sizes = {"batch_size": 3, "max_seq_length": 64}
    chosen = rows().take(8, CONFIG.seed)
    assert result["blocks"] == rank.measure_blocks(subject(), chosen, **sizes)
    twin = subject().untrained_twin(CONFIG.seed)
    assert result["untrained_blocks"] == rank.measure_blocks(twin, chosen, **sizes)
    assert list(result["attention"]) == ["block_00/attention", "block_01/attention"]
    assert result["untrained_attention"] != result["attention"]
    assert len(result["read_out"]["loss"]) == len(result["taps"]) == 4


def test_statistics_of_heads_do_not_depend_on_the_batch_size(result):
    few = rows().take(8, CONFIG.seed).take(5, CONFIG.seed)
    found = diagnostics.attention(subject(), few, batch_size=5, max_seq_length=64)
    for block, of_block in found.items():
        for name, values in of_block.items():
            np.testing.assert_allclose(values, result["attention"][block][name], rtol=1e-5)
    first, second = found.values()
    assert 0 < second["rollout_self"] < first["rollout_self"] < 1
    assert first["rollout_self"] == pytest.approx((np.mean(first["self"]) + 1) / 2)


def test_heads_are_matched_block_by_block(result):
    pairs = [(pair["first"], pair["second"]) for pair in result["heads"]]
    assert pairs == [(f"block_0{i}/attention", f"block_0{i}/attention") for i in range(2)]
    for pair in result["heads"]:
        divergence = np.array(pair["divergence"])
        straight, crossed = divergence[0, 0] + divergence[1, 1], divergence[0, 1] + divergence[1, 0]
        assert 2 * pair["mean_matched"] == pytest.approx(min(straight, crossed))
    itself = diagnostics.match_heads(subject(), subject(), rows(), batch_size=4, max_seq_length=64)
    assert [pair["matching"] for pair in itself] == [[(0, 0), (1, 1)]] * 2
    other = Subject(subject().encoder, Tokenizer((*PIECES[:-1], "z")), 1)
    with pytest.raises(InputError, match="different tokenizers"):
        diagnostics.match_heads(subject(), other, rows(), batch_size=4, max_seq_length=64)


def test_without_a_head_nothing_is_read_out(monkeypatch, tmp_path):
    monkeypatch.setattr(subjects, "load", lambda path: subject())
    monkeypatch.setattr(diagnostics.masked_lm, "load_head", lambda *_: None)
    config = CONFIG.replace(
        init_checkpoint="one", task="wiki_topic", workdir=str(tmp_path), num_examples=4
    )
    found = diagnostics.run_diagnostics(config)
    assert found["read_out"] is None and found["heads"] is None
    assert diagnostics.run_diagnostics(config) == found
