"""BertForMaskedLM of `transformers`, as users run it or tuned."""

import protocol
import torch
import transformers


def main() -> None:
    """Builds the model, then serves."""
    job, batch, folder = protocol.read_job()
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM.from_pretrained(folder / "huggingface")
    model.train()
    decayed, spared = [], []
    for name, parameter in model.named_parameters():
        (spared if "LayerNorm" in name or name.endswith("bias") else decayed).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": protocol.WEIGHT_DECAY},
            {"params": spared, "weight_decay": 0.0},
        ],
        lr=protocol.LEARNING_RATE,
        betas=protocol.BETAS,
        eps=protocol.EPSILON,
        fused=job["tuned"] or None,
    )
    given = {name: torch.tensor(value).long() for name, value in batch.items()}
    inputs = {
        "input_ids": given["token_ids"],
        "token_type_ids": given["segment_ids"],
        "attention_mask": given["padding_mask"],
    }
    positions, masked_ids = given["masked_positions"], given["masked_ids"]
    labels = torch.full_like(given["token_ids"], -100).scatter(1, positions, masked_ids)
    rows = torch.arange(len(positions))[:, None]

    def as_is():
        return model(**inputs, labels=labels).loss

    def gathered():
        hidden = model.bert(**inputs).last_hidden_state[rows, positions]
        logits = model.cls(hidden).flatten(0, 1).float()
        return torch.nn.functional.cross_entropy(logits, masked_ids.flatten())

    mean_loss = torch.compile(gathered) if job["tuned"] else as_is

    def train():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=job["dtype"] == "bfloat16"):
            loss = mean_loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), protocol.CLIP)
        optimizer.step()
        return loss.detach()

    def loss():
        model.eval()
        with torch.no_grad():
            mean = (gathered if job["tuned"] else as_is)().item()
        model.train()
        return {"loss": mean}

    def products(dtype):
        def make(m, k, n):
            left, right = (torch.randn(s).to(getattr(torch, dtype)) for s in ((m, k), (k, n)))
            return lambda: left @ right

        return {"gigaflops": protocol.gigaflops(make)}

    protocol.serve(
        {
            "about": lambda: {
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "threads": torch.get_num_threads(),
            },
            "loss": loss,
            "train": lambda steps: {"milliseconds": protocol.milliseconds(steps, train)},
            "products": products,
        }
    )


if __name__ == "__main__":
    main()
