"""Has it learnt? Losses beside the neighbour model's, the gate, and what a checkpoint carries."""

import dataclasses
import json

import numpy as np
import pytest
import toys

from undivided_tf.data import masking
from undivided_tf.data.corpus import counts, records
from undivided_tf.metrics.neighbour_model import NeighbourModel
from undivided_tf.models import checkpoints
from undivided_tf.support import files
from undivided_tf.training import context_use, evaluation, learning, pretraining


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of ten steps with a moving average, a third of its pieces masked."""
    folder = tmp_path_factory.mktemp("run")
    corpus = toys.write_corpus(folder / "text", 40)
    records.create_records(toys.records_config(folder / "records", corpus))
    config = toys.pretraining_config(
        folder / "run", folder / "records", masked_lm_prob=0.3, ema_momentum=0.5
    )
    return config, pretraining.pretrain(config)


def test_held_out_losses_equal_those_of_the_model_run_by_hand(run):
    """Of all masked places and of those that show [MASK], with the neighbours' beside them."""
    config, results = run
    trainer = pretraining.Trainer(config)
    trainer.restore()
    tokenizer = trainer.tokenizer
    rows = masking.validation_arrays(config.records_dir, tokenizer, masked_lm_prob=0.3)
    model = NeighbourModel(*counts.read_counts(config.records_dir), ~tokenizer.is_special)
    logits = trainer.model(rows)["masked_lm_logits"].numpy().astype(float)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_p, rows["masked_ids"][..., None], -1)[..., 0]
    used = rows["masked_weights"] > 0
    shown = np.take_along_axis(rows["token_ids"], rows["masked_positions"], 1)
    at_mask = used & (shown == tokenizer.mask_id)
    assert 0 < at_mask.sum() < used.sum()
    found = results["validation"]
    neighbours = model.masked_losses(rows)
    for name, values, places in (
        ("loss", losses, used),
        ("neighbour_model_loss", neighbours, used),
        ("loss_at_mask", losses, at_mask),
        ("neighbour_model_loss_at_mask", neighbours, at_mask),
    ):
        assert found[name] == pytest.approx(values[places].mean(), rel=1e-5), name
    excess = ((losses - neighbours) * used).sum(1)
    generator = np.random.default_rng(1)
    draws = generator.integers(len(excess), size=(4000, len(excess)))
    bound = np.quantile(excess[draws].sum(1) / used.sum(1)[draws].sum(1), 0.95)
    assert found["excess_bound"] == pytest.approx(bound, abs=0.1)
    assert results["learnt"] is found["learnt"] is (found["excess_bound"] < 0) is False


def steps_that_lose(losses):
    """Stands for compiled steps whose model has these losses."""

    class Losing:
        sums = ("loss", "correct", "weight")
        next_sentence_weight, distillation = 0.0, None
        model = type("", (), {"masked_lm_head": type("", (), {"trainable": True})})

        def evaluate(self, batch):
            sums = {"loss": losses.sum(), "correct": 0.0, "weight": float(losses.size)}
            return sums, type("", (), {"numpy": lambda self: losses})()

    return Losing()


@pytest.mark.parametrize(("gain", "learnt"), [(0.3, True), (0.03, False), (-0.3, False)])
def test_learnt_takes_a_difference_that_the_rows_can_tell(run, gain, learnt):
    """Rows whose differences have deviation 1: the 95 % bound lies 1.645 / 20 above the mean."""
    rows, slots = 400, 3
    generator = np.random.default_rng(0)
    neighbours = generator.normal(4, 0.5, (rows, slots)).astype(np.float32)
    noise = generator.normal(0, 1, (rows, 1))
    losses = neighbours - gain + (noise - noise.mean()) / noise.std()
    held_out = pretraining.Trainer(run[0]).curriculum.held_out
    weights = {"masked_weights": np.ones((rows, slots), np.float32)}
    ids = {"token_ids": np.full((rows, 5), 9), "masked_positions": np.ones((rows, slots), int)}
    held_out = dataclasses.replace(held_out, rows={**weights, **ids}, neighbour_losses=neighbours)
    steps = steps_that_lose(losses.astype(np.float32))
    found = evaluation.scores(steps, held_out, [None])
    assert found["excess_bound"] == pytest.approx(-gain + 1.645 / 20, abs=0.01)
    assert found["learnt"] is learnt
    steps.model.masked_lm_head.trainable = False
    assert evaluation.scores(steps, held_out, [None])["learnt"] is None


