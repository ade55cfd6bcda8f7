"""The page in headless Chromium: it renders, and nothing is wider than the window."""

import json
import shutil
import subprocess

import made_up_study
import pytest

from undivided_tf.study import report

CHROMIUM = shutil.which("chromium")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    # The page that measures stands beside the report, not in it; both are files.
    "--allow-file-access-from-files", "--window-size=1400,2000", "--virtual-time-budget=10000",
)  # fmt: skip
MEASURE = """<!DOCTYPE html><body><iframe width="{width}" height="2000" src="report.html"></iframe>
<pre id="found"></pre><script>
document.querySelector("iframe").onload = event => {{
  const page = event.target.contentDocument, root = page.documentElement;
  const images = [...page.images];
  document.getElementById("found").textContent = JSON.stringify({{
    window: root.clientWidth, content: root.scrollWidth, height: root.scrollHeight,
    broken: images.filter(image => !image.naturalWidth).length, images: images.length,
    styled: getComputedStyle(page.querySelector("section")).borderTopStyle,
    requests: event.target.contentWindow.performance.getEntriesByType("resource")
      .filter(entry => !entry.name.startsWith("data:")).length,
  }});
}};</script>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on PATH"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("undivided_tf.study.figures")
    folder = tmp_path_factory.mktemp("report")
    results = made_up_study.results(
        patterns=("(AI)*12", "(AAI)*6", "A*4(AI)*8I*4"), tasks=("wiki_topic", "x" * 60)
    )
    report.write_report(made_up_study.fail(results, "probing/(AI)*12"), folder)
    return folder


@pytest.mark.parametrize("width", [320, 390, 820, 1200])
def test_page_fits_its_window(folder, width):
    (folder / "measure.html").write_text(MEASURE.format(width=width))
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={folder / f'profile_{width}'}", "--dump-dom"]
    ran = subprocess.run(
        [*command, (folder / "measure.html").as_uri()], capture_output=True, text=True, timeout=120
    )
    found = json.loads(ran.stdout.split('<pre id="found">')[1].split("</pre>")[0])
    assert found["window"] <= width and found["content"] == found["window"], found
    assert found["images"] > 0 and found["broken"] == found["requests"] == 0
    assert found["height"] > 3000 and found["styled"] == "solid"
