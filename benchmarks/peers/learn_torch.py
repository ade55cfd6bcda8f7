"""`BertForMaskedLM` of `transformers`, trained by its `Trainer`."""

import tempfile

import learning
import numpy as np
import torch
import transformers


def main() -> None:
    """Trains until the budget is spent."""
    job, folder = learning.read_job()
    torch.set_num_threads(1)
    transformers.set_seed(0)
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"))
    config = transformers.BertConfig(
        vocab_size=job["vocab_size"],
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=512,
        max_position_embeddings=64,
    )
    model = transformers.BertForMaskedLM(config)
    rows = np.load(folder / "rows.npy")
    batch = {k: torch.tensor(v) for k, v in learning.held_out(folder).items()}
    positions = batch["masked_positions"].long()
    labels, weights = batch["masked_ids"].long(), batch["masked_weights"]

    def score() -> float:
        model.eval()
        total = 0.0
        with torch.no_grad():
            for part in torch.arange(len(labels)).split(64):
                hidden = model.bert(
                    batch["token_ids"][part].long(), batch["padding_mask"][part].long()
                ).last_hidden_state
                logits = model.cls(hidden[torch.arange(len(part))[:, None], positions[part]])
                losses = torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), labels[part].flatten(), reduction="none"
                )
                total += float((losses * weights[part].flatten()).sum())
        model.train()
        return total / float(weights.sum())

    watch = learning.Watch(job, score, 16 * rows.shape[1])

    class Clock(transformers.TrainerCallback):
        """Scores, and ends the training when its time is over."""

        def on_step_end(self, arguments, state, control, **_):
            """Called by Trainer."""
            control.should_training_stop = not watch.step_done(state.global_step)

    tuned = (
        {"learning_rate": job["learning_rate"], "warmup_steps": job["steps"] // 10}
        if ("learning_rate" in job)
        else {}
    )
    with tempfile.TemporaryDirectory() as output:
        transformers.Trainer(
            model,
            transformers.TrainingArguments(
                output,
                per_device_train_batch_size=16,
                max_steps=job["steps"],
                use_cpu=True,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                logging_strategy="no",
                **tuned,
            ),
            transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3),
            [{"input_ids": row} for row in rows.tolist()],
            callbacks=[Clock()],
        ).train()


if __name__ == "__main__":
    main()