def test_a_checkpoint_carries_what_it_has_learnt(run, tmp_path):
    config, results = run
    for path, prefix in (
        (config.workdir, ""),
        (checkpoints.resolve(config.workdir) / "ema", "ema_"),
    ):
        carried = learning.of_checkpoint(path)
        assert carried["loss"] == results["validation"][f"{prefix}loss"]
        assert carried["learnt"] is False
        assert learning.warning(path) == (
            f"not below the neighbour model ({carried['loss']:.2f} against "
            f"{carried['neighbour_model_loss']:.2f} nats): this encoder has not learnt from its "
            "context"
        )
    assert learning.warning(tmp_path) == ""  # No checkpoint any more.


def test_weights_of_which_nothing_is_known_say_nothing(run, tmp_path):
    """Converted weights have no state, older checkpoints no neighbour model."""
    source = checkpoints.resolve(run[0].workdir)
    for path in source.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    assert learning.warning(tmp_path)
    state = files.read_json(tmp_path / "state.json")
    for scores in state["validation_history"]:
        for name in [name for name in scores if "learnt" in name or "neighbour" in name]:
            del scores[name]
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert learning.of_checkpoint(tmp_path) == {} and learning.warning(tmp_path) == ""
    (tmp_path / "state.json").write_text('{"step": 3}')  # As an interrupted fine-tuning leaves it.
    assert learning.warning(tmp_path) == ""
    (tmp_path / "state.json").unlink()
    assert learning.warning(tmp_path) == ""


def test_verdicts_in_words():
    scores = {"loss": 3.64, "neighbour_model_loss": 3.90, "learnt": True}
    assert learning.verdict(scores).startswith("below the neighbour model (3.64 against 3.90 nats)")
    unsure = learning.verdict({**scores, "loss": 3.89, "learnt": False})
    assert unsure.startswith("not shown to be below the neighbour model (3.89 against 3.90")
    assert learning.verdict({"loss": 3.6}) == ""


