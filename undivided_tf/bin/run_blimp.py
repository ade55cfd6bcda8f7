"""Zero-shot syntax: which of two sentences that differ in grammar does an encoder find likelier?

    python -m undivided_tf.bin.run_blimp --init_checkpoint=runs/full --data=BLiMP.zip \
        --workdir=runs/full_blimp

The checkpoint must have the masked-language-model head. A finished work directory is only shown
again.
"""

from undivided_tf.analysis.config import BlimpConfig
from undivided_tf.bin import config_flags
from undivided_tf.study.pairs import encoder_name

config_flags.define(BlimpConfig())


def parse() -> BlimpConfig:
    """Flags -> config."""
    return config_flags.parse(BlimpConfig())


def main() -> None:
    """Flags -> config -> scores, their table and figure."""
    config = parse()
    from undivided_tf.analysis.blimp import run_blimp
    from undivided_tf.study import pages
    from undivided_tf.study.blimp_figures import phenomena

    result = run_blimp(config)
    drawn = {"blimp": phenomena}
    encoders = (config.init_checkpoint,)
    command, table = config_flags.command(), _table(result)
    print(pages.present(result, config.workdir, command, table, drawn, encoders))


def _table(result) -> str:
    """A line a phenomenon."""
    lines = [
        encoder_name(result["encoder"]),
        f"{'phenomenon':<28}{'accuracy':>10}{'low':>8}{'high':>8}{'pairs':>8}",
    ]
    for name, of in result["phenomena"].items():
        if of["pairs"]:
            values = "{accuracy:>10.3f}{low:>8.3f}{high:>8.3f}{pairs:>8}".format(**of)
            lines.append(f"{name:<28}{values}")
    if result["accuracy"] is not None:
        lines.append(f"mean over the paradigms {result['accuracy']:.3f}; chance 0.500")
    # Runs of older releases did not count ties and pairs of equal sentences.
    ties, equal = (result.get(key, "not counted") for key in ("ties", "equal_sentences"))
    lines.append(
        f"{result['pairs']} pairs, {result['pairs_of_unequal_length']} of them of unequal length, "
        f"ties (one half each): {ties}; left out as too long: {result['left_out']}, as pairs of "
        f"equal sentences: {equal}"
    )
    return "\n".join(lines)


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
