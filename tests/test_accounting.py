import pytest
from conftest import tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from undivided_tf import accounting
from undivided_tf.config import EncoderConfig
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer

BASE = EncoderConfig()


@pytest.mark.parametrize(
    ("pattern", "parameters"),
    [("(AI)*12", 109_482_240), ("(AAI)*6", 81_138_432), ("A*12", 52_794_624)],
)
def test_parameters_of_bert_base(pattern, parameters):
    assert accounting.count_parameters(BASE.replace(block_pattern=pattern)) == parameters


def test_parameters_of_one_block_of_bert_base():
    assert accounting.attention_block_parameters(BASE) == 2_363_904
    assert accounting.intermediate_block_parameters(BASE) == 4_723_968


@settings(max_examples=15, deadline=None)
@given(
    st.text("AI", min_size=1, max_size=6), st.booleans(), st.integers(1, 3),
    st.sampled_from(["absolute", "rotary"]), st.booleans(),
)  # fmt: skip
def test_parameters_equal_the_built_models(letters, norm_first, heads, position_type, norm):
    config = tiny_config(
        block_pattern=letters,
        norm_first=norm_first,
        num_attention_heads=heads,
        hidden_size=6 * heads,
        intermediate_size=5,
        position_type=position_type,
        query_key_norm=norm,
    )
    encoder = Encoder(config)
    assert accounting.count_parameters(config) == encoder.count_params()
    head = accounting.masked_lm_head_parameters(config)
    assert accounting.count_parameters(config) + head == Pretrainer(encoder).count_params()


def test_flops_of_bert_base_per_token_and_block():
    parts = accounting.forward_flops_breakdown(BASE, 128)
    assert parts["attention"] / 12 / 128 == pytest.approx(5.11e6, rel=1e-3)
    assert parts["intermediate"] / 12 / 128 == pytest.approx(9.44e6, rel=1e-3)
    assert accounting.forward_flops_breakdown(BASE, 512)["attention"] / 12 / 512 == pytest.approx(
        6.29e6, rel=1e-3
    )
    assert accounting.forward_flops(BASE, 128) == sum(parts.values())


def test_flops_by_counting_every_matrix_product():
    """A second derivation: the list of products as (rows, inner, columns, times)."""
    config, n = tiny_config(block_pattern="AAI"), 7
    hidden, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    width = hidden // heads
    attention = [(n, hidden, hidden, 4), (n, width, n, heads), (n, n, width, heads)]
    intermediate = [(n, hidden, inner, 1), (n, inner, hidden, 1)]
    products = 2 * attention + intermediate + [(1, hidden, hidden, 1)]
    assert accounting.forward_flops(config, n) == sum(2 * a * b * c * t for a, b, c, t in products)


def test_training_is_three_forward_passes_without_the_pooler():
    def forward(places):
        parts = accounting.forward_flops_breakdown(BASE, 128, places)
        assert parts["pooler"] == 2 * BASE.hidden_size**2
        head = accounting.masked_lm_head_flops(BASE, 20)
        return parts["attention"] + parts["intermediate"] + head

    assert accounting.training_flops(BASE, 128, 20, 256) == 3 * 256 * forward(20)
    pairs = accounting.training_flops(BASE, 128, 20, 256, next_sentence=True)
    of_pairs = 2 * BASE.hidden_size**2 + 2 * BASE.hidden_size * 2
    assert pairs == 3 * 256 * (forward(21) + of_pairs)


def test_all_positions_cost_what_the_forward_pass_costs():
    for pattern in ("AI", "AAI", "A*2", "II", "IA"):
        config = BASE.replace(block_pattern=pattern)
        parts = accounting.forward_flops_breakdown(config, 128)
        assert accounting.forward_flops_breakdown(config, 128, 128) == parts


@pytest.mark.parametrize(
    ("letters", "norm_first"), [("AIAI", False), ("AAI", False), ("AAAA", True), ("IAI", True)]
)
def test_parameters_with_half_of_the_layer_norms(letters, norm_first):
    config = tiny_config(block_pattern=letters, norm_first=norm_first, half_layer_norms=True)
    encoder = Encoder(config)
    assert accounting.count_parameters(config) == encoder.count_params()
    whole = accounting.count_parameters(config.replace(half_layer_norms=False))
    removed = len(letters) // 2
    assert whole - accounting.count_parameters(config) == removed * 2 * config.hidden_size
    assert config.layer_norms[-1] and config.layer_norms.count(False) == removed
