import json
import logging

import numpy as np
import pytest
import toys
from safetensors.numpy import load_file

from undivided_tf import accounting
from undivided_tf.data import masking
from undivided_tf.data.corpus import records
from undivided_tf.errors import InputError
from undivided_tf.training import curves, pretraining

KEYS = {
    "kind", "pattern", "seed", "parameters", "forward_flops", "training_flops", "steps", "tokens",
    "step_milliseconds", "tokens_per_second", "training_seconds", "peak_memory_bytes",
    "training_history", "validation_history", "validation", "unigram_entropy",
    "validation_unigram_cross_entropy", "best", "skipped_steps", "learnt", "context_use",
    "branches",
}  # fmt: skip
MEASURED = {"step_milliseconds", "tokens_per_second", "training_seconds", "peak_memory_bytes"}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Records whose epochs end within ten steps."""
    folder = tmp_path_factory.mktemp("toy")
    corpus = toys.write_corpus(folder / "text")
    metadata = records.create_records(toys.records_config(folder / "records", corpus))
    assert 20 < metadata["train"]["rows"] < 32  # An epoch ends in step 6, 7 or 8.
    return folder / "records"


@pytest.fixture(scope="module", autouse=True)
def few_points():
    """Training curves of ten steps with a point for every third."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "_POINTS", 3)
        yield


@pytest.fixture(scope="module")
def ten_steps(toy, few_points, tmp_path_factory):
    """An uninterrupted run with dropout, and its config."""
    config = toys.pretraining_config(tmp_path_factory.mktemp("ten") / "run", toy)
    return config, pretraining.pretrain(config)


def last_checkpoint(config):
    (*_, path) = sorted(pretraining.pathlib.Path(config.workdir).glob("checkpoints/step_*"))
    return path


def repeatable(results):
    (branch,) = results["branches"]
    own = {"branches": [{key: value for key, value in branch.items() if key not in MEASURED}]}
    return {key: value for key, value in results.items() if key not in MEASURED} | own


def stop_at(monkeypatch, step):
    """A run ends with an exception in this step."""
    take = pretraining.Trainer.step
    taken = []

    def stop(self, batch, stop=False):
        taken.append(batch)
        if len(taken) == step:
            raise KeyboardInterrupt
        return take(self, batch, stop)

    monkeypatch.setattr(pretraining.Trainer, "step", stop)


def test_results_say_what_the_contract_names(ten_steps, toy):
    config, results = ten_steps
    assert set(results) == KEYS
    assert json.loads((last_checkpoint(config).parents[1] / "results.json").read_text()) == results
    metadata = records.read_metadata(toy)
    encoder = config.encoder.replace(vocab_size=metadata["vocab_size"])
    assert (results["kind"], results["pattern"], results["seed"]) == ("pretraining", "AI", 12345)
    assert (results["steps"], results["tokens"]) == (10, 10 * 4 * toys.LENGTH)
    assert results["parameters"] == accounting.count_parameters(encoder)
    assert results["forward_flops"] == accounting.forward_flops(encoder, toys.LENGTH)
    slots = round(0.15 * toys.LENGTH)
    flops = accounting.training_flops(encoder, toys.LENGTH, slots, 10 * 4)
    assert results["training_flops"] == flops
    assert [point["step"] for point in results["training_history"]] == [3, 6, 9, 10]
    assert [point["step"] for point in results["validation_history"]] == [4, 8, 10]
    assert results["validation"] == {
        key: value for key, value in results["validation_history"][-1].items() if key != "step"
    }
    assert results["validation"]["masked_tokens"] > 0
    assert 0 <= results["validation"]["accuracy"] <= 1
    for key in ("unigram_entropy", "validation_unigram_cross_entropy"):
        assert results[key] == metadata[key]
    assert results["tokens_per_second"] == pytest.approx(
        4 * toys.LENGTH * 1000 / results["step_milliseconds"]
    )
    assert results["training_seconds"] > 0 and results["peak_memory_bytes"] > 50e6


def test_loss_falls(toy, tmp_path):
    config = toys.pretraining_config(
        tmp_path / "run", toy, num_train_steps=150, num_warmup_steps=10, train_batch_size=8,
        eval_every_steps=50, save_checkpoints_steps=150,
    )  # fmt: skip
    results = pretraining.pretrain(config)
    held_out = [point["loss"] for point in results["validation_history"]]
    guess = np.log(60)  # The loss of random weights.
    assert guess > held_out[0] > held_out[-1] and held_out[-1] < guess - 0.7
    first, second, third = (point["loss"] for point in results["training_history"])
    assert guess > first > second > third


