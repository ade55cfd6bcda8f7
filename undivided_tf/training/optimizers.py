"""Optimizers for BERT: which weights have which update rule, learning rate and decay.

Each function of `OPTIMIZERS` takes trainable Keras variables, whose gradients are already summed
over the replicas, and these options:

    learning_rate: Keras schedule, or a constant.
    weight_decay_rate: each step multiplies a weight by 1 minus decay times learning rate; LayerNorm
        and biases are excluded.
    beta_1, beta_2: decays of Adam's moments.
    epsilon: added to the square root of the second moment.
    max_gradient_norm: clip gradients to this global norm; None if the caller clips.
    ema_momentum: keep an exponential moving average of the weights, which equals the weights after
        the first step; 0: none.
"""

from undivided_tf.training.update_rules import AdamW, Lamb, Muon


def adamw(variables, *, weight_decay_rate, scales=None, **options):
    """Makes an AdamW with decoupled weight decay.

    Unlike google-research/bert's optimizer it corrects the bias of the moments, as Adam does; the
    difference vanishes after a few hundred steps.

    Args:
        variables: trainable Keras variables.
        weight_decay_rate: see the module.
        scales: factors of the learning rate by path of the variable, see `layerwise_scales`.
        **options: see the module.

    References:
        Loshchilov and Hutter 2019, arXiv 1711.05101.
    """
    arguments = _keras_arguments(**options)
    return _built(AdamW(scales, weight_decay=weight_decay_rate, **arguments), variables)


def lamb(variables, *, weight_decay_rate, **options):
    """Makes a LAMB for large batches.

    Args:
        variables: trainable Keras variables.
        weight_decay_rate: see `Lamb`; LayerNorm and biases have neither decay nor trust ratio.
        **options: see the module.
    """
    arguments = _keras_arguments(**options)
    return _built(Lamb(weight_decay_rate=weight_decay_rate, **arguments), variables)


def muon(
    variables,
    *,
    weight_decay_rate,
    adam_learning_rate_ratio=1.0,
    momentum=0.95,
    scales=None,
    **options,
):
    """Makes a Muon for the kernels of blocks and head, with AdamW for other variables.

    Args:
        variables: trainable Keras variables.
        weight_decay_rate: see the module.
        adam_learning_rate_ratio: learning rate of AdamW's variables divided by that of Muon's.
        momentum: of Muon's variables.
        scales: as for `adamw`.
        **options: see the module; both betas and `epsilon` are those of AdamW's variables.
    """
    arguments = _keras_arguments(**options)
    betas = {f"adam_{name}": arguments.pop(name) for name in ("beta_1", "beta_2")}
    optimizer = Muon(
        [variable.path for variable in hidden_kernels(variables)],
        scales,
        adam_lr_ratio=adam_learning_rate_ratio,
        momentum=momentum,
        weight_decay=weight_decay_rate,
        **betas,
        **arguments,
    )
    return _built(optimizer, variables)


OPTIMIZERS = {"adamw": adamw, "lamb": lamb, "muon": muon}


def of_run(config, variables, schedule):
    """The optimizer of a pre-training run.

    Args:
        config: PretrainingConfig.
        variables: trainable Keras variables.
        schedule: result of `schedules.of_run`.
    """
    options = {}
    if config.optimizer == "muon":
        options = {
            "adam_learning_rate_ratio": config.adam_learning_rate_ratio,
            "momentum": config.muon_momentum,
        }
    return OPTIMIZERS[config.optimizer](
        variables,
        learning_rate=schedule,
        weight_decay_rate=config.weight_decay_rate,
        beta_1=config.adam_beta_1,
        beta_2=config.adam_beta_2,
        epsilon=config.adam_epsilon,
        ema_momentum=config.ema_momentum,
        **options,
    )


def _keras_arguments(
    *,
    learning_rate,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-6,
    max_gradient_norm=None,
    ema_momentum=0.0,
):
    """Keras's names for the options that all optimizers share."""
    return {
        "learning_rate": learning_rate,
        "beta_1": beta_1,
        "beta_2": beta_2,
        "epsilon": epsilon,
        "global_clipnorm": max_gradient_norm,
        "use_ema": ema_momentum > 0,
        "ema_momentum": ema_momentum,
    }


def _built(optimizer, variables):
    """Builds an optimizer for its variables; LayerNorm, head norms and biases have no decay."""
    # By list: the patterns of `var_names` match "gamma" and "beta", never the layer's name.
    optimizer.exclude_from_weight_decay(
        var_list=[v for v in variables if "_norm/" in v.path or v.name.endswith("bias")]
    )
    optimizer.build(variables)
    return optimizer


def hidden_kernels(variables):
    """The variables that Muon updates: 2-D kernels of blocks and of the head's transform.

    AdamW updates embedding tables and vectors. It also updates the pooler and the classifiers,
    which have few weights and may have nothing to learn in pre-training.

    Args:
        variables: Keras variables.
    """
    return [
        variable
        for variable in variables
        if len(variable.shape) == 2
        and variable.name == "kernel"
        and variable.path.startswith(("encoder/block_", "masked_lm_head/transform/"))
    ]


def layerwise_scales(model, decay):
    """Factors of learning rates that fall from the top of an encoder to its embeddings.

    The head and the pooler have the full rate, the blocks of the last encoder layer `decay` times
    this rate, each layer below another factor `decay`, and the embeddings the lowest rate. Weights
    that all intermediate blocks share have the rate of the first block.

    Args:
        model: Keras model with an `encoder`, whose variables' paths start with `encoder/`.
        decay: float in (0, 1].

    Returns:
        Dict for `adamw(scales=...)`.

    References:
        Clark et al. 2020, arXiv 2003.10555, appendix B (ELECTRA).
    """
    pattern = model.encoder.config.pattern
    depth = {block.name.replace("/", "_"): block.index + 1 for block in pattern}
    top = max(depth.values(), default=0) + 1
    scales = {}
    for variable in model.trainable_variables:
        scope, _, rest = variable.path.partition("/")
        layer = rest.split("/")[0]
        if scope == "encoder" and layer in (*depth, "embeddings"):
            scales[variable.path] = decay ** (top - depth.get(layer, 0))
    return scales


def averages(optimizer):
    """The moving averages of the optimizer's variables, in their order.

    Args:
        optimizer: made by one of `OPTIMIZERS`.

    Returns:
        List of Keras variables, empty without `ema_momentum`.
    """
    return list(optimizer._model_variables_moving_average) if optimizer.use_ema else []
