"""Writes the generated parts of README.md from the results.json of the studies kept here.

python results/update_readme.py runs/NAME   keeps a study as results/NAME, then writes README
python results/update_readme.py             writes README
python results/update_readme.py --check     fails when README is not what it would write
"""

import pathlib
import re
import shutil
import sys

from undivided_tf.study.report import write_report
from undivided_tf.study.summary import summary_lines
from undivided_tf.support import files

ROOT = pathlib.Path(__file__).resolve().parent
README = ROOT.parent / "README.md"
# Opens a part; its group names the study.
START = re.compile(r"<!-- generated from results/(\w+)/results\.json -->\n")
END = "<!-- end of the generated part -->\n"


def keep(run: pathlib.Path) -> None:
    """Copies the numbers of a run and reports them anew; weights and records stay behind."""
    with files.atomic_path(ROOT / run.resolve().name) as partial:
        partial.mkdir(parents=True)
        for name in ("results.json", "config.json"):
            shutil.copy(run / name, partial / name)
        write_report(files.read_json(run / "results.json"), partial)
        (partial / "report.html").unlink()  # It holds every figure a second time.


def generated(readme: str) -> str:
    """README with its generated parts written anew."""
    before, *parts = START.split(readme)
    written = [before]
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        _, after = text.split(END)
        lines = summary_lines(files.read_json(ROOT / name / "results.json"))
        written += [f"<!-- generated from results/{name}/results.json -->\n",
                    "\n".join(["```text", *lines, "```", END]), after]  # fmt: skip
    return "".join(written)


def main(arguments: list[str]) -> None:
    """See the module's docstring."""
    check = arguments == ["--check"]
    if arguments and not check:
        keep(pathlib.Path(arguments[0]))
    readme = README.read_text(encoding="utf-8")
    written = generated(readme)
    if check and written != readme:
        sys.exit("README.md is stale: run python results/update_readme.py")
    files.write_text(README, written)


if __name__ == "__main__":
    main(sys.argv[1:])
