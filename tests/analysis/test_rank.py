import numpy as np
import pytest
from small import rows, subject

from undivided_tf.analysis import rank
from undivided_tf.metrics import collapse


@pytest.mark.parametrize("norm_first", [False, True])
def test_blocks_are_measured_text_by_text(norm_first):
    seen = subject(norm_first=norm_first)
    found = rank.measure_blocks(seen, rows(), batch_size=4, max_seq_length=12)
    taps = list(seen.encoder.config.pattern.tap_names)
    values, added, tokens = [], [], 0
    for text in rows().first:
        inputs = seen.tokenizer.encode([text], max_seq_length=12)
        length = int(np.sum(inputs["padding_mask"]))
        inputs = {name: value[:, :length] for name, value in inputs.items()}
        of_text = seen.encoder(inputs, return_taps=True)["taps"]
        tap = {name: np.asarray(value[0]) for name, value in of_text.items()}
        values.append(tap)
        blocks = seen.encoder.blocks
        parts = [blocks[0].contribution(of_text[taps[0]], inputs["padding_mask"])]
        parts.append(blocks[1].contribution(of_text[taps[1]], inputs["padding_mask"]))
        parts.append(blocks[2].contribution(of_text[taps[2]]))
        added.append(
            [
                np.linalg.norm(part[0], axis=1) / np.linalg.norm(tap[before], axis=1)
                for part, before in zip(parts, taps, strict=False)
            ]
        )
        tokens += length
    assert (found["texts"], found["tokens"]) == (11, tokens)
    for name, measure in rank.MEASURES.items():
        expected = [np.mean([measure(text[tap]) for text in values]) for tap in taps]
        np.testing.assert_allclose(found["collapse"][name], expected, atol=2e-5, err_msg=name)
    expected = [np.concatenate([text[i] for text in added]).mean() for i in range(3)]
    np.testing.assert_allclose(list(found["contribution_norm"].values()), expected, rtol=1e-4)
    assert list(found["contribution_norm"]) == taps[1:]
    assert list(found["linear_r2"]) == ["block_01/intermediate"]


def test_attention_without_residual_connections_collapses():
    # Dong et al.: without residual connections the residual falls with depth.
    tokens = np.random.default_rng(0).normal(size=(10, 6))
    residuals = [collapse.relative_residual(tokens)]
    for seed in range(5):
        weights = np.random.default_rng(seed).dirichlet(np.ones(10), 10)
        tokens = weights @ tokens
        residuals.append(collapse.relative_residual(tokens))
    assert residuals[-1] < 0.2 * residuals[0]


def test_r2_is_1_for_a_linear_map_and_0_for_an_absolute_value():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 5))
    scored = np.arange(4000) % 2 == 1
    linear, kink, noise = (rank.LinearFit() for _ in range(3))
    for part in np.array_split(np.arange(4000), 7):
        linear.update(x[part], 2 * x[part][:, :3] + 7, scored[part])
        kink.update(x[part], np.abs(x[part]), scored[part])
        noise.update(x[part], rng.normal(size=(len(part), 2)), scored[part])
    assert linear.r2() == pytest.approx(1, abs=1e-9)
    assert kink.r2() == pytest.approx(0, abs=0.02)
    assert -0.05 < noise.r2() < 0.01
    assert linear.fitted == 2000


def test_the_linear_score_agrees_with_least_squares():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 4)) + 3
    y = np.tanh(x @ rng.normal(size=(4, 3))) + 2
    scored = rng.random(300) < 0.4
    fit = rank.LinearFit()
    fit.update(x.astype("f"), y.astype("f"), scored)
    wide = np.concatenate([x, np.ones((300, 1))], 1)
    best = np.linalg.lstsq(wide[~scored], y[~scored], rcond=None)[0]
    rest = np.square(y[scored] - wide[scored] @ best).sum()
    total = np.square(y[scored] - y[scored].mean(0)).sum()
    assert fit.r2() == pytest.approx(1 - rest / total, abs=1e-5)


def test_too_few_tokens_give_no_linear_score_but_its_reason():
    found = rank.measure_blocks(subject(), rows(2), batch_size=4, max_seq_length=12)
    assert found["linear_r2"] == {"block_01/intermediate": {"contribution": None, "output": None}}
    assert found["linear_reason"] == rank.TOO_FEW_TOKENS
    found = rank.measure_blocks(subject(block_pattern="A"), rows(2), batch_size=4, max_seq_length=9)
    assert (found["linear_r2"], found["linear_reason"]) == ({}, None)
    found = rank.measure_blocks(subject(), rows(40), batch_size=4, max_seq_length=12)
    scores = found["linear_r2"]["block_01/intermediate"]
    assert found["linear_reason"] is None
    assert 0 < scores["contribution"] < 1 and 0 < scores["output"] < 1
