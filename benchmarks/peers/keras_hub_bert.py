"""BertMaskedLM of KerasHub in Keras's own training step."""

import keras
import keras_hub
import protocol
from safetensors.numpy import load_file


def main() -> None:
    """Builds the model, then serves."""
    job, batch, folder = protocol.read_job()
    keras.config.set_dtype_policy(job["dtype"])
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.BertBackbone.from_preset(str(folder / "keras_hub"))
    model = keras_hub.models.BertMaskedLM(backbone)
    weights, head = load_file(folder / "ours" / "weights.safetensors"), model.masked_lm_head
    for layer, names in (
        (head._intermediate_dense, ("transform/kernel", "transform/bias")),
        (head._intermediate_layer_norm, ("layer_norm/gamma", "layer_norm/beta")),
    ):
        layer.set_weights([weights[f"masked_lm_head/{name}"] for name in names])
    head._bias.assign(weights["masked_lm_head/output_bias"])
    beta_1, beta_2 = protocol.BETAS
    optimizer = keras.optimizers.AdamW(
        protocol.LEARNING_RATE,
        weight_decay=protocol.WEIGHT_DECAY,
        beta_1=beta_1,
        beta_2=beta_2,
        epsilon=protocol.EPSILON,
        global_clipnorm=protocol.CLIP,
    )
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in model.trainable_variables if "norm" in v.path or "bias" in v.name]
    )
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[],
        jit_compile=job["jit_compile"],
    )
    inputs = {name: batch[name] for name in ("token_ids", "segment_ids", "padding_mask")} | {
        "mask_positions": batch["masked_positions"]
    }
    labels, counted = batch["masked_ids"], batch["masked_weights"]

    def train():
        return model.train_on_batch(inputs, labels, counted)

    def loss():
        mean_loss = model.evaluate(
            inputs, labels, sample_weight=counted, batch_size=len(labels), verbose=0
        )
        return {"loss": float(mean_loss)}

    protocol.serve(
        {
            "about": lambda: {"keras": keras.__version__, "keras_hub": keras_hub.__version__},
            "loss": loss,
            "train": lambda steps: {"milliseconds": protocol.milliseconds(steps, train)},
        }
    )


if __name__ == "__main__":
    main()
