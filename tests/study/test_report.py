"""The report holds the numbers of its results, is whole, well-formed and honest about failures."""

import base64
import hashlib
import html.parser
import math
import re

import made_up_study
import pytest

from undivided_tf import errors
from undivided_tf.reporting import cka as cka_figures
from undivided_tf.reporting import finetuning as task_figures
from undivided_tf.reporting import formatting, layout
from undivided_tf.reporting import pretraining as pretraining_figures
from undivided_tf.reporting import probing as probing_figures
from undivided_tf.study import budgets, report
from undivided_tf.study.kinds import cka, finetuning, pretraining, probing, read_results
from undivided_tf.study.overview import overview
from undivided_tf.study.summary import summary_lines

DRAWING = b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'
VOID = {"meta", "img", "br", "link"}


@pytest.fixture
def figures(monkeypatch):
    """Stands in for matplotlib: writes an empty SVG and notes what was drawn."""
    drawn = []
    for module, names in (
        (pretraining_figures,
         ("loss_curves", "context_curves", "cost_bars", "quality_against_cost")),
        (task_figures, ("task_scores",)),
        (cka_figures, ("cka_heat_map",)),
        (probing_figures, ("probe_curves",)),
    ):  # fmt: skip
        for name in names:

            def draw(argument, path, name=name):
                drawn.append((name, argument))
                path.write_bytes(DRAWING)

            monkeypatch.setattr(module, name, draw)
    return drawn


@pytest.fixture
def write(figures, tmp_path):
    """Writes the report of results and gives its page, parsed, and its Markdown."""

    def written(results):
        report.write_report(results, tmp_path)
        page = Page((tmp_path / "report.html").read_text())
        return page, (tmp_path / "report.md").read_text()

    return written


class Page(html.parser.HTMLParser):
    """Reads a page, checks that every element is closed in order, keeps what tests ask for."""

    def __init__(self, source):
        super().__init__()
        self.source, self.open, self.elements, self.headings = source, [], [], []
        self.values, self.text, self.scripts = [], "", []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if "data-value" in dict(attributes):
            self.values.append(float(dict(attributes)["data-value"]))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data
        elif self.open[-1] == "script":
            self.scripts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_numbers_of_the_page_are_those_of_the_results(write):
    results = made_up_study.results()
    page, markdown = write(results)
    study = read_results(results)
    for cell in results["cells"]:
        result = cell["result"]
        if result["kind"] == "timing":
            continue
        if result["kind"] == "pretraining":
            in_turn = ("step_milliseconds", "tokens_per_second", "training_seconds")
            expected = [
                *(study.mean("pretraining", name, pattern=result["pattern"]) for name in in_turn),
                result["parameters"], result["forward_flops"], result["latency_milliseconds"],
                result["peak_memory_bytes"], result["validation"]["loss"],
                result["validation"]["accuracy"], math.exp(result["validation"]["loss"]),
            ]  # fmt: skip
            shown = [f"{result['parameters']:,}", f"{result['validation']['loss']:.3f}"]
        elif result["kind"] == "finetuning":
            accuracies = [run["test"]["accuracy"] for run in result["runs"]]
            expected = [sum(accuracies) / len(accuracies), result["majority"]["test"]]
            shown = [" ".join(f"{100 * accuracy:.1f}" for accuracy in accuracies)]
        elif result["kind"] == "probing":
            expected = [max(result["accuracy"]), max(result["untrained_accuracy"])]
            shown = [f"{100 * max(result['accuracy']):.1f}"]
        else:
            rows, columns = (
                [i for i, tap in enumerate(result[key]) if tap.endswith("attention")]
                for key in ("first_taps", "second_taps")
            )
            matched = [result["matrix"][i][j] for i, j in zip(rows, columns, strict=True)]
            expected = [sum(matched) / len(matched), min(matched), max(matched)]
            shown = [f"{min(matched):.3f}"]
        for value in expected:
            assert any(math.isclose(value, there, rel_tol=1e-12) for there in page.values)
        for text in shown:
            assert text in page.text and text in markdown


def test_page_is_whole(write):
    page, _ = write(made_up_study.results())
    assert not page.all("link") and not page.all("iframe")
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in page.all("img"))
    assert not re.search(r"url\(|@import", page.source)
    for _, attributes in page.elements:
        assert not any(key.startswith("on") or key == "style" for key in attributes)
    policy = page.all("meta")[3]["content"]
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy and policy.endswith(f"script-src 'sha256-{digest}'")


