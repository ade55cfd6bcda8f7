"""Claims on what becomes of a verdict when the smaller encoder is given what it saved."""

from collections.abc import Callable

from undivided_tf.study import frames
from undivided_tf.study.judging import (
    ACCURACY_MARGIN,
    NOT_SUPPORTED,
    NOT_WORSE,
    SUPPORTED,
    UNDERPOWERED,
    Claim,
    Verdict,
)
from undivided_tf.study.results import StudyResults

Judge = Callable[[StudyResults, str], Verdict]


def of_frame(frame: str, accuracy: Judge) -> tuple[Claim, Claim]:
    """Accuracy in a frame, and whether its verdict is that of equal steps.

    Args:
        frame: one of `frames.NAMES`.
        accuracy: judges accuracy in whatever frame the results are seen.
    """
    name = frames.NAMES[frame]

    def there(study: StudyResults, pattern: str) -> Verdict:
        if pattern not in frames.compared(study.config):
            return Verdict(UNDERPOWERED, "not compared in this frame")
        return accuracy(study.in_frame(frame), pattern)

    def unchanged(study: StudyResults, pattern: str) -> Verdict:
        before, after = accuracy(study, pattern), there(study, pattern)
        reason = f"at equal steps {before.status}; at {name} {after.status}"
        if UNDERPOWERED in (before.status, after.status):
            return Verdict(UNDERPOWERED, reason)
        return Verdict(SUPPORTED if before.status == after.status else NOT_SUPPORTED, reason)

    return (
        Claim(
            f"accuracy kept at {name}",
            f"At {name} fine-tuning accuracy falls by little.",
            "accuracy of the fine-tuned encoder, mean of its runs, paired by pre-training seed",
            ACCURACY_MARGIN,
            NOT_WORSE,
            there,
            "points",
            frames=(frame,),
        ),
        Claim(
            f"same verdict at {name}",
            f"The verdict on accuracy at {name} is that at equal steps.",
            "the verdicts on accuracy in both frames",
            ACCURACY_MARGIN,
            "both are decided, and alike; not supported when they differ",
            unchanged,
            frames=(frames.STEPS, frame),
        ),
    )
