import numpy as np
import pytest
from small import PIECES, rows, subject

from undivided_tf.analysis import masked_lm, subjects
from undivided_tf.errors import InputError
from undivided_tf.models import checkpoints
from undivided_tf.models.pretrainer import Pretrainer


def made(**changes):
    seen = subject(**changes)
    return Pretrainer(seen.encoder), seen


def log_probabilities(model, seen, ids, places):
    """Log-probabilities of all pieces at some places of one text without padding."""
    ids = np.array([ids])
    inputs = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}
    logits = model({**inputs, "masked_positions": np.array([places])})["masked_lm_logits"][0]
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_read_out_of_the_last_tap_is_the_models_own(norm_first):
    model, seen = made(norm_first=norm_first)
    found = masked_lm.logit_lens(
        model, seen, rows(9, 60), batch_size=4, max_seq_length=64, top=3, seed=5
    )
    losses, hits = [], []
    for batch in masked_lm.masked_batches(seen, rows(9, 60), 4, 64, 5):
        for text in range(len(batch.ids)):
            count = int(batch.weights[text].sum())
            if not count:
                continue
            ids = batch.inputs["token_ids"][text][batch.inputs["padding_mask"][text] == 1]
            places = batch.positions[text, :count]
            assert np.all(ids[places] == seen.tokenizer.mask_id)
            found_here = log_probabilities(model, seen, ids, places)
            true = batch.ids[text, :count]
            losses += (-found_here[np.arange(count), true]).tolist()
            hits += [
                t in np.argsort(row)[::-1][:3] for t, row in zip(true, found_here, strict=True)
            ]
    assert found["masked_tokens"] == len(losses) > 9
    assert found["loss"][-1] == pytest.approx(np.mean(losses), rel=1e-4)
    assert found["top_accuracy"][-1] == pytest.approx(np.mean(hits))
    assert len(found["loss"]) == len(found["accuracy"]) == 4
    assert all(a <= b for a, b in zip(found["accuracy"], found["top_accuracy"], strict=True))
    assert abs(found["loss"][0] - found["loss"][-1]) > 1e-4  # Each tap is read.


def test_masked_pieces_do_not_depend_on_the_batch_size():
    _, seen = made()

    def masked(batch_size):
        return [
            sorted(zip(batch.positions[i][batch.weights[i] > 0], batch.ids[i], strict=False))
            for batch in masked_lm.masked_batches(seen, rows(9, 60), batch_size, 64, 5)
            for i in range(len(batch.ids))
            if batch.weights[i].any()
        ]

    assert masked(2) == masked(9)
    shares = [len(of_text) for of_text in masked(9)]
    lengths = [len(text.split()) for text in rows(9, 60).first]
    assert shares == [max(1, round(0.15 * length)) for length in lengths]


def test_the_score_of_a_sentence_sums_its_pieces_each_masked_alone():
    model, seen = made()
    sentences = ["a b c", "h", "b a d e f g a a", "c c"]
    found = masked_lm.pseudo_log_likelihoods(
        model, seen, sentences, batch_size=5, max_seq_length=12
    )
    for sentence, value in zip(sentences, found, strict=True):
        ids = [2, *(PIECES.index(piece) for piece in sentence.split()), 3]
        total = 0
        for place in range(1, len(ids) - 1):
            masked = [*ids[:place], 4, *ids[place + 1 :]]
            total += log_probabilities(model, seen, masked, [place])[0, ids[place]]
        assert value == pytest.approx(total, rel=1e-4)
    for bad in ("", "a " * 11):
        with pytest.raises(InputError, match="word pieces; from 1 to max_seq_length - 2 = 10"):
            masked_lm.pseudo_log_likelihoods(model, seen, [bad], batch_size=5, max_seq_length=12)
    assert (
        len(masked_lm.pseudo_log_likelihoods(model, seen, [], batch_size=5, max_seq_length=9)) == 0
    )


def test_a_head_is_loaded_if_the_checkpoint_has_one(tmp_path):
    model, seen = made()
    checkpoints.save(tmp_path / "with", {"step": 1}, model, [], seen.tokenizer, keep=1)
    loaded = subjects.load(str(tmp_path / "with"))
    head = masked_lm.load_head(str(tmp_path / "with"), loaded)
    for mine, theirs in zip(model.weights, head.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    (tmp_path / "without").mkdir()
    checkpoints.save_model(
        tmp_path / "without", seen.encoder.weights, seen.encoder.config, seen.tokenizer
    )
    assert masked_lm.load_head(str(tmp_path / "without"), seen) is None