def test_page_can_be_read_without_seeing_it(write):
    page, _ = write(made_up_study.results())
    assert page.all("html") == [{"lang": "en"}]
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    for before, after in zip(page.headings, page.headings[1:], strict=False):
        assert after <= before + 1
    assert page.all("img") and all(len(image["alt"]) > 20 for image in page.all("img"))
    assert all(drawing["role"] == "img" for drawing in page.all("svg"))
    identifiers = [a["id"] for _, a in page.elements if "id" in a]
    assert len(identifiers) == len(set(identifiers))
    for drawing in page.all("svg"):
        assert set(drawing["aria-labelledby"].split()) <= set(identifiers)
    for link in page.all("a"):
        assert link["href"].startswith("https://") or link["href"][1:] in identifiers


def test_every_figure_is_drawn_from_finished_cells_and_stands_in_both_reports(
    write, figures, tmp_path
):
    results = made_up_study.results()
    page, markdown = write(results)
    drawn = {name: [argument for other, argument in figures if other == name]
             for name, _ in figures}  # fmt: skip
    assert {name: len(arguments) for name, arguments in drawn.items()} == {
        "cost_bars": 1, "loss_curves": 1, "task_scores": 2, "cka_heat_map": 4, "probe_curves": 2,
        "quality_against_cost": 2,
    }  # fmt: skip
    by_kind = {kind: [c["result"] for c in results["cells"] if c["kind"] == kind] for kind in (
        "pretraining", "finetuning", "cka", "probing")}  # fmt: skip
    assert drawn["loss_curves"] == [by_kind["pretraining"]]
    assert drawn["task_scores"][0] == [
        r for r in by_kind["finetuning"] if r["task"] == "wiki_topic"
    ]
    assert drawn["cka_heat_map"] == by_kind["cka"]
    study = read_results(results)
    for bar in drawn["cost_bars"][0]:
        for name in ("parameters", "forward_flops", "step_milliseconds", "peak_memory_bytes"):
            assert [bar[name]] == study.values("pretraining", name, pattern=bar["pattern"])
    paths = re.findall(r"\]\((figures/[^)]+)\)", markdown)
    assert len(set(paths)) == len(figures) == len(page.all("img"))
    assert all((tmp_path / path).read_bytes() == DRAWING for path in paths)


def test_failed_cells_stand_as_failed_with_their_reason(write):
    results = made_up_study.fail(
        made_up_study.results(), "finetuning/A*6/1/wiki_pair", error="OutOfMemory: 3 <GiB> wanted"
    )
    page, markdown = write(results)
    assert "2 of 27 cells failed" in page.text
    assert page.text.count("OutOfMemory: 3 <GiB> wanted") == 2
    assert "finetuning/A*6/1/wiki_pair/scratch" in markdown
    row = finetuning.table(read_results(results), "wiki_pair").rows[2]
    assert [value.text for value in row[1:3]] == ["failed", "failed"]
    other = finetuning.table(read_results(results), "wiki_topic").rows[2]
    assert not any(value.failed for value in other)
    assert ("strong", {"class": "failed"}) in page.elements


def test_pattern_whose_pretraining_failed_keeps_its_place(write):
    results = made_up_study.fail(made_up_study.results(), "pretraining/A*6", "finetuning/A*6")
    page, _ = write(results)
    study = read_results(results)
    assert [row[0].text for row in pretraining.cost(study).rows] == ["(AI)*6", "(AAI)*3", "A*6"]
    assert all(value.failed for value in pretraining.cost(study).rows[2][1:])
    assert "A*6 has no results: its pre-training failed." in page.text


def test_failed_reference_leaves_nothing_to_compare_with(write):
    results = made_up_study.fail(
        made_up_study.results(), "pretraining/(AI)*6", "finetuning/(AI)*6", "probing/(AI)*6", "cka/"
    )
    page, _ = write(results)
    assert "(AI)*6 has no results to compare with." in page.text
    assert "×" not in pretraining.cost(read_results(results)).rows[1][1].note


@pytest.mark.parametrize(
    ("kind", "words"),
    [("pretraining", "not run"), ("finetuning", "not run"), ("cka", layout.NO_CELL),
     ("probing", "not run")],
)  # fmt: skip
def test_missing_kind_is_said_to_be_missing(write, kind, words):
    page, markdown = write(made_up_study.results())
    assert words not in page.text and words not in markdown
    results = made_up_study.without(made_up_study.results(), kind)
    page, markdown = write(results)
    assert words in page.text and words in markdown
    assert not any(value.failed for row in overview(read_results(results)).rows for value in row)


