import dataclasses
import math
import re

import made_up_study
import pytest
from made_up_study import accuracies, shift, text_of

from undivided_tf.study import claims, judging, methods, report, summary, verdict_tables
from undivided_tf.study.judging import Scores
from undivided_tf.study.kinds import read_results
from undivided_tf.study.kinds.probing import Probing


def judged(study, name, pattern="(AAI)*3"):
    return claims.verdicts(read_results(study))[name][pattern]


def test_one_encoder_a_pattern_is_underpowered():
    study = made_up_study.results(seeds=1)
    found = claims.verdicts(read_results(study))
    measured = (
        "language modelling kept", "accuracy kept", "similar attention", "probe accuracy kept",
    )  # fmt: skip
    assert {found[name]["A*6"].status for name in measured} == {judging.UNDERPOWERED}
    assert judged(study, "fewer parameters").status == judging.SUPPORTED


@pytest.mark.parametrize(
    ("accuracy", "status"),
    [(0.80, judging.SUPPORTED), (0.90, judging.SUPPORTED), (0.75, judging.NOT_SUPPORTED)],
)
def test_accuracy_within_and_beyond_the_margin(accuracy, status):
    study = made_up_study.results(seeds=4)
    shift(study, "finetuning", "(AI)*6", accuracies(0.80))
    shift(study, "finetuning", "(AAI)*3", accuracies(accuracy))
    assert judged(study, "accuracy kept").status == status


@pytest.mark.parametrize(
    ("rise", "status"), [(-0.2, "supported"), (0.01, "supported"), (0.2, "not supported")]
)
def test_held_out_loss_within_and_beyond_the_margin(rise, status):
    """The margin is 0.05 nats; losses of a seed lie together."""
    study = made_up_study.results(seeds=3, losses=(4.0, 4.0 + rise, 4.0))
    trained = [cell["result"] for cell in study["cells"] if cell["kind"] == "pretraining"]
    for number, result in enumerate(trained):
        result["validation"]["loss"] += 0.002 * (number % 2)
    verdict = judged(study, "language modelling kept")
    assert verdict.status == status and "0.05 nats" in verdict.reason
    (evidence,) = verdict.evidence
    assert evidence.mean == pytest.approx(-rise, abs=0.005) and evidence.n == 3


def test_an_encoder_at_the_loss_of_unigrams_has_no_loss_to_keep():
    results = made_up_study.results(seeds=3, losses=(made_up_study.ENTROPY,))
    assert judged(results, "language modelling kept").status == "underpowered"


def test_one_lost_task_is_enough_against_the_claim():
    study = made_up_study.results(seeds=4)
    shift(study, "finetuning", "(AI)*6", accuracies(0.80))
    shift(study, "finetuning", "(AAI)*3", lambda result: accuracies(
        0.80 if result["task"] == "wiki_topic" else 0.70)(result))  # fmt: skip
    verdict = judged(study, "accuracy kept")
    assert verdict.status == judging.NOT_SUPPORTED
    assert "wiki_pair" in verdict.reason and "wiki_topic" not in verdict.reason


def scored(differences, full=0.8, floor=0.5):
    """Scores with these differences to a reference that is the same with every seed."""
    own = {seed: full + difference for seed, difference in enumerate(differences)}
    return Scores(own, dict.fromkeys(own, full), floor)


def test_noise_above_the_margin_is_underpowered():
    verdict = judging.not_worse({"task": scored([0.05, -0.06, 0.04, -0.05])}, 0.01, "accuracy")
    assert verdict.status == judging.UNDERPOWERED
    assert verdict.evidence[0].detectable > 0.05
    assert f"about {verdict.evidence[0].needed:,} pairs would have 80 % power" in verdict.reason
    assert verdict.evidence[0].needed > 100
    level = judging.not_worse({"task": scored([-0.009, -0.01, -0.011])}, 0.01, "accuracy")
    assert level.status == judging.UNDERPOWERED and level.evidence[0].needed <= 3
    assert "pairs" not in level.reason  # More of them help little: the loss is the margin.


def test_holm_makes_many_tasks_stricter_than_one():
    barely = [0.0, 0.004, -0.012, 0.003]
    alone = judging.not_worse({"a": scored(barely)}, 0.01, "accuracy").evidence[0].p_within
    three = dict.fromkeys("abc", scored(barely))
    among = judging.not_worse(three, 0.01, "accuracy").evidence[0].p_within
    assert among == pytest.approx(min(1, 3 * alone))