def test_context_is_hidden_beyond_a_distance(run, monkeypatch):
    """What the rows show is checked place by place, and the losses of a known model come back."""
    curriculum = pretraining.Trainer(run[0]).curriculum
    held_out = curriculum.held_out
    mask_id, special = held_out.tokenizer.mask_id, held_out.tokenizer.is_special
    seen = []

    def rows_as_given(strategy, rows):
        seen.append(rows)
        return [rows]

    class Steps:
        strategy, sums = None, ()

        def evaluate(self, rows):
            row, place = np.arange(len(rows["token_ids"])), rows["masked_positions"][:, 0]
            hidden = rows["token_ids"][row, np.maximum(place - 3, 0)] == mask_id
            losses = np.repeat(hidden[:, None].astype(np.float32), 2, 1)
            return {}, type("", (), {"numpy": lambda self: losses})()

    monkeypatch.setattr(curriculum, "validation_batches", rows_as_given)
    found = context_use.measure(Steps(), curriculum)
    whole, shuffled, *hidden = seen
    row, slot = np.nonzero(held_out.shows_mask)
    assert found["places"] == len(row) < context_use.PLACES
    np.testing.assert_array_equal(whole["token_ids"], held_out.rows["token_ids"][row])
    place = held_out.rows["masked_positions"][row, slot]
    for rows in seen:
        assert (rows["masked_weights"].sum(1) == 1).all()
        np.testing.assert_array_equal(rows["masked_positions"][:, 0], place)
        np.testing.assert_array_equal(
            rows["masked_ids"][:, 0], held_out.rows["masked_ids"][row, slot]
        )
        assert (rows["token_ids"][np.arange(len(row)), place] == mask_id).all()
    np.testing.assert_array_equal(np.sort(shuffled["token_ids"], 1), np.sort(whole["token_ids"], 1))
    fixed = special[whole["token_ids"]]
    assert (shuffled["token_ids"][fixed] == whole["token_ids"][fixed]).all()
    assert (shuffled["token_ids"] != whole["token_ids"]).any(1).mean() > 0.9
    assert [one["distance"] for one in found["hidden_beyond"]] == [1, 2, 4, 8]  # Of 16 pieces.
    for k, rows in zip((1, 2, 4, 8), hidden, strict=True):
        away = np.abs(np.arange(toys.LENGTH) - place[:, None]) > k
        expected = np.where(away & ~fixed, mask_id, whole["token_ids"])
        np.testing.assert_array_equal(rows["token_ids"], expected)
    # The stand-in loses 1 where the third piece to the left is hidden.
    near, far = found["hidden_beyond"][1], found["hidden_beyond"][2]
    assert near["rise"] > 0.3 and far["rise"] == 0 and far["loss"] == found["loss"]
    assert near["loss"] - found["loss"] == pytest.approx(near["rise"])
    assert near["interval"][0] < near["rise"] < near["interval"][1]


def test_context_use_of_a_real_run_has_all_its_lines(run):
    _, results = run
    found = results["context_use"]
    lines = context_use.lines(found)
    assert lines[0] == f"visible at {found['places']} masked places: loss in nats, and its rise"
    assert [line.split("  ")[1].strip() for line in lines[1:]] == [
        "all context", "pieces within 8", "pieces within 4", "pieces within 2", "pieces within 1",
        "all, shuffled", "neighbour model",
    ]  # fmt: skip


@pytest.mark.slow
def test_an_encoder_that_looks_beyond_its_neighbours_has_learnt(tmp_path):
    """Each text is a key, two fillers and the key's value: three places away, no neighbour."""
    generator = np.random.default_rng(0)
    pairs = list(zip("abcdefgh", "stuvwxyz", strict=True))
    texts = []
    for _ in range(600):
        key, value = pairs[generator.integers(len(pairs))]
        fillers = " ".join(generator.choice(list("klmn"), 2))
        texts.append(f"{key} {fillers} {value}")
    (tmp_path / "text.txt").write_text("\n\n".join(texts) + "\n")
    records.create_records(
        toys.records_config(
            tmp_path / "r", str(tmp_path / "text.txt"), max_seq_length=8, packing="document"
        )
    )
    encoder = toys.encoder_config(
        hidden_size=32, intermediate_size=64, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, norm_first=True, initializer_range=0.1,
    )  # fmt: skip
    config = toys.pretraining_config(
        tmp_path / "run", tmp_path / "r", encoder, num_train_steps=800, num_warmup_steps=40,
        train_batch_size=32, learning_rate=5e-3, eval_every_steps=800, save_checkpoints_steps=800,
        masked_lm_prob=0.2, jit_compile=True,
    )  # fmt: skip
    results = pretraining.pretrain(config)
    found, used = results["validation"], results["context_use"]
    assert results["learnt"] is True and found["excess_bound"] < 0
    assert found["loss_at_mask"] < found["neighbour_model_loss_at_mask"] - 0.3
    assert learning.verdict(found).startswith("below the neighbour model (")
    assert learning.warning(config.workdir) == ""
    rises = {one["distance"]: one["rise"] for one in used["hidden_beyond"]}
    assert set(rises) == {1, 2} and min(rises.values()) > 0.3  # The key is three places away.
    assert used["shuffled"]["rise"] > 0.1