def test_study_without_any_finished_cell(write):
    results = made_up_study.fail(made_up_study.results(), "tim", "pre", "fine", "cka", "prob")
    page, _ = write(results)
    assert "27 of 27 cells failed" in page.text
    assert page.values and not page.all("img")  # Settings have values; nothing was measured.


def test_hostile_names_are_text(write):
    task = "<script>alert(1)</script>|x"
    results = made_up_study.results(tasks=("wiki_topic", task.replace("/", "")))
    results["command"] = "run --task='</code><img src=x onerror=alert(1)>'"
    page, markdown = write(results)
    assert len(page.all("script")) == 1 and "alert" not in page.scripts[0]
    assert task.replace("/", "") in page.text
    assert all("onerror" not in image for image in page.all("img"))
    assert "\\<script\\>" in markdown
    assert "<script>" not in re.sub(r"`[^`]*`", "", markdown)


def test_markdown_tables_have_one_width(write):
    _, markdown = write(made_up_study.results(tasks=("a|b",)))
    for block in re.findall(r"(?:^\|.*\n)+", markdown, flags=re.M):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block


def test_entries_of_cka_without_value_are_counted_and_explained(write):
    results = made_up_study.results()
    result = [c["result"] for c in results["cells"] if c["kind"] == "cka"][1]
    row = result["first_taps"].index("block_00/attention")
    result["matrix"][row] = [None] * len(result["second_taps"])
    result["reasons"] = {f"block_00/attention x {t}": "no variance" for t in result["second_taps"]}
    page, _ = write(results)
    assert "no variance (10 entries)" in page.text
    assert "(5 of 6 taps)" in page.text
    assert cka.table(read_results(results)).rows[1][-1].number == 10


def test_one_run_gives_no_interval():
    study = read_results(made_up_study.results(runs=1))
    [finding] = [f for f in report.findings(study, "A*6") if f.subject == "wiki_topic"]
    assert "n = 1 fine-tuning run, no interval" in finding.text


def test_interval_is_over_pretraining_seeds_when_there_are_several():
    study = read_results(made_up_study.results(seeds=2, runs=5))
    score = finetuning.score(study, "wiki_topic", "A*6")
    assert (score.unit, score.estimate.n, len(score.runs)) == ("encoder", 2, 2)
    means = [sum(runs) / 5 for runs in score.runs]
    assert score.estimate.mean == pytest.approx(sum(means) / 2)
    assert finetuning.score(study, "wiki_topic", "A*6", "scratch").unit == "fine-tuning run"


def test_a_pattern_that_is_not_asked_for_from_random_weights_is_read_against_the_reference():
    results = made_up_study.results()
    results["config"]["from_scratch_patterns"] = 1
    results["cells"] = [
        cell
        for cell in results["cells"]
        if cell["label"].get("start") != "scratch" or cell["label"]["pattern"] == "(AI)*6"
    ]
    study = read_results(results)
    rows = {row[0].text: row for row in finetuning.table(study, "wiki_topic").rows}
    assert {rows["A*6"][2].text, rows["A*6"][7].text} == {"not asked for"}
    bare = finetuning.score(study, "wiki_topic", "(AI)*6", "scratch").estimate.mean
    assert rows["(AI)*6"][2].number == bare
    told = {
        pattern: next(f for f in report.findings(study, pattern) if f.subject == "wiki_topic").text
        for pattern in ("(AI)*6", "A*6")
    }
    score = f"from random weights {formatting.percent(bare)} %"
    assert told["A*6"].endswith(f"the reference {score}.")
    assert told["(AI)*6"].endswith(f"the same encoder {score}.")


def accuracies(results, pattern, values):
    """Sets the accuracies of the pre-trained runs of a pattern on wiki_topic."""
    for cell in results["cells"]:
        result = cell["result"]
        if (
            result["kind"] == "finetuning"
            and (result["pattern"], result["task"], result["start"])
            == (pattern, "wiki_topic", "pretrained")
        ):  # fmt: skip
            for run, value in zip(result["runs"], values, strict=True):
                run["test"]["accuracy"] = value


