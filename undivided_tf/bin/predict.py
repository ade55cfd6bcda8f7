"""Predicts with a fine-tuned model: texts in, JSONL with label names and probabilities out.

    echo 'a charming film' | python -m undivided_tf.bin.predict --model=runs/glue/sst2/model_12345

Lines are predicted in batches as they come in. A line is one text, or two with a tab between: what
the model was trained on. A regression gives a score.
"""

import contextlib
import sys

from undivided_tf.bin import config_flags
from undivided_tf.training.config import PredictConfig

config_flags.define(PredictConfig())


def main() -> None:
    """Flags -> config -> predict_lines."""
    config = config_flags.parse(PredictConfig())
    from undivided_tf.errors import InputError
    from undivided_tf.support import files
    from undivided_tf.training.prediction import predict_lines

    with contextlib.ExitStack() as stack:
        # Bytes, since the locale decides how Python decodes standard input.
        source, target = sys.stdin.buffer, sys.stdout
        target.reconfigure(encoding="utf-8")
        try:
            if config.input != "-":
                source = stack.enter_context(open(config.input, "rb"))
            if config.output != "-":
                partial = stack.enter_context(files.atomic_path(config.output))
                target = stack.enter_context(open(partial, "w", encoding="utf-8"))
            name = "standard input" if config.input == "-" else config.input
            for line in predict_lines(config.model, source, config.batch_size, name):
                print(line, file=target, flush=True)
        except BrokenPipeError:
            sys.stderr.close()  # The reader has seen enough; Python would complain at exit.
        except OSError as error:
            place = error.filename or config.input
            raise InputError(f"{place}: cannot be read or written: {error.strerror}") from error


def run() -> None:
    """Entry point of the console script."""
    config_flags.run(main)


if __name__ == "__main__":
    run()
