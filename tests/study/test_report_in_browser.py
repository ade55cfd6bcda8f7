"""The page in headless Chromium: it fits, asks for nothing, sorts, and axe-core finds no fault."""

import math
import shutil

import made_up_study
import pytest

from undivided_tf.study import report

CHROMIUM = shutil.which("chromium")
OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on PATH"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a report with branches, a failed cell and a task of a long name."""
    folder = tmp_path_factory.mktemp("report")
    results = made_up_study.results(
        patterns=("(AI)*12", "(AAI)*6", "A*4(AI)*8I*4"), tasks=("wiki_topic", "x" * 60), seeds=2
    )
    made_up_study.add_branches(
        results,
        lambda pattern, seed, flops: 20 - 0.5 * math.log(flops) + 0.01 * seed * len(pattern),
    )
    report.write_report(made_up_study.fail(results, "probing/(AI)*12"), folder)
    return (folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra browser")
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)


@pytest.fixture
def opened(browser, address):
    """Opens the page at a width, in a colour scheme; whatever it complains of fails the test."""
    complaints, requests = [], []

    def open_page(width=1200, scheme="light", **more):
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **more
        )
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        return page

    yield open_page
    assert complaints == []
    assert {url for url in requests if not url.startswith("data:")} == {address}


@pytest.mark.parametrize("width", [320, 390, 820, 1200])
def test_page_fits_its_window(opened, width):
    found = opened(width).evaluate("""() => ({
        content: document.documentElement.scrollWidth, height: document.body.scrollHeight,
        images: document.images.length,
        broken: [...document.images].filter(image => !image.naturalWidth).length,
        styled: getComputedStyle(document.querySelector("section")).borderTopStyle,
    })""")
    assert found["content"] <= width and found["height"] > 3000, found
    assert found["images"] > 0 and found["broken"] == 0 and found["styled"] == "solid"


def _column(table, index):
    return table.locator(f"tbody tr > :nth-child({index + 1})").all_inner_texts()


def test_tables_sort_by_keyboard_and_come_back(opened):
    table = opened().locator("#size-and-cost table").first
    assert table.locator("thead th").nth(1).inner_text().startswith("parameters")
    before = _column(table, 1)
    numbers = sorted(int(text.split()[0].replace(",", "")) for text in before)
    button = table.locator("thead button").nth(1)
    for order, expected in (
        ("ascending", numbers), ("descending", numbers[::-1]), (None, None),
    ):  # fmt: skip
        button.press("Enter")
        assert table.locator("thead th").nth(1).get_attribute("aria-sort") == order
        found = _column(table, 1)
        shown = [int(text.split()[0].replace(",", "")) for text in found]
        assert shown == expected if expected else found == before


def test_what_has_no_number_is_last_both_ways(opened):
    page = opened()
    found = page.evaluate("""() => {
        const row = value => { const tr = document.createElement("tr"), td = tr.insertCell();
            if (value !== null) td.dataset.value = value; td.textContent = value; return tr; };
        const rows = [2, null, 10, -1].map(row);
        return ["ascending", "descending"].map(order =>
            sorted(rows, 0, order).map(row => row.cells[0].textContent));
    }""")
    assert found == [["-1", "2", "10", ""], ["10", "2", "-1", ""]]


def test_page_without_scripts_has_no_buttons_and_all_numbers(opened):
    page = opened(java_script_enabled=False)
    assert (
        page.locator("thead button").count() == 0 and page.locator("#size-and-cost td").count() > 3
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_axe_finds_nothing(opened, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the extra browser")
    found = axe.Axe().run(opened(width, scheme)).response
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
    passed = {one["id"] for one in found["passes"]}
    assert {"color-contrast", "heading-order", "image-alt", "scrollable-region-focusable"} <= passed
