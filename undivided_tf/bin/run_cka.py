"""CKA of every tap of one encoder against every tap of another, on the same tokens.

    python -m undivided_tf.bin.run_cka --first_checkpoint=runs/full \
        --second_checkpoint=runs/undivided --workdir=runs/full_undivided_cka

Without --second_checkpoint the other is the untrained twin of the first. --measure takes SVCCA,
PWCCA, Procrustes and RSA too. A finished work directory is only shown again.
"""

from undivided_tf.analysis.config import CkaConfig
from undivided_tf.bin import config_flags

config_flags.define(CkaConfig())


def parse() -> CkaConfig:
    """Flags -> config."""
    return config_flags.parse(CkaConfig())


def main() -> None:
    """Flags -> config -> CKA, its table and its figures."""
    config = parse()
    from undivided_tf.analysis.similarity import run_cka
    from undivided_tf.reporting import cka, pages

    result = run_cka(config)
    drawn = {
        "cka": cka.cka_heat_map,
        "cka_by_depth": cka.depth_lines,
        "cka_difference": cka.difference_map,
    }
    encoders = (config.first_checkpoint, config.second_checkpoint)
    command, table = config_flags.command(), cka.table(result)
    print(pages.present(result, config.workdir, command, table, drawn, encoders))


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
