import copy
import subprocess
import sys
import warnings

import made_up_study
import numpy as np
import pytest
from matplotlib.figure import Figure

from undivided_tf.pattern import BlockPattern
from undivided_tf.reporting import blimp as blimp_figures
from undivided_tf.reporting import cka as cka_figures
from undivided_tf.reporting import diagnostics as diagnostics_figures
from undivided_tf.reporting import finetuning as task_figures
from undivided_tf.reporting import masked_loss as masked_loss_figures
from undivided_tf.reporting import pretraining as pretraining_figures
from undivided_tf.reporting import probing as probing_figures
from undivided_tf.reporting import structural as structural_figures
from undivided_tf.reporting.style import STYLES, styles_of

PATTERNS = ("(AI)*3", "(AAI)*2", "A*4")


def cka(first, second, value=0.5):
    taps = [list(BlockPattern.parse(pattern).tap_names) for pattern in (first, second)]
    matrix = [[value] * len(taps[1])] * len(taps[0])
    shown = {"second_taps": taps[1], "matrix": matrix, "low": None, "high": None}
    references = {
        name: {**shown, "matrix": (np.array(matrix) * scale).tolist()}
        for name, scale in (("shuffled", -0.1), ("other_sample", 0.9), ("untrained", 0.3))
    }
    return {
        "first": {"pattern": first, "seed": 1, "trained": True},
        "second": {"pattern": second, "seed": None, "trained": False},
        "first_taps": taps[0],
        "second_taps": taps[1],
        "matrix": matrix,
        "low": (np.array(matrix) - 0.1).tolist(),
        "high": (np.array(matrix) + 0.1).tolist(),
        "within_first": np.eye(len(taps[0])).tolist(),
        "within_second": np.full((len(taps[1]),) * 2, 0.7).tolist(),
        "references": references,
        "without_high_norm": {"matrix": matrix, "share": 0.01},
    }


def probing(pattern, task="topic", accuracy=0.7):
    taps = list(BlockPattern.parse(pattern).tap_names)
    return {
        "pattern": pattern,
        "task": task,
        "taps": taps,
        "accuracy": list(np.linspace(0.5, accuracy, len(taps))),
        "untrained_accuracy": [0.45] * len(taps),
        "majority_accuracy": 0.25,
    }


def pretraining(pattern, seed=1, scale=1.0):
    history = [{"step": step, "loss": 9.0 - step / 100, "accuracy": 0.1} for step in (0, 100, 300)]
    return {
        "pattern": pattern,
        "seed": seed,
        "training_history": history,
        "validation_history": history,
        "unigram_entropy": 6.5,
        "parameters": 100 * scale,
        "forward_flops": 100 * scale,
        "step_milliseconds": 10 * scale,
        "peak_memory_bytes": 1000 * scale,
    }


def finetuning(pattern, start, scores=(0.7, 0.72, 0.75), seed=1, majority=0.6):
    return {
        "pattern": pattern,
        "pretraining_seed": seed,
        "task": "topic",
        "start": start,
        "split": "test",
        "majority": {"validation": 0.5, "test": majority},
        "runs": [{"seed": i, "test": {"accuracy": score}} for i, score in enumerate(scores)],
    }


def diagnostics(pattern="(AI)*2"):
    taps = list(BlockPattern.parse(pattern).tap_names)
    names = ("relative_residual", "mean_cosine", "effective_rank")
    blocks = {
        "collapse": {name: list(np.linspace(0.9, 0.5, len(taps))) for name in names},
        "contribution_norm": dict.fromkeys(taps[1:], 0.3),
        "linear_r2": {
            tap: {"contribution": 0.5, "output": 0.9} for tap in taps if tap.endswith("diate")
        },
        "linear_reason": None,
    }
    names = ("entropy", "distance", "first", "separator", "self", "next", "previous")
    heads = {**{name: [0.2, 0.4] for name in names}, "rollout_self": 0.3}
    attention = {tap: heads for tap in taps if tap.endswith("/attention")}
    return {
        "encoder": {"pattern": pattern, "seed": 1, "trained": True},
        "taps": taps,
        "blocks": blocks,
        "untrained_blocks": blocks,
        "attention": attention,
        "untrained_attention": attention,
        "read_out": {
            "loss": list(np.linspace(9, 2, len(taps))), "accuracy": [0.2] * len(taps),
            "top_accuracy": [0.5] * len(taps), "top": 10,
        },
    }  # fmt: skip