def test_a_task_that_nobody_learnt_supports_nothing():
    """An encoder that always gives the same answer lost nothing against another that does."""
    verdict = judging.not_worse({"task": scored([0.0] * 4, full=0.5)}, 0.01, "accuracy")
    assert verdict.status == judging.UNDERPOWERED
    assert "no comparison is informative about a loss of accuracy" in verdict.reason
    assert "beat its floor by as much on task" in verdict.reason
    assert (verdict.evidence[0].p_within, verdict.evidence[0].p_uninformative) == (None, 1.0)


@pytest.mark.parametrize(
    ("learnt", "unlearnt", "status"),
    [(0.0, -0.2, judging.SUPPORTED), (-0.2, 0.0, judging.NOT_SUPPORTED)],
)
def test_tasks_that_were_learnt_decide_alone(learnt, unlearnt, status):
    noise = [0.0005, -0.0005, 0.001, -0.001]
    tasks = {
        "learnt": scored([learnt + x for x in noise]),
        "unlearnt": Scores(
            {i: 0.5 + unlearnt + x for i, x in enumerate(noise)},
            {i: 0.5 + 20 * x for i, x in enumerate(noise)},
            floor=0.5,
        ),
    }
    verdict = judging.not_worse(tasks, 0.01, "accuracy")
    assert verdict.status == status
    alone = judging.not_worse({"learnt": tasks["learnt"]}, 0.01, "accuracy")
    assert verdict.evidence[0] == alone.evidence[0]  # Holm counts those that decide.
    assert "by as much on unlearnt" in verdict.reason and " on learnt;" in verdict.reason


def test_controls_decide_nothing_whatever_they_score():
    lost, kept = scored([-0.2, -0.21, -0.19]), scored([0.0, 0.0005, -0.0005])
    control = dataclasses.replace(lost, control=True)
    verdict = judging.not_worse({"rte": control, "sst2": kept}, 0.01, "accuracy")
    assert verdict.status == judging.SUPPORTED
    assert verdict.reason.endswith("; controls decide nothing: rte")
    assert judging.not_worse({"rte": control}, 0.01, "accuracy").status == judging.UNDERPOWERED


def test_a_task_on_which_random_weights_do_as_well_is_not_sensitive():
    """Pre-training taught nothing of use for it, so there is nothing to lose."""
    study = made_up_study.results(seeds=4)
    shift(study, "finetuning", "(AI)*6", accuracies(0.80))
    shift(study, "finetuning", "(AAI)*3", accuracies(0.70))
    assert judged(study, "accuracy kept").status == judging.NOT_SUPPORTED
    for cell in study["cells"]:
        if cell["label"].get("start") == "scratch" and cell["label"]["task"] == "wiki_pair":
            accuracies(0.85)(cell["result"])
    verdict = judged(study, "accuracy kept")
    assert "beat its floor by as much on wiki_pair" in verdict.reason
    assert "loses more than 1 point of accuracy on wiki_topic" in verdict.reason


def test_small_encoders_have_controls():
    study = made_up_study.results(tasks=("RTE", "wiki_topic"), seeds=3)
    shift(study, "finetuning", "(AI)*6", accuracies(0.80))
    assert "; controls decide nothing: RTE" in judged(study, "accuracy kept").reason
    table = next(
        part
        for section in report.sections(read_results(study))
        for part in section.parts
        if getattr(part, "title", "") == "Task RTE"
    )
    assert table.note.startswith("A control, which decides nothing. Accuracy;")
    for cell in study["cells"]:
        if cell["kind"] == "pretraining":
            cell["result"]["parameters"] = 30_000_000
    assert "controls" not in judged(study, "accuracy kept").reason


def test_words_of_several_labels_are_those_of_tasks_of_words():
    result = {
        "taps": ["block_00/attention"], "majority_accuracy": 0.5, "accuracy": [0.8],
        "untrained_accuracy": [0.6], "ambiguous_type_accuracy": [0.7], "compression": [2.0],
    }  # fmt: skip
    for unit, expected in (("words", {"ambiguous_type_accuracy": 0.7}), ("sentences", {})):
        rows = {row["metric"]: row["value"] for row in Probing().rows({**result, "unit": unit})}
        assert rows == {
            "majority_accuracy": 0.5, "accuracy": 0.8, "untrained_accuracy": 0.6,
            "compression": 2.0, **expected,
        }  # fmt: skip


def test_a_reference_above_a_constant_answer_by_less_than_the_margin_has_nothing_to_lose():
    near = scored([0.0] * 4, full=0.505)
    assert judging.not_worse({"task": near}, 0.01, "accuracy").status == judging.UNDERPOWERED
    assert judging.not_worse({"task": near}, 0.001, "accuracy").status == judging.SUPPORTED


def test_a_pattern_with_more_parameters_is_no_saving():
    study = made_up_study.results()
    shift(study, "pretraining", "(AAI)*3", lambda r: r.update(parameters=10**9))
    assert judged(study, "fewer parameters").status == judging.NOT_SUPPORTED


