import pytest
from conftest import tiny_config

from undivided_tf import accounting, partners
from undivided_tf.config import EncoderConfig
from undivided_tf.errors import InputError
from undivided_tf.models import presets
from undivided_tf.models.encoder import Encoder
from undivided_tf.pattern import every_k

BASE = EncoderConfig()


def partner(pattern, investment, reference=BASE):
    return partners.matched_partner(reference.replace(block_pattern=pattern), reference, investment)


@pytest.mark.parametrize("preset", ["bert_tiny", "bert_mini", "bert_medium", "bert_base"])
@pytest.mark.parametrize("kept", [0, 2])
@pytest.mark.parametrize("investment", partners.INVESTMENTS)
def test_matched_partners_have_the_parameters_of_the_full_model(preset, kept, investment):
    reference = presets.preset(preset)
    blocks = reference.pattern.num_attention
    reduced = reference.replace(block_pattern=str(every_k(blocks, kept) if kept else "A" * blocks))
    if investment == "intermediate" and not kept:
        with pytest.raises(InputError, match="no intermediate block that could widen"):
            partners.matched_partner(reduced, reference, investment)
        return
    found = partners.matched_partner(reduced, reference, investment)
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


@pytest.mark.parametrize("investment", partners.INVESTMENTS)
def test_partners_keep_the_options_of_attention(investment):
    reference = tiny_config(
        hidden_size=96, num_attention_heads=3, intermediate_size=384, block_pattern="(AI)*4",
        position_type="rotary", rotary_base=100.0, query_key_norm=True,
    )  # fmt: skip
    reduced = reference.replace(block_pattern="(AAI)*2")
    found = partners.matched_partner(reduced, reference, investment, tolerance=0.05)
    assert (found.position_type, found.rotary_base, found.query_key_norm) == ("rotary", 100.0, True)
    share = Encoder(found).count_params() / accounting.count_parameters(reference)
    assert 0.95 <= share <= 1.05


def test_partners_with_rotary_positions_have_heads_of_even_width():
    """Widths are tried in steps down to one feature; an odd one would be no config at all."""
    reference = tiny_config(block_pattern="(AI)*4", position_type="rotary")
    with pytest.raises(InputError, match="no such encoder comes within"):
        partners.matched_partner(
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
        partners.matched_partner(coarse.replace(block_pattern="A"), coarse, "attention")
