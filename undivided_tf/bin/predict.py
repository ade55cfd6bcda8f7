"""Predicts with a fine-tuned model: from texts to JSONL with label names and probabilities.

    echo 'a charming film' | python -m undivided_tf.bin.predict --model=runs/glue/sst2/model_12345

Lines of standard input are predicted in batches as they arrive. Of a file, lines of like length are
predicted together, which is faster; the output keeps their order. A line is one text, or a pair
separated by a tab, as in the training of the model. A regression gives a score.
"""

import contextlib
import sys

from undivided_tf.bin import config_flags
from undivided_tf.training.config import PredictConfig

_BATCHES_AHEAD = 64  # Of a file; standard input may be slow.


def main(config: PredictConfig) -> None:
    """Predicts the lines of the input."""
    from undivided_tf.errors import InputError
    from undivided_tf.export.prediction import predict_lines
    from undivided_tf.support import files, progress

    with contextlib.ExitStack() as stack:
        # Bytes, because Python would decode standard input by the locale.
        source, target, ahead, total = sys.stdin.buffer, sys.stdout, 1, None
        target.reconfigure(encoding="utf-8")
        try:
            if config.input != "-":
                source, ahead = stack.enter_context(open(config.input, "rb")), _BATCHES_AHEAD
                if source.seekable():  # A named pipe is not.
                    total = sum(1 for _ in source)
                    source.seek(0)
            if config.output != "-":
                partial = stack.enter_context(files.atomic_path(config.output))
                target = stack.enter_context(open(partial, "w", encoding="utf-8"))
            name = "standard input" if config.input == "-" else config.input
            answers = predict_lines(config.model, source, config.batch_size, name, ahead)
            if config.output == "-":
                for line in answers:
                    print(line, file=target, flush=True)
            else:
                bar = stack.enter_context(progress.bar(total, "predict", "lines"))
                for line in answers:
                    print(line, file=target)
                    bar.update()
        except BrokenPipeError:
            sys.stderr.close()  # The reader has closed the pipe; Python would report it at exit.
        except OSError as error:
            place = error.filename or config.input
            raise InputError(f"{place}: cannot be read or written: {error.strerror}") from error


parse, run = config_flags.program(PredictConfig(), main)


if __name__ == "__main__":
    run()
