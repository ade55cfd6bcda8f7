"""Toy folders in GLUE's official layout: a word decides the label, or how many the score."""

import random

import toys

from undivided_tf.data.tasks.glue import TASKS

CLUES = ("cat", "dog", "bird")
SIZES = {"train": 24, "validation": 9, "test": 5}
FILES = {
    "train": "train.tsv",
    "validation": "dev.tsv",
    "test": "test.tsv",
    "validation_mismatched": "dev_mismatched.tsv",
    "test_mismatched": "test_mismatched.tsv",
}


def rows_of(task, split, seed=0):
    """Fields of a split by column, the label as files spell it."""
    about = TASKS[task]
    chooser = random.Random(f"{task} {split} {seed}")
    rows = []
    for index in range(SIZES[split.split("_")[0]]):
        kind = index % (len(about.labels) or 3)
        row = {column: " ".join(chooser.sample(toys.FILLERS, 3)) for column in about.columns}
        row[about.columns[-1]] += f" {CLUES[kind]}"
        if about.labels:
            row[about.label] = str(kind) if about.digits else about.labels[kind]
        else:
            row[about.label] = f"{2.5 * kind:.3f}"
        rows.append({"index": str(index), **row})
    return rows


def write_glue(folder, tasks):
    """Official folders of some tasks; returns the folder that holds them."""
    for task in tasks:
        about = TASKS[task]
        place = folder / about.folder
        place.mkdir(parents=True)
        for split in about.splits:
            if split not in FILES:
                continue
            rows = rows_of(task, split)
            if task == "ax":
                name = "diagnostic.tsv"
            elif task == "mnli" and not split.endswith("mismatched"):
                name = {"train": "train.tsv", "validation": "dev_matched.tsv"}.get(
                    split, "test_matched.tsv"
                )
            else:
                name = FILES[split]
            header = [c for c in rows[0] if not (split.startswith("test") and c == about.label)]
            lines = ["\t".join(header)]
            if about.headerless and not split.startswith("test"):
                header, lines = about.headerless, []
            lines += ["\t".join(row.get(c, "") for c in header) for row in rows]
            (place / name).write_text("\n".join(lines) + "\n")
    return str(folder)
