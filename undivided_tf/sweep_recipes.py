"""What a learning-rate sweep can be told; as `undivided_tf.recipes`."""

import dataclasses

from undivided_tf.config import Config, option, section
from undivided_tf.errors import InputError
from undivided_tf.pretraining_recipes import PretrainingConfig


@dataclasses.dataclass(frozen=True)
class SweepConfig(Config):
    """Peak learning rates x block patterns x pilot seeds, each a pre-training run."""

    workdir: str = option("", "Directory for the runs and sweep.json.")
    records_dir: str = option("", "What create_pretraining_data wrote.", input="records")
    patterns: tuple[str, ...] = option(("(AI)*6", "A*6"), "Block patterns.")
    learning_rates: tuple[float, ...] = option(
        (1e-3, 2e-3, 4e-3), "Peak learning rates to begin with, rising; two or more."
    )
    pilot_seeds: tuple[int, ...] = option(
        (1,), "Seeds of the runs. Do not use them again in what the rates are chosen for."
    )
    max_extensions: int = option(
        4,
        "Most rates to add to those of a pattern while its best one has no neighbour on one side.",
    )
    pretraining: PretrainingConfig = section(
        PretrainingConfig(),
        "pretraining.",
        without=("workdir", "records_dir", "seed", "learning_rate", "block_pattern"),
    )

    def validate(self) -> None:
        """Raises InputError when the values do not go together."""
        rates = self.learning_rates
        if len(rates) < 2 or rates[0] <= 0 or sorted(set(rates)) != list(rates):
            raise InputError(
                "learning_rates must list two or more rates above 0 that rise, got "
                + ", ".join(f"{rate:g}" for rate in rates)
            )
        if not self.patterns or not self.pilot_seeds:
            raise InputError("a sweep needs at least one pattern and one of pilot_seeds")
        for seed in self.pilot_seeds:
            self.run(self.patterns[0], rates[0], seed)  # Raises what is wrong with a seed.
        if len(set(self.canonical_patterns)) < len(self.patterns):
            raise InputError(f"two patterns of {', '.join(self.patterns)} spell the same blocks")
        if len(set(self.pilot_seeds)) < len(self.pilot_seeds):
            raise InputError(
                f"pilot_seeds has a seed twice: {', '.join(map(str, self.pilot_seeds))}"
            )
        if self.max_extensions < 0:
            raise InputError(f"max_extensions must be from 0, got {self.max_extensions}")

    @property
    def canonical_patterns(self) -> tuple[str, ...]:
        """The patterns in their canonical spelling."""
        encoder = self.pretraining.encoder
        return tuple(encoder.replace(block_pattern=p).block_pattern for p in self.patterns)

    def run(self, pattern: str, learning_rate: float, seed: int) -> PretrainingConfig:
        """One pre-training run of the sweep, without a workdir."""
        return self.pretraining.replace(
            records_dir=self.records_dir,
            encoder=self.pretraining.encoder.replace(block_pattern=pattern),
            learning_rate=learning_rate,
            seed=seed,
        )
