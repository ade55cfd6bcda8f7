"""Lays out the sections of a page as self-contained HTML and as Markdown."""

import base64
import hashlib
import pathlib
import re
from collections.abc import Iterable, Sequence

import jinja2
import markupsafe

from undivided_tf.reporting import drawings
from undivided_tf.reporting.content import Drawing, Figure, Section, Table, Value
from undivided_tf.support import files

NO_CELL = "no finished cell"
_SCRIPT = pathlib.Path(__file__).with_name("page_sort.js")


def write(
    folder: pathlib.Path,
    name: str,
    title: str,
    sections: Sequence[Section],
    lead: str,
    kicker: str = "",
    footer: str = "",
) -> None:
    """Writes NAME.html, NAME.md and the figures that they show.

    Args:
        folder: where; figures go to `folder/figures`.
        name: of the page's files.
        title: its heading.
        sections: what it holds; those of one chapter stand together, where its first one stands.
        lead: its first paragraph.
        kicker: a line above the heading.
        footer: its last paragraph.
    """
    chapters: dict[str, list[Section]] = {}
    for section in sections:
        chapters.setdefault(section.chapter, []).append(section)
    images = dict(
        _drawn(part, folder)
        for section in sections
        for part in section.parts
        if isinstance(part, Figure)
    )
    text = _SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    content = {
        "title": title,
        "kicker": kicker,
        "lead": lead,
        "footer": footer,
        "chapters": chapters,
        "images": images,
        "no_cell": NO_CELL,
        "script": markupsafe.Markup(text),
        "script_hash": f"sha256-{digest}",
    }
    for ending, autoescape in (("html", True), ("md", False)):
        template = environment(autoescape).get_template(f"page.{ending}.j2")
        files.write_text(folder / f"{name}.{ending}", template.render(content))


def _drawn(figure: Figure, folder: pathlib.Path) -> tuple[str, str]:
    """The name of a figure, and its SVG in base64."""
    path = folder / "figures" / f"{figure.name}.svg"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.draw(path)
    return figure.name, base64.b64encode(path.read_bytes()).decode()


def slug(text: str) -> str:
    """A file name of letters, digits and `_` that differs whenever the text does."""
    plain = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:60]
    return f"{plain}_{files.sha256(text)[:6]}"


def environment(autoescape: bool) -> jinja2.Environment:
    """Loads the templates of this folder, with filters for Markdown and HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("undivided_tf.reporting", "."),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "prose": _prose,
        "md": _markdown,
        "row": _markdown_row,
        "rule": _rule,
        "what": lambda part: type(part).__name__,
        "anchor": lambda text: re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-"),
        "svg": _svg,
        "described": lambda drawing: drawings.describe(drawing.pattern),
    }
    return environment


def _svg(drawing: Drawing) -> markupsafe.Markup:
    identifier = f"pattern-{files.sha256(str(drawing.pattern))[:8]}"
    return markupsafe.Markup(drawings.block_pattern(str(drawing.pattern), identifier))


def _prose(text: str) -> markupsafe.Markup:
    """HTML of a sentence in which backticks mark code, and a bare https address is a link."""
    escaped = str(markupsafe.escape(text)).replace(" %", "\N{NO-BREAK SPACE}%")
    escaped = re.sub(r"`([^`]*)`", r"<code>\1</code>", escaped)
    return markupsafe.Markup(re.sub(r"https://[\w./-]*\w", r'<a href="\g<0>">\g<0></a>', escaped))


def _markdown(text: str) -> str:
    """Markdown of a sentence in which backticks mark code; all else is taken literally."""
    parts = " ".join(text.split()).split("`")
    parts[::2] = [re.sub(r"([\\*_\[\]<>|#])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"`{part}`".replace("|", "\\|") for part in parts[1::2]]
    return "".join(parts)


def _markdown_row(row: Iterable[Value]) -> str:
    """A line of a Markdown table."""
    cells = []
    for value in row:
        text = _markdown(f"`{value.text}`" if value.code else value.text)
        cells.append(f"{text} ({_markdown(value.note)})" if value.note else text)
    return f"| {' | '.join(cells)} |"


def markdown_table(table: Table) -> list[str]:
    """The lines of a table in Markdown, without its title and note."""
    return [*_rule(table).splitlines(), *map(_markdown_row, table.rows)]


def _rule(table: Table) -> str:
    """Head and rule of a Markdown table."""
    heading = " | ".join(_markdown(column) for column in table.columns)
    return f"| {heading} |\n|{'---|' * len(table.columns)}"
