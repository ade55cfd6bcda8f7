"""CKA of every tap of one encoder against every tap of another, on the same tokens.

    python -m undivided_tf.bin.run_cka --first_checkpoint=runs/full \
        --second_checkpoint=runs/undivided --workdir=runs/full_undivided_cka

Without --second_checkpoint the second encoder is the untrained twin of the first. --measure also
accepts SVCCA, PWCCA, Procrustes and RSA. The results of a finished work directory are only shown.
"""

from undivided_tf.analysis.config import CkaConfig
from undivided_tf.bin import config_flags


def main(config: CkaConfig) -> None:
    """Computes CKA; prints a table and draws figures."""
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


parse, run = config_flags.program(CkaConfig(), main)


if __name__ == "__main__":
    run()
