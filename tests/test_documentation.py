"""The pages of docs/: nothing public is missing from the API, and README's links lead somewhere."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "undivided_tf"


def test_the_api_has_every_room():
    pages = "".join(path.read_text() for path in (ROOT / "docs/api").glob("*.md"))
    named = re.findall(r"^::: undivided_tf\.(\w+)$", pages, re.MULTILINE)
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert sorted(named) == sorted(modules | packages)


def test_links_of_readme_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)(?:#([\w-]+))?\)", (ROOT / "README.md").read_text())
    assert len(links) > 5
    for path, anchor in links:
        if not path.startswith("https://"):
            assert (ROOT / path).exists(), path
            if anchor:
                headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), re.MULTILINE)
                words = [re.sub(r"[^\w -]", "", heading.lower()) for heading in headings]
                assert anchor in [text.replace(" ", "-") for text in words]


def test_every_program_is_in_the_pages():
    pages = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    programs = {path.stem for path in PACKAGE.glob("bin/*.py")} - {"__init__", "config_flags"}
    assert not {name for name in programs if name not in pages}