def test_tables_show_the_metric_that_a_task_is_scored_by():
    results = made_up_study.results()
    for cell in results["cells"]:
        if cell["kind"] == "finetuning" and cell["result"]["task"] == "wiki_topic":
            cell["result"]["primary"] = "matthews_correlation"
            for run in cell["result"]["runs"]:
                run["test"]["matthews_correlation"] = 0.4321
    study = read_results(results)
    assert finetuning.score(
        study, "wiki_topic", "A*6", "pretrained"
    ).estimate.mean == pytest.approx(0.4321)
    by_seed = study.by_seed("finetuning", study.metric("wiki_topic"), task="wiki_topic")
    assert set(by_seed.values()) == {0.4321}
    heading = "wiki_topic test Matthews correlation, %"
    table = overview(study)
    assert heading in table.columns and "wiki_pair test accuracy, %" in table.columns
    assert table.rows[0][table.columns.index(heading)].text == "43.2"
    note = finetuning.table(study, "wiki_topic").note
    assert note.startswith("Matthews correlation; small print") and "uncertain by" not in note
    assert "uncertain by" in finetuning.table(study, "wiki_pair").note
    finding = next(f for f in report.findings(study, "A*6") if f.subject == "wiki_topic")
    assert finding.text.startswith("Test Matthews correlation 43.2 %")


def test_difference_is_paired_by_seed_and_read_by_its_interval():
    results = made_up_study.results()
    accuracies(results, "(AI)*6", [0.70, 0.80, 0.90])
    accuracies(results, "A*6", [0.65, 0.75, 0.84])
    accuracies(results, "(AAI)*3", [0.60, 0.90, 0.87])
    study = read_results(results)
    difference, _ = finetuning.difference(study, "wiki_topic", "A*6")
    # By hand: differences -5, -5, -6; mean -5.333, deviation 0.577, t(0.975, 2) = 4.303.
    assert difference.mean == pytest.approx(-0.05333, abs=1e-5)
    assert difference.interval == pytest.approx((-0.06768, -0.03899), abs=1e-5)
    below = next(f.text for f in report.findings(study, "A*6") if f.subject == "wiki_topic")
    assert "5.3 points below the reference (95 % interval −6.8 to −3.9, n = 3" in below


@pytest.mark.parametrize(
    ("neighbours", "words"),
    [
        (6.3, "It has learnt from its context: its held-out loss is 6.000 nats against 6.300 of "
         "the neighbour model."),
        (5.0, "It has not learnt from the context: its held-out loss is 6.000 nats against 5.000"),
        (None, "Not known whether it has learnt from its context"),
    ],
)  # fmt: skip
def test_learning(neighbours, words):
    study = read_results(made_up_study.results(losses=(6.0,), neighbours=neighbours))
    for pattern in study.patterns:
        [finding] = [f for f in report.findings(study, pattern) if f.subject == "Learning"]
        assert finding.text.startswith(words)


def test_losses_of_the_neighbour_model_and_use_of_context_are_reported(write):
    page, markdown = write(made_up_study.results(losses=(3.6, 3.7, 3.8), neighbours=3.75))
    for text in (page.text, markdown):
        words = " ".join(text.split())
        assert "What the encoders look at" in words and "neighbour model's loss, nats" in words
        assert "+0.150" in words and "−0.050" in words  # 3.75 less 3.6, and less 3.8.
        assert "below that of the neighbour model under the same masks" in words
    assert "figures/context_use.svg" in markdown


def test_results_of_an_older_release_are_reported_without_the_neighbour_model(write):
    page, markdown = write(made_up_study.results())
    for text in (page.text, markdown):
        assert "neighbour model's loss" not in text and "What the encoders look at" not in text
    assert not any("neighbour" in line for line in summary_lines(made_up_study.results()))


@pytest.mark.parametrize("budget", sorted(budgets.NAMES.keys() - {budgets.STEPS}))
def test_the_methods_name_every_budget(write, budget):
    raw = made_up_study.results()
    raw["config"]["budgets"] = ["steps", budget]
    _, markdown = write(raw)
    assert "**Budgets.**" in markdown


def test_scope_is_always_said(write):
    page, markdown = write(made_up_study.results())
    for text in (page.text, markdown):
        words = " ".join(text.split())
        assert "they claim nothing for BERT-Base" in words
        assert "at this size, on this data and with this number of seeds" in words


