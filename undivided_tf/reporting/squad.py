"""What a run of question answering prints."""

from typing import Any


def table(results: dict[str, Any], has_null_odds: bool) -> str:
    """Counts of the data sets, and the scores of each run."""
    lines = [f"SQuAD, {results['pattern']}"]
    for name, counts in results["counts"].items():
        lines.append(f"  {name}: " + ", ".join(f"{value} {key}" for key, value in counts.items()))
    for run in results["runs"]:
        for name in ("validation", "predict"):
            if name in run:
                scores = run[name]
                lines.append(
                    f"  seed {run['seed']}, {name}: exact {scores['exact']:.2f}, "
                    f"F1 {scores['f1']:.2f}, {scores['total']} questions"
                )
                lines += [
                    f"    {subset}: F1 {scores[f'{subset}_f1']:.2f}, "
                    f"{scores[f'{subset}_total']} questions"
                    for subset in ("HasAns", "NoAns")
                    if has_null_odds and f"{subset}_f1" in scores
                ]
        if has_null_odds:
            lines.append(
                f"  no answer where null odds exceed {run['null_score_diff_threshold']:.3f}"
            )
    return "\n".join(lines)