def timed_in_turn(ratio, pattern="(AAI)*3"):
    """A study of one seed in which only this pattern was timed."""
    study = made_up_study.without(made_up_study.results(), "timing")
    result = made_up_study.timing(pattern, (ratio - 0.4) / 0.6)
    about = {"error": None, "seconds": 60.0, "machine": "another", "status": "finished"}
    label = {"pattern": pattern, "seed": 1}
    cell = {"name": f"timing/{pattern}", "kind": "timing", "label": label, "result": result}
    study["cells"].append(cell | about)
    return study


@pytest.mark.parametrize(("ratio", "status"), [(0.9, "supported"), (1.1, "not supported")])
def test_steps_in_turn_judge_time_whatever_the_trainings_took(ratio, status):
    study = timed_in_turn(ratio)
    verdict = judged(study, "less training time")
    assert verdict.status == status and verdict.evidence[0].n == 30
    assert verdict.evidence[0].mean == pytest.approx(math.log(ratio), abs=1e-3)
    assert judged(study, "less training time", "A*6").status == judging.UNDERPOWERED  # Not timed.
    results = read_results(study)
    told = {f.subject: f.text for f in report.findings(results, "(AAI)*3")}
    median = re.search(r", ([0-9.]+)× the reference's .* of 30 rounds in turn", told["Time"])
    assert float(median[1]) == pytest.approx(ratio, abs=0.011)
    told = {f.subject: f.text for f in report.findings(results, "A*6")}
    assert told["Time"] == "Its steps were not timed."
    assert "in turn" in text_of(methods.section(results))
    assert "2 machines" in text_of(methods.limits(results))
    rounds = results.select("timing", "reference_milliseconds")
    assert len(rounds) == 30 and rounds.iloc[1]["value"] == pytest.approx(44)


def test_tables_show_the_times_of_steps_in_turn():
    study = timed_in_turn(0.8)
    raw = {
        c["result"]["pattern"]: c["result"] for c in study["cells"] if c["kind"] == "pretraining"
    }

    def time(name, pattern):
        return read_results(study).mean("pretraining", name, pattern=pattern)

    full = time("step_milliseconds", "(AI)*6")
    assert full == pytest.approx(98)  # 40 ms to four times as many.
    assert time("step_milliseconds", "(AAI)*3") / 98 == pytest.approx(0.8, abs=0.01)
    for pattern in ("(AI)*6", "(AAI)*3"):
        run = raw[pattern]
        slower = time("step_milliseconds", pattern) / run["step_milliseconds"]
        assert time("training_seconds", pattern) == pytest.approx(slower * run["training_seconds"])
        assert time("tokens_per_second", pattern) == pytest.approx(
            run["tokens_per_second"] / slower
        )
    assert time("step_milliseconds", "A*6") is None and time("parameters", "A*6")
    # A run that went on with no step left has timed none; what it took in all stays.
    raw["(AI)*6"].update(step_milliseconds=None, tokens_per_second=None)
    assert time("step_milliseconds", "(AI)*6") == full
    assert time("training_seconds", "(AI)*6") == raw["(AI)*6"]["training_seconds"]
    plain = read_results(made_up_study.without(study, "timing"))
    shown = plain.values("pretraining", "step_milliseconds", pattern="A*6")
    assert shown == [raw["A*6"]["step_milliseconds"]]  # One pattern alone has nothing beside it.


def test_a_single_round_is_no_sample():
    study = timed_in_turn(0.5)
    for cell in study["cells"]:
        if cell["kind"] == "timing":
            for name in ("milliseconds", "reference_milliseconds"):
                del cell["result"][name][1:]
    verdict = judged(study, "less training time")
    assert verdict.status == judging.UNDERPOWERED and "in turn: 1" in verdict.reason


def with_pairs(own, band):
    """A study whose CKA cells are pairs of the values given."""
    study = made_up_study.results(seeds=4)
    study["cells"] = [c for c in study["cells"] if c["kind"] != "cka"]
    for pattern, values in (("(AAI)*3", own), ("(AI)*6", band)):
        for seed, value in enumerate(values, 2):
            first, second = made_up_study.encoder("(AI)*6", 1), made_up_study.encoder(pattern, seed)
            result = {"kind": "cka", "first": first, "second": second, "reasons": {},
                      "first_taps": ["block_00/attention"], "second_taps": ["block_00/attention"],
                      "matrix": [[value]], "estimator": "", "examples": 9, "tokens": 9}  # fmt: skip
            label = {"first": first, "second": second}
            study["cells"].append({"name": f"{pattern}{seed}", "kind": "cka", "label": label,
                                   "status": "finished", "error": None, "seconds": 1.0,
                                   "machine": "", "result": result})  # fmt: skip
    return study