def test_an_unfinished_study_is_reported_without_the_patterns_not_begun(write):
    results = made_up_study.results()
    left = [cell for cell in results["cells"] if "A*6" in cell["label"].values()]
    left += [cell for cell in results["cells"] if "/(AAI)*3/1/wiki_pair" in cell["name"]]
    for cell in left:
        cell.update(status="not run", seconds=None, result=None)
    page, markdown = write(results)
    for text in (page.text, markdown):
        words = " ".join(text.split())
        assert f"not finished: {len(left)} of {len(results['cells'])} cells" in words
        assert "No cell has run of " in words and "2 block patterns" in words
    rows = overview(read_results(results)).rows
    assert [row[0].text for row in rows] == ["(AI)*6", "(AAI)*3"]
    assert [row[-1].text for row in rows][1] == "not run"
    lines = summary_lines(results)
    assert lines[-1] == "not begun: A*6" and lines[-2].endswith(f"0 failed, {len(left)} not run")


def test_a_seed_that_the_reference_lacks_leaves_the_common_ones_paired():
    results = made_up_study.results(seeds=2)
    accuracies(results, "(AI)*6", [0.75] * 3)
    accuracies(results, "A*6", [0.69, 0.70, 0.71])
    for cell in results["cells"]:
        if cell["name"] == "finetuning/(AI)*6/2/wiki_topic/pretrained":
            cell.update(status="not run", result=None)
    difference, unit = finetuning.difference(read_results(results), "wiki_topic", "A*6")
    assert (difference.n, unit) == (1, "encoder") and difference.interval is None
    assert difference.mean == pytest.approx(-0.05)


def test_patterns_and_tasks_are_found_under_any_spelling():
    results = made_up_study.results()
    results["config"]["patterns"] = ["AIAIAIAIAIAI", "AAI AAI AAI", "AAAAAA"]
    results["config"]["tasks"] = ["somewhere/wiki_topic", "wiki_pair"]
    assert not any(
        value.text == "not run" for row in overview(read_results(results)).rows for value in row
    )


def test_config_of_another_version_is_refused(tmp_path):
    results = made_up_study.results()
    results["config"]["colour"] = "red"
    with pytest.raises(errors.InputError, match="results.json: config: unknown key 'colour'"):
        report.write_report(results, tmp_path)


@pytest.mark.parametrize(
    "text, expected",
    [
        (formatting.count(1234567.0), "1,234,567"),
        (formatting.points(-0.0123), "−1.2"),
        (formatting.points(0.0123), "+1.2"),
        (formatting.points(-0.0001), "0.0"),
        (formatting.points(0.0), "0.0"),
        (formatting.large(999), "999"),
        (formatting.large(12_345_678), "12.3 M"),
        (formatting.large(1.5e12), "1.50 T"),
        (formatting.memory(3 * 2**20), "3 MiB"),
        (formatting.memory(24 * 2**30), "24.0 GiB"),
        (formatting.duration(42), "42.0 s"),
        (formatting.duration(119.7), "2 min 00 s"),
        (formatting.duration(7500), "2 h 05 min"),
        (formatting.ratio(3, 4), "0.75×"),
    ],
)
def test_numbers_are_written(text, expected):
    assert text == expected


def test_failed_seeds_are_counted_beside_the_finished_ones():
    results = made_up_study.fail(
        made_up_study.results(seeds=3),
        "pretraining/A*6/2", "finetuning/A*6/2/wiki_pair/pretrained", "probing/A*6/2/wiki_pair",
        "cka/{'pattern': '(AI)*6', 'seed': 1, 'trained': True}/{'pattern': 'A*6'",
    )  # fmt: skip
    study = read_results(results)
    assert pretraining.language_model(study).rows[2][3].note.endswith("n = 2, 1 failed")
    assert finetuning.table(study, "wiki_pair").rows[2][1].note.endswith("n = 2 encoders, 1 failed")
    assert finetuning.table(study, "wiki_topic").rows[2][1].note.endswith("n = 3 encoders")
    assert probing.table(study, "wiki_pair").rows[2][-1].note == "1 failed"
    assert [row[3].text for row in cka.table(study).rows].count("failed") == 1
    [finding] = [f for f in report.findings(study, "A*6") if f.subject == "CKA"]
    assert finding.text == "Not known against the reference: no finished cell (failed)."


def test_records_that_failed_leave_no_corpus_to_tell_of(write):
    results = made_up_study.fail(made_up_study.results(), "pre", "fine", "cka", "prob")
    results["corpus"], results["sources"] = None, []
    page, _ = write(results)
    assert layout.NO_CELL in page.text
