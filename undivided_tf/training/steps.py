"""Compiled steps of pre-training, the same for every strategy."""

import functools
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from undivided_tf.models.pretrainer import cross_entropies, masked_lm_sums, next_sentence_sums
from undivided_tf.training import distillation as distilling

# Weights, softmax, LayerNorm and losses are float32 under each policy.
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
MASKED_LM_SUMS = ("loss", "correct", "weight")
NEXT_SENTENCE_SUMS = ("next_sentence_loss", "next_sentence_correct", "sequences")
_FIRST_LOSS_SCALE, _STEPS_TO_DOUBLE_IT = 2.0**15, 2000


class Steps:
    """One optimizer step and one evaluation step on distributed batches.

    A step whose loss or gradient is not finite changes neither weights nor optimizer. Under float16
    the loss is scaled up so that small gradients do not underflow. The scale is halved if gradients
    overflow, and doubled after 2000 steps without overflow.

    Args:
        strategy: tf.distribute strategy under whose scope model and optimizer were made.
        model: Pretrainer.
        optimizer: Keras optimizer, built for the model's trainable variables.
        jit_compile: bool. Compile with XLA what it supports.
        max_gradient_norm: float. Clip the global gradient to this norm.
        accumulation: int. Number of parts into which each replica splits its batch, which it
            computes one after another.
        scale_loss: bool. Whether the model computes in float16.
        next_sentence_weight: float. Weight of the mean loss on pairs; 0 if the model has no
            next-sentence head.
        masked_lm_weight: float. Weight of the mean loss on masked tokens.
        distillation: Distillation or None. The teacher, made under the strategy's scope.

    Attributes:
        sums: names of the sums over a batch.
        variables: state of the loss scale, which a resumed run needs.
        train, evaluate: compiled `_train` and `_evaluate`.

    References:
        Loss scaling: Micikevicius et al. 2018, arXiv 1710.03740, section 3.2.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: Any,
        optimizer: Any,
        *,
        jit_compile: bool,
        max_gradient_norm: float,
        accumulation: int = 1,
        scale_loss: bool = False,
        next_sentence_weight: float = 0.0,
        masked_lm_weight: float = 1.0,
        distillation: distilling.Distillation | None = None,
    ):
        self.strategy = strategy
        self.model = model
        self.optimizer = optimizer
        self.max_gradient_norm = max_gradient_norm
        self.accumulation = accumulation
        self.scale_loss = scale_loss
        self.next_sentence_weight = next_sentence_weight
        self.masked_lm_weight = masked_lm_weight
        self.distillation = distillation
        self.sums = (
            *MASKED_LM_SUMS,
            *(NEXT_SENTENCE_SUMS if next_sentence_weight else ()),
            *(distilling.SUMS if distillation else ()),
        )
        with strategy.scope():
            first = tf.VariableAggregation.ONLY_FIRST_REPLICA
            scale = _FIRST_LOSS_SCALE if scale_loss else 1.0
            self.loss_scale = tf.Variable(scale, trainable=False, aggregation=first)
            self.good_steps = tf.Variable(0, trainable=False, aggregation=first)
        self.variables = [self.loss_scale, self.good_steps]
        # XLA compiles the gradients of one replica. It does not compile the exchange between
        # replicas, nor the update: TensorFlow's own kernels take as long for AdamW and less for
        # Muon, and start at once. No Python control flow depends on tensors, so AutoGraph, which
        # takes seconds, is off.
        graph = functools.partial(tf.function, autograph=False)
        self._part = graph(self._part_gradients, jit_compile=jit_compile)
        self._held_out = graph(self._held_out_losses, jit_compile=jit_compile)
        self.train = graph(self._train)
        self.evaluate = graph(self._evaluate)

    # === One replica ===

    def losses(self, batch: dict[str, tf.Tensor], training: bool) -> dict[str, tf.Tensor]:
        """Sums over the masked tokens and the pairs of a batch; their names are in `sums`."""
        return self._sums(batch, self._outputs(batch, training))

    def _outputs(self, batch, training):
        taps = {"return_taps": True} if self.distillation else {}
        return self.model(batch, training=training, **taps)

    def _sums(self, batch, outputs):
        weights = batch["masked_weights"]
        sums = masked_lm_sums(outputs["masked_lm_logits"], batch["masked_ids"], weights)
        if self.next_sentence_weight:
            logits = outputs["next_sentence_logits"]
            sums |= next_sentence_sums(logits, batch["next_sentence_label"], weights)
        if self.distillation:
            sums |= self.distillation.sums(batch, outputs)
        return sums

    def _part_gradients(self, batch, sizes):
        """Sums over a part of the batch, and gradients of its share of the global mean loss.

        `sizes` are the masked tokens, the sequences and, with a teacher, the real tokens of the
        global batch.
        """
        variables = [variable.value for variable in self.model.trainable_variables]
        with tf.GradientTape() as tape:
            sums = self.losses(batch, training=True)
            loss = self.masked_lm_weight * sums["loss"] / sizes[0]
            if self.next_sentence_weight:
                pairs = sums["next_sentence_loss"] / sizes[1]
                loss += self.next_sentence_weight * pairs
            if self.distillation:
                loss += self.distillation.loss(sums, sizes[0], sizes[2])
            loss *= self.loss_scale
        # Masked-language-model training does not use the pooler: its gradient is zero.
        zero = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(loss, variables, unconnected_gradients=zero)
        return sums, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def _stacked_parts(self, batch):
        """The rows of a replica as (parts, rows per part, ...)."""
        return {
            name: tf.reshape(
                value, [self.accumulation, value.shape[0] // self.accumulation, *value.shape[1:]]
            )
            for name, value in batch.items()
        }

    def parts(self, batch: dict[str, tf.Tensor]) -> Iterator[dict[str, tf.Tensor]]:
        """The rows of a replica in the parts that it computes in sequence."""
        stacked = self._stacked_parts(batch)
        for index in range(self.accumulation):
            yield {name: value[index] for name, value in stacked.items()}

    def _accumulated_gradients(self, batch, sizes):
        """Like `_part_gradients`, for all parts; only one part's activations are in memory."""
        if self.accumulation == 1:
            return self._part(batch, sizes)
        parts = self._stacked_parts(batch)

        def add(index, *totals):
            part = {name: value[index] for name, value in parts.items()}
            new = self._part(part, sizes)
            return index + 1, *tf.nest.map_structure(tf.add, totals, new)

        zeros = (
            {name: tf.zeros([]) for name in self.sums},
            [tf.zeros(variable.shape) for variable in self.model.trainable_variables],
        )
        # Parallel iterations would keep the activations of several parts.
        _, sums, gradients = tf.while_loop(
            lambda index, *_: index < self.accumulation, add, (0, *zeros), parallel_iterations=1
        )
        return sums, gradients

    def _gradients(self, batch, stop):
        replicas = self.strategy.num_replicas_in_sync

        def global_sum(values):
            if replicas == 1:
                return values
            return tf.distribute.get_replica_context().all_reduce("sum", values)

        weights = batch["masked_weights"]
        rows = tf.reduce_max(weights, axis=1)  # 0 for rows that pad the batch.
        sizes = [tf.reduce_sum(weights), tf.reduce_sum(rows)]
        if self.distillation:
            real = tf.cast(batch["padding_mask"], tf.float32)
            sizes.append(tf.reduce_sum(real * rows[:, tf.newaxis]))
        sizes = tuple(global_sum(sizes))
        sums, gradients = self._accumulated_gradients(batch, sizes)
        # Clipping needs the norm of the global gradient, so gradients are summed here, and our
        # optimizers do not sum them again.
        gradients = global_sum(gradients)
        norm = tf.linalg.global_norm(gradients) / self.loss_scale
        # A separate tensor in each replica: a shared tensor would not be summed.
        sums = {**sums, "gradient_norm": norm / replicas, "stop": tf.identity(stop)}
        # The update applies the factor of loss scale and clipping, since it reads all gradients
        # anyway.
        clip = self.max_gradient_norm / tf.maximum(norm, self.max_gradient_norm)
        return sums, gradients, clip / self.loss_scale

    def _update(self, gradients, factor):
        gradients = [gradient * factor for gradient in gradients]
        self.optimizer.apply(gradients, self.model.trainable_variables)

    def _held_out_losses(self, batch):
        """The sums of a batch, and the loss of each masked token `(rows, predictions)`."""
        outputs = self._outputs(batch, training=False)
        losses, _ = cross_entropies(outputs["masked_lm_logits"], batch["masked_ids"])
        return self._sums(batch, outputs), losses * batch["masked_weights"]

    def _evaluate_replica(self, batch):
        # Wrapped, because `strategy.run` would compile a tf.function for all replicas at once.
        sums, losses = self._held_out(batch)
        replicas = self.strategy.num_replicas_in_sync
        if replicas > 1:
            # Each replica pads its rows with zeros to the global batch, so that a sum gathers them:
            # `strategy.gather` mixes up the runs of one process.
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            is_this = tf.one_hot(replica, replicas, on_value=True, off_value=False)
            losses = tf.where(is_this[:, tf.newaxis, tf.newaxis], losses, 0.0)
            losses = tf.reshape(losses, [-1, losses.shape[-1]])
        return sums, losses

    # === All replicas ===

    def _train(self, batch, stop):
        """One optimizer step.

        Args:
            batch: from `strategies.distribute`.
            stop: float32 scalar, above 0 if this process was asked to stop.

        Returns:
            Dict of float32 scalars, summed over all replicas: those of `sums`, `gradient_norm`
            (before clipping; not finite if the step was skipped) and `stop`.
        """
        sums, gradients, factor = self.strategy.run(self._gradients, (batch, stop))
        sums = self._reduce(sums)
        finite = tf.math.is_finite(sums["gradient_norm"]) & tf.math.is_finite(sums["loss"])

        def update():
            self.strategy.run(self._update, (gradients, factor))
            return tf.constant(0)

        tf.cond(finite, update, lambda: tf.constant(0))
        if self.scale_loss:
            good = tf.where(finite, self.good_steps + 1, 0)
            double = good == _STEPS_TO_DOUBLE_IT
            factor = tf.where(finite, tf.where(double, 2.0, 1.0), 0.5)
            self.loss_scale.assign(tf.maximum(self.loss_scale * factor, 1.0))
            self.good_steps.assign(tf.where(double, 0, good))
        return sums

    def _evaluate(self, batch):
        """Evaluates a held-out batch.

        Returns:
            Dict of float32 scalars, summed over all replicas, named `sums`; and the losses of all
            masked tokens in nats, float32 `(rows, predictions)`, 0 in unused slots, in the order of
            the rows of the global batch.
        """
        sums, losses = self.strategy.run(self._evaluate_replica, (batch,))
        return self._reduce(sums), self.strategy.reduce("sum", losses, axis=None)

    def _reduce(self, per_replica):
        return {
            name: self.strategy.reduce("sum", value, axis=None)
            for name, value in per_replica.items()
        }