def probing_in_full():
    result = probing("(AI)*3")
    taps = len(result["taps"])
    return {
        **result,
        "pretraining_seed": 1,
        "low": [0.4] * taps,
        "high": [0.8] * taps,
        "control_accuracy": [0.3] * taps,
        "selectivity": [0.2] * (taps - 1) + [None],
        "compression": [2.0] * taps,
        "untrained_compression": [1.2] * taps,
        "type_majority_accuracy": 0.5,
        "scalar_mix": {"accuracy": 0.75, "centre_of_gravity": 3.5},
    }


def blimp():
    share = {"accuracy": 0.6, "low": 0.5, "high": 0.7, "pairs": 90}
    return {
        "encoder": {"pattern": "(AI)*3", "seed": 1, "trained": True},
        "phenomena": {"binding": share, "island_effects": share, "none": {**share, "pairs": 0}},
    }


def masked_loss():
    one = {"pieces": 9, "loss": 4.0, "low": 3.8, "high": 4.2, "neighbour_model_loss": 4.4}
    names = ("frequent", "middle", "rare", "continuation")
    of = {**one, "classes": dict.fromkeys(names, one)}
    return {
        "encoder": {"pattern": "(AI)*3", "seed": 1, "trained": True},
        "rates": [{"rate": 0.15, **of}, {"rate": 0.5, **of}],
    }


def structural():
    taps = list(BlockPattern.parse("(AI)*3").tap_names)
    keys = ("uuas", "spearman", "untrained_uuas", "untrained_spearman")
    return {
        "encoder": {"pattern": "(AI)*3", "seed": 1, "trained": True},
        "taps": taps,
        **{key: list(np.linspace(0.4, 0.7, len(taps))) for key in keys},
        "chain_uuas": 0.48,
        "chain_spearman": None,
    }


def learnt(pattern, number=0):
    """A pre-training with the neighbour model beside it."""
    result = {**pretraining(pattern), "validation": {"loss": 6.0 - number / 10}}
    made_up_study.add_learning(result, 5.2)
    return result


