import csv
import io
import math
import re

import made_up_study
import pytest
from made_up_study import accuracies, shift

from undivided_tf.study import claims, findings, methods, record_files, summary, verdict_tables
from undivided_tf.study.judging import Scores
from undivided_tf.study.results import StudyResults


def judged(study, name, pattern="(AAI)*3"):
    return claims.verdicts(StudyResults(study))[name][pattern]


def test_one_encoder_a_pattern_is_underpowered():
    study = made_up_study.results(seeds=1)
    found = claims.verdicts(StudyResults(study))
    measured = (
        "language modelling kept", "accuracy kept", "similar attention", "probe accuracy kept",
    )  # fmt: skip
    assert {found[name]["A*6"].status for name in measured} == {claims.UNDERPOWERED}
    assert judged(study, "fewer parameters").status == claims.SUPPORTED


@pytest.mark.parametrize(
    ("accuracy", "status"),
    [(0.80, claims.SUPPORTED), (0.90, claims.SUPPORTED), (0.75, claims.NOT_SUPPORTED)],
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
    assert verdict.status == status and "0.05 nats of held-out loss" in verdict.reason
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
    assert verdict.status == claims.NOT_SUPPORTED
    assert "wiki_pair" in verdict.reason and "wiki_topic" not in verdict.reason


def scored(differences, full=0.8, constant=0.5):
    """Scores with these differences to a reference that is the same with every seed."""
    own = {seed: full + difference for seed, difference in enumerate(differences)}
    return Scores(own, dict.fromkeys(own, full), constant)


def test_noise_above_the_margin_is_underpowered():
    verdict = claims.not_worse({"task": scored([0.05, -0.06, 0.04, -0.05])}, 0.01, "accuracy")
    assert verdict.status == claims.UNDERPOWERED
    assert verdict.evidence[0].detectable > 0.05
    assert f"about {verdict.evidence[0].needed:,} pairs of this spread would" in verdict.reason
    assert verdict.evidence[0].needed > 100
    level = claims.not_worse({"task": scored([-0.009, -0.01, -0.011])}, 0.01, "accuracy")
    assert level.status == claims.UNDERPOWERED and level.evidence[0].needed <= 3
    assert "pairs" not in level.reason  # More of them help little: the loss is the margin.


def test_holm_makes_many_tasks_stricter_than_one():
    barely = [0.0, 0.004, -0.012, 0.003]
    alone = claims.not_worse({"a": scored(barely)}, 0.01, "accuracy").evidence[0].p_within
    three = dict.fromkeys("abc", scored(barely))
    among = claims.not_worse(three, 0.01, "accuracy").evidence[0].p_within
    assert among == pytest.approx(min(1, 3 * alone))


def test_a_task_that_nobody_learnt_supports_nothing():
    """An encoder that always gives the same answer lost nothing against another that does."""
    verdict = claims.not_worse({"task": scored([0.0] * 4, full=0.5)}, 0.01, "accuracy")
    assert verdict.status == claims.UNDERPOWERED
    assert "nothing can tell a loss of accuracy" in verdict.reason
    assert "constant answer by as much on task" in verdict.reason
    assert (verdict.evidence[0].p_within, verdict.evidence[0].p_blind) == (None, 1.0)


@pytest.mark.parametrize(
    ("learnt", "unlearnt", "status"),
    [(0.0, -0.2, claims.SUPPORTED), (-0.2, 0.0, claims.NOT_SUPPORTED)],
)
def test_tasks_that_were_learnt_decide_alone(learnt, unlearnt, status):
    noise = [0.0005, -0.0005, 0.001, -0.001]
    tasks = {
        "learnt": scored([learnt + x for x in noise]),
        "unlearnt": Scores(
            {i: 0.5 + unlearnt + x for i, x in enumerate(noise)},
            {i: 0.5 + 20 * x for i, x in enumerate(noise)},
            constant=0.5,
        ),
    }
    verdict = claims.not_worse(tasks, 0.01, "accuracy")
    assert verdict.status == status
    alone = claims.not_worse({"learnt": tasks["learnt"]}, 0.01, "accuracy")
    assert verdict.evidence[0] == alone.evidence[0]  # Holm counts those that decide.
    assert "by as much on unlearnt" in verdict.reason and " on learnt;" in verdict.reason


def test_a_reference_above_a_constant_answer_by_less_than_the_margin_has_nothing_to_lose():
    near = scored([0.0] * 4, full=0.505)
    assert claims.not_worse({"task": near}, 0.01, "accuracy").status == claims.UNDERPOWERED
    assert claims.not_worse({"task": near}, 0.001, "accuracy").status == claims.SUPPORTED


def test_a_pattern_with_more_parameters_is_no_saving():
    study = made_up_study.results()
    shift(study, "pretraining", "(AAI)*3", lambda r: r.update(parameters=10**9))
    assert judged(study, "fewer parameters").status == claims.NOT_SUPPORTED


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
    assert judged(study, "less training time", "A*6").status == claims.UNDERPOWERED  # Not timed.
    results = StudyResults(study)
    told = {f.matter: f.text for f in findings.findings(results, "(AAI)*3")}
    median = re.search(r", ([0-9.]+)× the reference's .* of 30 rounds in turn", told["Time"])
    assert float(median[1]) == pytest.approx(ratio, abs=0.011)
    told = {f.matter: f.text for f in findings.findings(results, "A*6")}
    assert told["Time"] == "Its steps were not timed."
    assert "in turn" in " ".join(stage.text for stage in methods.procedure(results))
    assert "2 machines" in " ".join(methods.limits(results))
    rows = list(csv.DictReader(io.StringIO(record_files.cells_csv(results))))
    rounds = [row for row in rows if row["kind"] == "timing"]
    assert len(rounds) == 60 and float(rounds[31]["value"]) == pytest.approx(44)


def test_tables_show_the_times_of_steps_in_turn():
    study = timed_in_turn(0.8)
    raw = {
        c["result"]["pattern"]: c["result"] for c in study["cells"] if c["kind"] == "pretraining"
    }
    results = StudyResults(study)
    [full], [own], [untimed] = map(results.pretraining, ("(AI)*6", "(AAI)*3", "A*6"))
    assert full["step_milliseconds"] == pytest.approx(98)  # 40 ms to four times as many.
    assert own["step_milliseconds"] / 98 == pytest.approx(0.8, abs=0.01)
    for found in (full, own):
        run = raw[found["pattern"]]
        slower = found["step_milliseconds"] / run["step_milliseconds"]
        assert found["training_seconds"] == pytest.approx(slower * run["training_seconds"])
        assert found["tokens_per_second"] == pytest.approx(run["tokens_per_second"] / slower)
    assert untimed["step_milliseconds"] is None and untimed["parameters"]
    # A run that went on with no step left has timed none; what it took in all stays.
    raw["(AI)*6"].update(step_milliseconds=None, tokens_per_second=None)
    [again] = results.pretraining("(AI)*6")
    assert again["step_milliseconds"] == full["step_milliseconds"]
    assert again["training_seconds"] == raw["(AI)*6"]["training_seconds"]
    plain = StudyResults(made_up_study.without(study, "timing"))
    assert plain.pretraining("A*6") == [raw["A*6"]]  # One pattern alone has nothing beside it.


def test_a_single_round_is_no_sample():
    study = timed_in_turn(0.5)
    for cell in study["cells"]:
        if cell["kind"] == "timing":
            for name in ("milliseconds", "reference_milliseconds"):
                del cell["result"][name][1:]
    verdict = judged(study, "less training time")
    assert verdict.status == claims.UNDERPOWERED and "in turn: 1" in verdict.reason


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
    assert judged(inside, "similar attention").status == claims.SUPPORTED
    assert judged(below, "similar attention").status == claims.NOT_SUPPORTED
    assert judged(with_pairs([0.8], band[:2]), "similar attention").status == claims.UNDERPOWERED


def test_a_failed_task_leaves_the_claim_open():
    study = made_up_study.fail(made_up_study.results(seeds=3), "finetuning/(AAI)*3")
    verdict = judged(study, "accuracy kept")
    assert verdict.status == claims.UNDERPOWERED
    assert "pairs of encoders: 0" in verdict.reason


def test_tables_show_every_claim_and_comparison():
    study = StudyResults(made_up_study.results(seeds=3))
    table = verdict_tables.verdicts(study)
    assert [row[0].text for row in table.rows] == [c.statement for c in claims.CLAIMS]
    assert all(len(row) == len(table.columns) == 3 for row in table.rows)
    assert [row[1].text for row in verdict_tables.rules(study).rows] == [
        c.name for c in claims.CLAIMS
    ]
    evidence = verdict_tables.evidence(study)
    assert all(len(row) == len(evidence.columns) for row in evidence.rows)
    assert sum(row[0].text == "accuracy kept" for row in evidence.rows) == 2 * len(study.tasks)


LEARNT = {"language modelling kept", "similar attention", "accuracy kept", "probe accuracy kept"}
COUNTED = {"fewer parameters", "less training time"}


def test_no_verdict_where_the_reference_has_not_learnt():
    """What blank encoders are like says nothing about blocks; their size and speed stand."""
    losses = (5.737, 5.739, 5.738)
    results = made_up_study.results(seeds=3, losses=losses, neighbours=3.9)
    found = claims.verdicts(StudyResults(results))
    free = claims.verdicts(StudyResults(made_up_study.results(seeds=3, losses=losses)))
    assert set(found) == LEARNT | COUNTED
    for name in LEARNT:
        for pattern, verdict in found[name].items():
            assert verdict.status == claims.NO_VERDICT
            assert verdict.reason == (
                "the reference has not learnt: 3 of 3 encoders not below the neighbour model"
            )
            assert verdict.evidence == free[name][pattern].evidence  # It stays to be seen.
    for name in COUNTED:
        assert found[name] == free[name]


def test_a_pattern_that_did_not_learn_is_reported_as_that():
    losses = (3.6, 3.7, 3.9)
    results = made_up_study.results(seeds=2, losses=losses, neighbours=3.91)
    study = StudyResults(results)
    free = claims.verdicts(StudyResults(made_up_study.results(seeds=2, losses=losses)))
    found = claims.verdicts(study)
    for name in LEARNT:
        assert found[name]["A*6"].status == claims.DID_NOT_LEARN
        assert found[name]["A*6"].reason == "2 of 2 encoders not below the neighbour model"
        assert found[name]["(AAI)*3"] == free[name]["(AAI)*3"]
    lines = summary.summary_lines(results)
    accuracy = next(line for line in lines if line.startswith("accuracy kept"))
    assert accuracy.split()[-2:] == ["not", "learnt"]
    assert "not learnt: the reference has learnt from its context, the pattern not" in lines
    assert "neighbour model: 3.910 nats, the loss of a model that counts both neighbours" in lines
    page = verdict_tables.verdicts(study).rows[0]
    assert (page[2].text, page[1].text) == (
        "did not learn",
        free["language modelling kept"]["(AAI)*3"].status,
    )


def test_in_a_frame_the_encoder_of_that_frame_must_have_learnt():
    """The same pattern may have learnt with the larger budget and not at equal steps."""
    view = {"steps": False, "flops": True}

    class Study:
        reference, frame = "(AI)*6", "steps"

        def __init__(self, frame="steps"):
            self.frame = frame

        def in_frame(self, frame):
            return Study(frame)

        def pretraining(self, pattern):
            return [{"learnt": pattern == self.reference or view[self.frame]}]

    kept = claims.Verdict(claims.SUPPORTED, "kept")
    for frames, status in (
        (("flops",), claims.SUPPORTED),
        (("steps", "flops"), claims.DID_NOT_LEARN),
        ((), claims.SUPPORTED),
    ):
        claim = claims.Claim("x", "", "", "", "", lambda *_: kept, frames=frames)
        assert claim.verdict(Study(), "A*6").status == status
