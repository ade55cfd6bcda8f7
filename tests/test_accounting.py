import pytest
from conftest import tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from undivided_tf import accounting
from undivided_tf.config import EncoderConfig
from undivided_tf.errors import InputError
from undivided_tf.models import presets
from undivided_tf.models.encoder import Encoder
from undivided_tf.models.pretrainer import Pretrainer
from undivided_tf.pattern import every_k

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


def partner(pattern, investment, reference=BASE):
    return accounting.matched_partner(
        reference.replace(block_pattern=pattern), reference, investment
    )


@pytest.mark.parametrize("preset", ["bert_tiny", "bert_mini", "bert_medium", "bert_base"])
@pytest.mark.parametrize("kept", [0, 2])
@pytest.mark.parametrize("investment", accounting.INVESTMENTS)
def test_matched_partners_have_the_parameters_of_the_full_model(preset, kept, investment):
    reference = presets.preset(preset)
    blocks = reference.pattern.num_attention
    reduced = reference.replace(block_pattern=str(every_k(blocks, kept) if kept else "A" * blocks))
    if investment == "intermediate" and not kept:
        with pytest.raises(InputError, match="no intermediate block that could widen"):
            accounting.matched_partner(reduced, reference, investment)
        return
    found = accounting.matched_partner(reduced, reference, investment)
    share = accounting.count_parameters(found) / accounting.count_parameters(reference)
    assert 0.99 <= share <= 1.01
    changed = {
        "attention": {"block_pattern"},
        "intermediate": {"intermediate_size"},
        "hidden": {"hidden_size", "intermediate_size"},
        "shared": {"block_pattern", "intermediate_size", "share_intermediate"},
    }[investment]
    assert changed >= {
        name for name, value in found.to_dict().items() if value != reduced.to_dict()[name]
    }
    if investment == "shared":
        assert found.block_pattern == (reduced if kept else reference).block_pattern
    else:
        assert found.pattern.num_intermediate == reduced.pattern.num_intermediate


@pytest.mark.parametrize("investment", accounting.INVESTMENTS)
def test_partners_keep_the_options_of_attention(investment):
    reference = tiny_config(
        hidden_size=96, num_attention_heads=3, intermediate_size=384, block_pattern="(AI)*4",
        position_type="rotary", rotary_base=100.0, query_key_norm=True,
    )  # fmt: skip
    reduced = reference.replace(block_pattern="(AAI)*2")
    found = accounting.matched_partner(reduced, reference, investment, tolerance=0.05)
    assert (found.position_type, found.rotary_base, found.query_key_norm) == ("rotary", 100.0, True)
    share = Encoder(found).count_params() / accounting.count_parameters(reference)
    assert 0.95 <= share <= 1.05


def test_partners_with_rotary_positions_have_heads_of_even_width():
    """Widths are tried in steps down to one feature; an odd one would be no config at all."""
    reference = tiny_config(block_pattern="(AI)*4", position_type="rotary")
    with pytest.raises(InputError, match="no such encoder comes within"):
        accounting.matched_partner(
            reference.replace(block_pattern="(AAI)*2"), reference, "hidden", tolerance=0.0
        )


def test_freed_parameters_of_bert_base_by_hand():
    """An intermediate block of BERT has 4,723,968 parameters, two attention blocks 4,727,808."""
    assert partner("A*12", "attention").block_pattern == "A*36"
    assert partner("(AAI)*6", "attention").block_pattern == "(AAAAI)*6"
    assert partner("(AAI)*6", "intermediate").intermediate_size == 6144


def test_a_partner_that_cannot_be_is_refused():
    with pytest.raises(InputError, match="there is nothing to invest"):
        partner("(AI)*12", "hidden")
    with pytest.raises(InputError, match="investment must be one of attention, inter"):
        partner("A*12", "width")
    with pytest.raises(InputError, match="no attention block"):
        partner("I*2", "attention")
    coarse = tiny_config(block_pattern="AI", intermediate_size=1)
    with pytest.raises(InputError, match=r"within 1.0% of .* the nearest, A with .*% off"):
        accounting.matched_partner(coarse.replace(block_pattern="A"), coarse, "attention")