def test_similarity_is_set_beside_the_band_of_reference_seeds():
    band = [0.80, 0.82, 0.78]
    inside, below = with_pairs([0.80, 0.79], band), with_pairs([0.5, 0.52], band)
    assert judged(inside, "similar attention").status == judging.SUPPORTED
    assert judged(below, "similar attention").status == judging.NOT_SUPPORTED
    assert judged(with_pairs([0.8], band[:2]), "similar attention").status == judging.UNDERPOWERED


def test_a_failed_task_leaves_the_claim_open():
    study = made_up_study.fail(made_up_study.results(seeds=3), "finetuning/(AAI)*3")
    verdict = judged(study, "accuracy kept")
    assert verdict.status == judging.UNDERPOWERED
    assert "pairs of encoders: 0" in verdict.reason


def test_tables_show_every_claim_and_comparison():
    study = read_results(made_up_study.results(seeds=3))
    table, rules, evidence = verdict_tables.tables(study)
    declared = claims.declared(study)
    assert len(declared) == 6
    assert [row[0].text for row in table.rows] == [c.statement for c in declared]
    assert all(len(row) == len(table.columns) == 3 for row in table.rows)
    assert [row[1].text for row in rules.rows] == [c.name for c in declared]
    assert all(len(row) == len(evidence.columns) for row in evidence.rows)
    assert sum(row[0].text == "accuracy kept" for row in evidence.rows) == 2 * len(study.tasks)


LEARNT = {"language modelling kept", "similar attention", "accuracy kept", "probe accuracy kept"}
COUNTED = {"fewer parameters", "less training time"}


def test_no_verdict_where_the_reference_has_not_learnt():
    """What blank encoders are like says nothing about blocks; their size and speed stand."""
    losses = (5.737, 5.739, 5.738)
    results = made_up_study.results(seeds=3, losses=losses, neighbours=3.9)
    found = claims.verdicts(read_results(results))
    free = claims.verdicts(read_results(made_up_study.results(seeds=3, losses=losses)))
    assert set(found) == LEARNT | COUNTED
    for name in LEARNT:
        for pattern, verdict in found[name].items():
            assert verdict.status == judging.NO_VERDICT
            assert verdict.reason == (
                "the reference has not learnt: 3 of 3 encoders not below the neighbour model"
            )
            assert verdict.evidence == free[name][pattern].evidence  # It stays to be seen.
    for name in COUNTED:
        assert found[name] == free[name]


def test_a_pattern_that_did_not_learn_is_reported_as_that():
    losses = (3.6, 3.7, 3.9)
    results = made_up_study.results(seeds=2, losses=losses, neighbours=3.91)
    study = read_results(results)
    free = claims.verdicts(read_results(made_up_study.results(seeds=2, losses=losses)))
    found = claims.verdicts(study)
    for name in LEARNT:
        assert found[name]["A*6"].status == judging.DID_NOT_LEARN
        assert found[name]["A*6"].reason == "2 of 2 encoders not below the neighbour model"
        assert found[name]["(AAI)*3"] == free[name]["(AAI)*3"]
    lines = summary.summary_lines(results)
    accuracy = next(line for line in lines if line.startswith("accuracy kept"))
    assert accuracy.split()[-2:] == ["not", "learnt"]
    assert "not learnt: the reference has learnt from its context, the pattern not" in lines
    assert "neighbour model: 3.910 nats, the loss of a model that counts both neighbours" in lines
    table, *_ = verdict_tables.tables(study)
    page = next(row for row in table.rows if row[0].text == "The held-out loss rises by little.")
    assert (page[2].text, page[1].text) == (
        "did not learn",
        free["language modelling kept"]["(AAI)*3"].status,
    )


def test_in_a_budget_the_encoder_of_that_budget_must_have_learnt():
    """The same pattern may have learnt with the larger budget and not at equal steps."""
    view = {"steps": False, "flops": True}

    class Study:
        reference, size = "(AI)*6", ""

        def __init__(self, budget="steps"):
            self.budget = budget

        def seen_as(self, budget, size):
            return Study(budget)

        def values(self, kind, metric, pattern):
            return [float(pattern == self.reference or view[self.budget])]

    kept = judging.Verdict(judging.SUPPORTED, "kept")
    for budgets, status in (
        (("flops",), judging.SUPPORTED),
        (("steps", "flops"), judging.DID_NOT_LEARN),
        ((), judging.SUPPORTED),
    ):
        claim = judging.Claim("x", "", "", "", "", lambda *_: kept, budgets=budgets)
        assert claim.verdict(Study(), "A*6").status == status