def test_an_interrupted_run_equals_an_uninterrupted_one(ten_steps, tmp_path, monkeypatch):
    """Between checkpoint, interruption and end an epoch ends and a point of the curve is open."""
    whole, results = ten_steps
    config = whole.replace(workdir=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        stop_at(patch, 8)
        with pytest.raises(KeyboardInterrupt):
            pretraining.pretrain(config)
    assert last_checkpoint(config).name == "step_00000005"
    assert repeatable(pretraining.pretrain(config)) == repeatable(results)
    for name in ("weights.safetensors", "training.safetensors"):
        one, other = (load_file(last_checkpoint(c) / name) for c in (whole, config))
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_dropout_is_on_in_training_and_off_in_evaluation(ten_steps):
    config, results = ten_steps
    trainer = pretraining.Trainer(config)
    trainer.restore()
    assert trainer.evaluate() == trainer.evaluate() == results["validation"]
    batch = next(iter(trainer.batches(0)))
    losses = [float(trainer.steps.losses(batch, training=True)["loss"]) for _ in range(2)]
    assert losses[0] != losses[1]


def test_evaluation_equals_numpy(ten_steps, toy):
    config, results = ten_steps
    trainer = pretraining.Trainer(config)
    trainer.restore()
    loss = correct = weight = 0.0
    for batch in masking.validation_batches(toy, trainer.tokenizer, batch_size=5):
        logits = np.float64(trainer.model(batch, training=False)["masked_lm_logits"])
        shifted = logits - logits.max(-1, keepdims=True)
        log_probs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        for i, j in np.argwhere(batch["masked_weights"].numpy() > 0):
            truth = int(batch["masked_ids"][i, j])
            loss -= log_probs[i, j, truth]
            correct += logits[i, j].argmax() == truth
            weight += 1
    validation = results["validation"]
    assert validation["masked_tokens"] == weight
    assert validation["loss"] == pytest.approx(loss / weight, rel=1e-5)
    assert validation["accuracy"] == pytest.approx(correct / weight)


def test_a_finished_run_returns_at_once(ten_steps, monkeypatch):
    config, results = ten_steps
    monkeypatch.setattr(pretraining, "Trainer", None)  # Not even built.
    assert pretraining.pretrain(config) == results


def test_another_config_in_the_workdir_is_refused(ten_steps):
    config, _ = ten_steps
    encoder = config.encoder.replace(hidden_size=16)
    for other, message in [
        (config.replace(learning_rate=0.5), "learning_rate: 0.01 there, 0.5 asked for"),
        (config.replace(encoder=encoder), "encoder.hidden_size: 8 there, 16 asked for"),
    ]:
        with pytest.raises(InputError, match=message):
            pretraining.pretrain(other)


def test_compiled_steps_agree_with_plain_ones(toy, tmp_path):
    encoder = toys.encoder_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    losses = {}
    for jit in (True, False):
        config = toys.pretraining_config(
            tmp_path / str(jit), toy, encoder, jit_compile=jit, num_train_steps=6
        )
        results = pretraining.pretrain(config)
        losses[jit] = [point["loss"] for point in results["training_history"]]
        losses[jit].append(results["validation"]["loss"])
    assert len(losses[True]) == 4
    np.testing.assert_allclose(losses[True], losses[False], atol=1e-4)


@pytest.mark.slow
def test_two_replicas_and_two_parts_equal_one_device(toy, tmp_path):
    """Their rows hold unequal numbers of predictions, so a mean of means would be another."""
    code = toys.TWO_DEVICES + (
        "import json, sys\n"
        "import toys\n"
        "from undivided_tf.training.pretraining import pretrain\n"
        "encoder = toys.encoder_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)\n"
        "results = {}\n"
        "for name, strategy, parts, jit in [('one', 'one_device', 1, False),\n"
        "        ('two', 'mirrored', 1, True), ('parts', 'mirrored', 2, False)]:\n"
        "    results[name] = pretrain(toys.pretraining_config(\n"
        "        recompute=name == 'parts',\n"
        "        workdir=f'{sys.argv[1]}/{name}', records=sys.argv[2], encoder=encoder,\n"
        "        strategy=strategy,\n"
        "        gradient_accumulation_steps=parts, learning_rate=1e-3, num_train_steps=20,\n"
        "        train_batch_size=8, max_gradient_norm=0.1, jit_compile=jit,\n"
        "        eval_every_steps=20, save_checkpoints_steps=20))\n"
        "print(json.dumps(results))\n"
    )
    done = toys.run_python(code, tmp_path, toy)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    curves = {
        name: [point["loss"] for point in result["training_history"]]
        # The second depends on which loss belongs to which row: replicas keep their order.
        + [result["validation"][key] for key in ("loss", "loss_at_mask", "excess_bound")]
        + [result["context_use"]["shuffled"]["loss"]]
        for name, result in results.items()
    }
    one = load_file(tmp_path / "one" / "checkpoints" / "step_00000020" / "weights.safetensors")
    for name in ("two", "parts"):
        np.testing.assert_allclose(curves[name], curves["one"], atol=1e-5)
        path = tmp_path / name / "checkpoints" / "step_00000020" / "weights.safetensors"
        other = load_file(path)
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_allclose(one[key], other[key], atol=1e-5)


def test_recomputation_changes_no_step(ten_steps, tmp_path):
    """Dropout is on: the second pass must draw the masks of the first."""
    config, results = ten_steps
    recomputed = config.replace(recompute=True, workdir=str(tmp_path / "run"))
    found = pretraining.pretrain(recomputed)
    for name in ("training_history", "validation_history"):
        losses = [[point["loss"] for point in one[name]] for one in (found, results)]
        np.testing.assert_allclose(*losses, rtol=1e-6)
    one, other = (
        load_file(last_checkpoint(c) / "training.safetensors") for c in (recomputed, config)
    )
    for key in one:
        np.testing.assert_allclose(one[key], other[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_keeps_weights_and_losses_in_float32(toy, tmp_path, dtype):
    config = toys.pretraining_config(tmp_path / "run", toy, dtype=dtype, num_train_steps=6)
    trainer = pretraining.Trainer(config)
    assert {v.dtype for v in trainer.model.trainable_variables} == {"float32"}
    batch = next(iter(trainer.batches(0)))
    outputs = trainer.model.encoder(batch, return_taps=True)
    assert {tap.dtype.name for tap in outputs["taps"].values()} == {dtype}
    assert trainer.model(batch)["masked_lm_logits"].dtype.name == "float32"
    results = trainer.results(trainer.train(trainer.restore()))
    assert not results["skipped_steps"] and np.isfinite(results["validation"]["loss"])


def test_a_loss_that_is_not_finite_ends_the_run(toy, tmp_path):
    config = toys.pretraining_config(
        tmp_path / "run", toy, learning_rate=1e30, num_warmup_steps=8, save_checkpoints_steps=1
    )
    with pytest.raises(FloatingPointError, match=r"step \d+: loss sum (.|\n)*Lower --learn"):
        pretraining.pretrain(config)
    kept = last_checkpoint(config)
    arrays = load_file(kept / "weights.safetensors")
    assert not (tmp_path / "run" / "results.json").exists()
    assert int(kept.name[-1]) >= 1 and arrays


def test_records_that_do_not_fit_are_refused_before_the_workdir_is_made(toy, tmp_path):
    metadata = records.read_metadata(toy)
    config = toys.pretraining_config(
        tmp_path / "run", toy, toys.encoder_config(max_position_embeddings=8)
    )
    with pytest.raises(InputError, match="max_seq_length: 16 in the records.* is 8 in the encoder"):
        pretraining.pretrain(config)
    other = toys.encoder_config(vocabulary_hash="0" * 64)
    with pytest.raises(InputError) as caught:
        pretraining.pretrain(toys.pretraining_config(tmp_path / "run", toy, other))
    assert metadata["vocabulary_hash"] in str(caught.value) and "0" * 64 in str(caught.value)
    with pytest.raises(InputError, match="holds no records"):
        pretraining.pretrain(toys.pretraining_config(tmp_path / "run", tmp_path))
    assert not (tmp_path / "run").exists()


def test_resumption_is_told(ten_steps, tmp_path, caplog):
    config, _ = ten_steps
    trainer = pretraining.Trainer(config)
    with caplog.at_level(logging.INFO, logger="absl"):
        state = trainer.restore()
    assert state["step"] == 10
    assert f"resuming {config.workdir} at step 10" in caplog.text


def test_an_interrupted_run_with_muon_equals_an_uninterrupted_one(toy, tmp_path, monkeypatch):
    """With everything that touches its gradients: parts, float16, clipping; and an average."""
    whole = toys.pretraining_config(
        tmp_path / "whole", toy, optimizer="muon", adam_learning_rate_ratio=0.5,
        gradient_accumulation_steps=2, ema_momentum=0.9, dtype="float16", max_gradient_norm=0.1,
    )  # fmt: skip
    results = pretraining.pretrain(whole)
    assert results["validation_history"][0]["loss"] > results["validation"]["loss"]
    config = whole.replace(workdir=str(tmp_path / "interrupted"))
    with monkeypatch.context() as patch:
        stop_at(patch, 8)
        with pytest.raises(KeyboardInterrupt):
            pretraining.pretrain(config)
    assert repeatable(pretraining.pretrain(config)) == repeatable(results)
    for name in ("weights.safetensors", "training.safetensors", "ema/weights.safetensors"):
        one, other = (load_file(last_checkpoint(c) / name) for c in (whole, config))
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.slow
def test_two_replicas_with_muon_equal_one_device(toy, tmp_path):
    code = toys.TWO_DEVICES + (
        "import sys\n"
        "import toys\n"
        "from undivided_tf.training.pretraining import pretrain\n"
        "encoder = toys.encoder_config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)\n"
        "for strategy in ('one_device', 'mirrored'):\n"
        "    pretrain(toys.pretraining_config(\n"
        "        workdir=f'{sys.argv[1]}/{strategy}', records=sys.argv[2], encoder=encoder,\n"
        "        strategy=strategy, optimizer='muon', train_batch_size=8, jit_compile=True))\n"
    )
    done = toys.run_python(code, tmp_path, toy)
    assert done.returncode == 0, done.stderr
    one, two = (
        load_file(tmp_path / strategy / "checkpoints" / "step_00000010" / "weights.safetensors")
        for strategy in ("one_device", "mirrored")
    )
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_allclose(one[key], two[key], atol=1e-5)
