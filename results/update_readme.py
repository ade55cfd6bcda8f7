"""Writes the generated parts of README.md and docs/findings.md from the studies kept here.

python results/update_readme.py runs/NAME   keeps a study as results/NAME, then writes both pages
python results/update_readme.py             writes both pages
python results/update_readme.py --check     fails when a page is not what it would write
"""

import pathlib
import re
import shutil
import sys
import textwrap
from typing import Any

from undivided_tf.reporting import layout
from undivided_tf.study import kinds, multiplier_section, multipliers
from undivided_tf.study.report import write_report
from undivided_tf.study.summary import summary_lines
from undivided_tf.support import files

ROOT = pathlib.Path(__file__).resolve().parent
DOCS = ROOT.parent / "docs"
PAGES = (ROOT.parent / "README.md", DOCS / "findings.md")
# Opens a part; its groups say what it holds and name the study.
START = re.compile(
    r"<!-- (answer|crossovers|summary) generated from results/(\w+)/results\.json -->\n"
)
END = "<!-- end of the generated part -->\n"
# The documentation is built from docs/ alone, so its pages show copies of figures.
FIGURE = re.compile(r"\(figures/(\w+)/(\w+\.svg)\)")


def keep(run: pathlib.Path) -> None:
    """Copies the numbers of a run and reports them anew; weights and records stay behind."""
    with files.atomic_path(ROOT / run.resolve().name) as partial:
        partial.mkdir(parents=True)
        for name in ("results.json", "config.json"):
            shutil.copy(run / name, partial / name)
        write_report(files.read_json(run / "results.json"), partial)
        (partial / "report.html").unlink()  # It holds every figure a second time.


def answer(results: dict[str, Any]) -> list[str]:
    """The verdict on each arm at each size, as a table."""
    table = multiplier_section.headlines(kinds.read_results(results))
    note = textwrap.wrap(table.note, 120, break_on_hyphens=False)
    return ["", *layout.markdown_table(table), "", *note, ""]


def crossovers(results: dict[str, Any]) -> list[str]:
    """At which training compute the better arm changes, a sentence an arm."""
    sentences = multipliers.crossovers(multipliers.judged_arms(kinds.read_results(results)))
    return ["", *textwrap.wrap(" ".join(sentences), 120, break_on_hyphens=False), ""]


def summary(results: dict[str, Any]) -> list[str]:
    """What a study prints at its end."""
    return ["```text", *summary_lines(results), "```"]


def generated(page: str) -> str:
    """A page with its generated parts written anew."""
    before, *parts = START.split(page)
    written = [before]
    for part, name, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        _, after = text.split(END)
        results = files.read_json(ROOT / name / "results.json")
        lines = {"answer": answer, "crossovers": crossovers, "summary": summary}[part](results)
        start = f"<!-- {part} generated from results/{name}/results.json -->"
        written += ["\n".join([start, *lines, END]), after]
    return "".join(written)


def wanted() -> dict[pathlib.Path, str]:
    """The content of both pages, and of the figures that the documentation shows."""
    found = {path: generated(path.read_text(encoding="utf-8")) for path in PAGES}
    for study, name in FIGURE.findall(found[DOCS / "findings.md"]):
        figure = ROOT / study / "figures" / name
        found[DOCS / "figures" / study / name] = figure.read_text(encoding="utf-8")
    return found


def main(arguments: list[str]) -> None:
    """See the module's docstring."""
    check = arguments == ["--check"]
    if arguments and not check:
        keep(pathlib.Path(arguments[0]))
    for path, text in wanted().items():
        if check and not (path.exists() and path.read_text(encoding="utf-8") == text):
            sys.exit(f"{path.name} is stale: run python results/update_readme.py")
        path.parent.mkdir(exist_ok=True, parents=True)
        files.write_text(path, text)


if __name__ == "__main__":
    main(sys.argv[1:])