ALL = {
    structural_figures.structural_figure: structural(),
    blimp_figures.phenomena: blimp(),
    masked_loss_figures.by_rate: masked_loss(),
    probing_figures.probe_figure: probing_in_full(),
    diagnostics_figures.block_figure: diagnostics(),
    diagnostics_figures.attention_figure: diagnostics(),
    diagnostics_figures.read_out_figure: diagnostics(),
    cka_figures.cka_heat_map: cka("(AI)*3", "A*4"),
    cka_figures.depth_lines: cka("(AI)*3", "(AAI)*2"),
    cka_figures.difference_map: cka("(AI)*3", "A*4"),
    probing_figures.probe_curves: [
        probing(p, task) for p in PATTERNS for task in ("topic", "pair")
    ],
    pretraining_figures.loss_curves: [pretraining(pattern) for pattern in PATTERNS],
    pretraining_figures.context_curves: [learnt(p, i) for i, p in enumerate(PATTERNS)],
    task_figures.task_scores: [
        finetuning(p, s) for p in PATTERNS for s in ("pretrained", "scratch")
    ],
    pretraining_figures.cost_bars: [pretraining(pattern) for pattern in PATTERNS],
}


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, to be looked into."""
    saved, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (saved.append(self), save(self, *a, **k))
    )
    return saved


@pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.filterwarnings("error")
def test_the_same_results_give_the_same_bytes(draw, suffix, tmp_path):
    before = copy.deepcopy(ALL[draw])
    for name in ("one", "two"):
        draw(ALL[draw], tmp_path / f"{name}.{suffix}")
    one, two = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("one", "two"))
    assert one == two
    assert one.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    assert ALL[draw] == before


@pytest.mark.parametrize("draw", ALL, ids=lambda draw: draw.__name__)
def test_no_text_is_cut_off_or_written_over_another(draw, tmp_path, drawn):
    draw(ALL[draw], tmp_path / "figure.png")
    (figure,) = drawn
    figure.draw_without_rendering()
    page = figure.bbox
    for axes in figure.axes:
        across, along = (
            [
                label
                for place, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)
                if min(limits) <= place <= max(limits)
            ]
            for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))
        )
        boxes = [label.get_window_extent() for label in across if label.get_text()]
        for left, right in zip(boxes, boxes[1:], strict=False):
            assert left.x1 <= right.x0
        for text in (*across, *along, axes.xaxis.label, axes.yaxis.label, *axes.texts):
            box = text.get_window_extent()
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= page.x1 and box.y1 <= page.y1
            assert inside or not text.get_text()


def test_heat_map_marks_kinds_undefined_and_negative(tmp_path, drawn):
    result = cka("(AI)*1", "A*2")
    result["matrix"] = [[None, 0.2, 0.3], [0.4, -0.1, 1.0], [0.5, 0.6, 0.7]]
    cka_figures.cka_heat_map([result, cka("A*2", "A*2")], tmp_path / "cka.png")
    (figure,) = drawn
    first, second, _ = figure.axes
    image = first.images[0]
    assert image.get_clim() == second.images[0].get_clim() == (0, 1)
    assert image.get_array().mask.tolist() == [[True, False, False], [False] * 3, [False] * 3]
    assert [label.get_text() for label in first.get_yticklabels()] == ["emb", "0A", "0I"]
    colours = [label.get_color() for label in first.get_yticklabels()]
    assert len(set(colours)) == 3
    assert [label.get_color() for label in first.get_xticklabels()] == colours[:2] + colours[1:2]
    assert [patch.get_hatch() for patch in first.patches] == ["////"]
    assert [(t.get_position(), t.get_text()) for t in first.texts] == [((1, 1), "\u2212")]
    assert first.get_ylabel() == "(AI)*1, seed 1"
    assert first.get_xlabel() == "A*2, untrained"


def test_a_distance_is_bright_where_taps_are_alike(tmp_path, drawn):
    result = {**cka("A*2", "A*2"), "measure": "procrustes", "is_distance": True}
    cka_figures.cka_heat_map(result, tmp_path / "cka.png")
    image = drawn[0].axes[0].images[0]
    assert (image.get_clim(), image.get_cmap().name) == ((0, 2), "cividis_r")
    assert drawn[0].axes[1].get_ylabel() == "Procrustes distance"


def test_taps_that_stand_for_each_other():
    full, half = (list(BlockPattern.parse(p).tap_names) for p in ("(AI)*4", "(AAI)*2"))
    pairs = [(full[i], half[j]) for i, j in cka_figures.matched(full, half)]
    assert pairs == [(tap, tap) for tap in half]
    # The second attention block of AIIIA is in its fourth encoder block.
    odd = list(BlockPattern.parse("AIIIA").tap_names)
    assert cka_figures.matched(full[:4], odd) == [(0, 0), (1, 1), (2, 2), (3, 5)]


def test_depth_lines_show_the_references_and_the_interval(tmp_path, drawn):
    result = cka("(AI)*3", "(AAI)*2")
    result["matrix"] = np.arange(49).reshape(7, 7)[:, :7].tolist()
    cka_figures.depth_lines(result, tmp_path / "depth.png")
    (axes,) = drawn[0].axes
    lines = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert len(lines) == 5  # The pair, three references, without the highest norms.
    assert list(lines[0].get_xdata()) == [0, 1, 2, 2.5, 3]
    assert list(lines[0].get_ydata()) == [0, 8, 7 * 3 + 2, 7 * 4 + 3, 7 * 5 + 4]
    assert len(axes.collections) == 1


def test_the_difference_is_of_the_taps_that_both_have(tmp_path, drawn):
    result = cka("(AI)*2", "A*2")
    result["within_first"] = np.arange(25.0).reshape(5, 5).tolist()
    result["within_second"] = np.zeros((3, 3)).tolist()
    cka_figures.difference_map(result, tmp_path / "difference.png")
    image = drawn[0].axes[0].images[0]
    np.testing.assert_array_equal(image.get_array(), [[0, 1, 3], [5, 6, 8], [15, 16, 18]])
    assert image.get_clim() == (-18, 18)


def test_why_there_is_no_linear_score_stands_in_its_panel(tmp_path, drawn):
    result = diagnostics()
    for scores in result["blocks"]["linear_r2"].values():
        scores["contribution"] = None
    result["blocks"]["linear_reason"] = "too few tokens"
    diagnostics_figures.block_figure(result, tmp_path / "blocks.png")
    assert [text.get_text() for text in drawn[0].axes[-1].texts] == ["too few tokens"]
    diagnostics_figures.block_figure(diagnostics("A*2"), tmp_path / "blocks.png")
    assert [text.get_text() for text in drawn[1].axes[-1].texts] == ["no intermediate block"]


def test_a_bare_probing_has_one_panel_and_a_full_one_three(tmp_path, drawn):
    bare = dict.fromkeys(
        ("control_accuracy", "selectivity", "compression", "untrained_compression", "scalar_mix")
    )
    result = probing_in_full()
    probing_figures.probe_figure(result, tmp_path / "full.png")
    probing_figures.probe_figure({**result, **bare, "low": [None] * 7}, tmp_path / "bare.png")
    assert [len(figure.axes) for figure in drawn] == [3, 1]
    star = [line for line in drawn[0].axes[0].lines if line.get_marker() == "*"]
    assert star[0].get_xdata() == [2.25]  # Between the second attention tap and the one behind it.


def test_probes_line_up_by_encoder_block(tmp_path, drawn):
    probing_figures.probe_curves([probing("AAI"), probing("A*2")], tmp_path / "probes.png")
    lines = [line for line in drawn[0].axes[0].lines if len(line.get_xdata()) > 2]
    depths = {tuple(line.get_xdata()) for line in lines}
    assert depths == {(0, 1, 2, 2.5), (0, 1, 2)}


def test_loss_figure_names_the_entropy_and_shows_what_is_around_it(tmp_path, drawn):
    pretraining_figures.loss_curves(ALL[pretraining_figures.loss_curves], tmp_path / "loss.png")
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.texts] == ["unigram entropy 6.500"]
    low, high = axes.get_ylim()
    assert low < 6.0 and 6.5 < high < 8


def test_loss_figure_shows_the_entropy_when_all_held_out_losses_lie_below_it(tmp_path, drawn):
    low = pretraining("A*2")
    low["validation_history"] = [{"step": 300, "loss": 6.0, "accuracy": 0.1}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Matplotlib warns when a text has no room.
        pretraining_figures.loss_curves([low], tmp_path / "loss.png")
    low_edge, high_edge = drawn[0].axes[0].get_ylim()
    assert low_edge < 6.0 and 6.5 < high_edge


def test_loss_figure_shows_the_neighbour_model_where_it_is_known(tmp_path, drawn):
    pretraining_figures.loss_curves([learnt(pattern) for pattern in PATTERNS], tmp_path / "x.svg")
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.texts] == [
        "unigram entropy 6.500", "neighbour model 5.200"
    ]  # fmt: skip
    assert axes.get_ylim()[0] < 5.2


def test_context_curves_end_with_all_context_and_shuffled_pieces(tmp_path, drawn):
    pretraining_figures.context_curves([learnt("A*4")], tmp_path / "x.svg")
    (axes,) = drawn[0].axes
    curve, shuffled, *_ = axes.lines
    assert curve.get_ydata().tolist() == pytest.approx([7.7, 7.1, 6.6, 6.3, 6.22, 6.2])
    assert shuffled.get_ydata() == pytest.approx([8.2])
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["1", "2", "4", "8", "16", "all", "shuffled"]


def test_interval_is_over_encoders_when_there_are_several(tmp_path, drawn):
    runs = [
        finetuning("A*4", "pretrained", (0.7, 0.9)),
        finetuning("A*4", "pretrained", (0.6, 0.8), 2),
    ]
    task_figures.task_scores(runs, tmp_path / "scores.png")
    interval = drawn[0].axes[0].lines[0].get_xdata()
    # Two encoders with means 0.8 and 0.7: Student's t with one degree of freedom.
    assert interval == pytest.approx([0.75 - 12.7062 * 0.05, 0.75 + 12.7062 * 0.05], abs=1e-4)


def test_a_far_majority_is_told_in_words(tmp_path, drawn):
    for majority, title in ((0.6, ""), (0.2, "\u2190 majority 0.200")):
        task_figures.task_scores(
            [finetuning("A*4", "scratch", majority=majority)], tmp_path / "s.png"
        )
        assert drawn[-1].axes[0].get_title("right") == title


def test_costs_are_relative_to_the_first_pattern_and_averaged_over_seeds(tmp_path, drawn):
    results = [pretraining("(AI)*3"), pretraining("A*4", 1, 0.4), pretraining("A*4", 2, 0.6)]
    pretraining_figures.cost_bars(results, tmp_path / "cost.png")
    assert [text.get_text() for text in drawn[0].axes[0].texts] == ["1.00", "0.50"] * 4


def test_patterns_keep_their_colours():
    assert styles_of(["A*6", "(AI)*6"]) == {"A*6": STYLES[1], "(AI)*6": STYLES[0]}
    assert styles_of(["(AI)*2A*4", "(AAI)*3", "(AI)*6"])["(AAI)*3"] == STYLES[2]
    many = styles_of([f"A*{n}I" for n in range(1, 30)])
    assert len(set(many.values())) == 29


def test_needs_no_tensorflow_and_leaves_matplotlib_as_it_was():
    code = (
        "import sys, matplotlib; before = matplotlib.rcParams.copy()\n"
        "from undivided_tf.reporting import pretraining\n"
        "assert 'tensorflow' not in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
        "assert before == matplotlib.rcParams.copy()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
