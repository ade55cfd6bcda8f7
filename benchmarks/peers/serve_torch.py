"""BertModel of `transformers`, in PyTorch or onnxruntime; tokenizer and mean included."""

import json

import safetensors.torch
import serving
import torch
import transformers


def build(folder) -> torch.nn.Module:
    """The model; where a layer has no intermediate block, it passes the attention's output on."""
    settings = json.loads((folder / "config.json").read_text())
    settings = {k: v for k, v in settings.items() if k not in ("model_type", "architectures")}
    model = transformers.BertModel(transformers.BertConfig(**settings)).eval()
    state = safetensors.torch.load_file(folder / "model.safetensors")
    for number, layer in enumerate(model.encoder.layer):
        if f"encoder.layer.{number}.intermediate.dense.weight" not in state:
            layer.intermediate, layer.output = torch.nn.Identity(), torch.nn.Identity()
            layer.feed_forward_chunk = lambda hidden: hidden
    # Buffers such as position ids may be missing, but no weight may be.
    mismatch = model.load_state_dict(state, strict=False)
    assert not mismatch.unexpected_keys, mismatch
    weights = {name for name, _ in model.named_parameters()}
    assert not weights & set(mismatch.missing_keys), mismatch
    return model


def mean(hidden, mask):
    """Mean over real tokens."""
    mask = mask[:, :, None].to(hidden.dtype)
    return (hidden * mask).sum(1) / mask.sum(1)


class Embedder(torch.nn.Module):
    """BertModel with the mean over real tokens, which onnxruntime gets as one graph."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, segments, mask):
        """Means (batch, hidden)."""
        output = self.model(input_ids=ids, token_type_ids=segments, attention_mask=mask)
        return mean(output.last_hidden_state, mask)


def main() -> None:
    """Builds the model, then serves."""
    job, folder = serving.read_job()
    tokenizer = transformers.BertTokenizerFast(str(folder / "huggingface" / "vocab.txt"))
    embedder = Embedder(build(folder / "huggingface"))
    about = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
    }

    def encode(texts, kind):
        batch = tokenizer(texts, padding=True, truncation=True, max_length=512, return_tensors=kind)
        return batch["input_ids"], batch["token_type_ids"], batch["attention_mask"]

    def by_torch(texts):
        with torch.inference_mode():
            return embedder(*encode(texts, "pt")).numpy()

    embed = by_torch
    if job["engine"] == "onnxruntime":
        import onnxruntime

        path = folder / "torch.onnx"
        names = ["ids", "segments", "mask"]
        example = encode(["piece1 piece2", "piece3"], "pt")
        torch.onnx.export(
            embedder,
            example,
            str(path),
            input_names=names,
            output_names=["mean"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in names},
            dynamo=False,
        )
        session = onnxruntime.InferenceSession(path)
        about["onnxruntime"] = onnxruntime.__version__

        def embed(texts):
            inputs = dict(zip(names, encode(texts, "np"), strict=True))
            return session.run(None, inputs)[0]

    serving.serve(about, embed, job["vocab_size"])


if __name__ == "__main__":
    main()
