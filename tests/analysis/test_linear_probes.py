import numpy as np
import pytest

from undivided_tf.analysis import linear_probes
from undivided_tf.errors import InputError


def blobs(rng, rows, classes, features, spread=1.0):
    centres = np.random.default_rng(99).normal(size=(classes, features))
    labels = rng.integers(0, classes, rows)
    return (centres[labels] + spread * rng.normal(size=(rows, features))).astype("f"), labels


def test_a_probe_learns_linear_classes_but_not_exclusive_or():
    rng = np.random.default_rng(0)
    train, test = (blobs(rng, rows, 3, 6, 0.3) for rows in (300, 300))
    accuracy, converged = linear_probes.linear_probe(*train, *test, num_labels=3, inverse_l2=1.0)
    assert accuracy > 0.95 and converged
    signs = rng.choice([-1.0, 1.0], (600, 2))
    exclusive_or = (signs[:, 0] * signs[:, 1] > 0).astype(int)
    accuracy, _ = linear_probes.linear_probe(
        signs[:300], exclusive_or[:300], signs[300:], exclusive_or[300:],
        num_labels=2, inverse_l2=1.0,
    )  # fmt: skip
    assert accuracy < 0.65


def test_scale_of_the_activations_does_not_matter():
    rng = np.random.default_rng(1)
    (x, labels), (test_x, test_labels) = (blobs(rng, rows, 4, 5) for rows in (200, 200))
    scale = np.geomspace(1e-3, 1e3, 5)
    plain, scaled = (
        linear_probes.linear_probe(
            x * s, labels, test_x * s, test_labels, num_labels=4, inverse_l2=1.0
        )[0]
        for s in (1.0, scale)
    )
    assert plain == pytest.approx(scaled, abs=0.011)


def test_the_test_split_does_not_enter_the_standardisation():
    rng = np.random.default_rng(2)
    (x, labels), (test_x, test_labels) = (blobs(rng, rows, 3, 6, 0.3) for rows in (200, 40))
    outlier = np.concatenate([test_x, np.full((1, 6), 1e6, "f")])
    options = {"num_labels": 3, "inverse_l2": 1.0}
    alone, _ = linear_probes.linear_probe(x, labels, test_x, test_labels, **options)
    beside, _ = linear_probes.linear_probe(x, labels, outlier, [*test_labels, 0], **options)
    assert abs(beside * 41 - alone * 40) <= 1.001  # The outlier changes only its own prediction.


def test_a_solver_that_stops_early_is_reported(monkeypatch):
    rng = np.random.default_rng(3)
    data = (*blobs(rng, 100, 5, 8), *blobs(rng, 100, 5, 8))
    monkeypatch.setattr(linear_probes, "MAX_ITERATIONS", 2)
    assert linear_probes.linear_probe(*data, num_labels=5, inverse_l2=1e4)[1] is False


def test_one_class_cannot_be_probed():
    x = np.eye(4)
    with pytest.raises(InputError, match="two classes"):
        linear_probes.linear_probe(
            x, np.zeros(4, int), x, np.zeros(4, int), num_labels=2, inverse_l2=1
        )


def test_the_penalty_is_the_best_on_validation_and_of_equals_the_strongest():
    rng = np.random.default_rng(0)
    (x, labels), (other, others) = (blobs(rng, rows, 3, 40, 2.0) for rows in (60, 400))
    choices = (1e-4, 1e-2, 1.0, 1e3)
    scores = {
        c: linear_probes.linear_probe(x, labels, other, others, num_labels=3, inverse_l2=c)[0]
        for c in choices
    }
    chosen, model, _ = linear_probes.fit_best(x, labels, other, others, choices)
    assert np.mean(model.predict(other) == others) == pytest.approx(scores[chosen], abs=0.003)
    assert scores[chosen] == max(scores.values()) and chosen < 1e3
    easy = np.eye(3)[labels]
    found, *_ = linear_probes.fit_best(easy, labels, np.eye(3)[others], others, (1.0, 0.1, 10.0))
    assert found == 0.1
    assert linear_probes.fit_best(x, labels, None, None, (3.0,))[0] == 3.0


def test_each_type_has_one_control_label_with_the_frequencies_of_the_task():
    types = [f"word{i}" for i in range(4000)] * 2
    labels = np.array([0] * 6000 + [1] * 2000)
    control = linear_probes.ControlTask.draw(types, labels, seed=1)
    drawn, places = control.labels_of(types)
    assert np.array_equal(drawn[:4000], drawn[4000:]) and len(places) == 8000
    assert np.mean(drawn) == pytest.approx(0.25, abs=0.03)
    drawn, places = control.labels_of(["word7", "never", "word7"])
    assert places.tolist() == [0, 2] and drawn[0] == drawn[1]
    again = linear_probes.ControlTask.draw(types, labels, seed=1)
    assert again == control != linear_probes.ControlTask.draw(types, labels, seed=2)


def test_selectivity_is_low_for_memorised_types_and_high_for_general_features():
    # Types as one-hot vectors can be memorised; features that carry the class only cannot.
    rng = np.random.default_rng(2)
    types = rng.integers(0, 50, 2000)
    labels = types % 2
    control = linear_probes.ControlTask.draw([str(t) for t in range(50)], labels, 0)
    random, _ = control.labels_of([str(t) for t in types])
    accuracies = {}
    for name, x in (("memory", np.eye(50)[types]), ("class", np.eye(2)[labels])):
        for task, target in (("task", labels), ("control", random)):
            accuracies[name, task], _ = linear_probes.linear_probe(
                x[:1000], target[:1000], x[1000:], target[1000:], num_labels=2, inverse_l2=10.0
            )
    assert accuracies["memory", "task"] - accuracies["memory", "control"] < 0.02
    assert accuracies["class", "task"] - accuracies["class", "control"] > 0.2


def test_codelength_is_the_sum_of_the_portions():
    rng = np.random.default_rng(3)
    x, labels = blobs(rng, 500, 4, 6)
    found = linear_probes.online_codelength(x, labels, 4, 1.0)
    ends = [2, 4, 8, 16, 31, 62, 125, 250, 500]
    bits = 2 * 2.0
    for start, stop in zip(ends, ends[1:], strict=False):
        if len(set(labels[:start])) == 1:
            bits += 2.0 * (stop - start)
            continue
        model, _ = linear_probes.fit(x[:start], labels[:start], 1.0)
        for row, label in zip(x[start:stop], labels[start:stop], strict=True):
            probability = dict(
                zip(model.classes_, model.predict_proba(row[None].astype("d"))[0], strict=True)
            )
            bits -= np.log2((start * probability.get(label, 0) + 0.25) / (start + 1))
    assert found["codelength"] == pytest.approx(bits, rel=1e-6)
    assert found["uniform_codelength"] == 1000
    assert found["compression"] == pytest.approx(1000 / bits)
    shuffled = linear_probes.online_codelength(x, rng.permutation(labels), 4, 0.01)
    assert shuffled["compression"] < 1.05 < found["compression"]


def test_the_scalar_mix_finds_the_tap_that_holds_the_answer():
    rng = np.random.default_rng(4)
    (x, labels), (other, others) = (blobs(rng, rows, 3, 6, 0.5) for rows in (300, 300))
    noise = [rng.normal(size=(2, 300, 6)) for _ in range(3)]
    train = [noise[0][0], x, noise[1][0], noise[2][0]]
    test = [noise[0][1], other, noise[1][1], noise[2][1]]
    found = linear_probes.scalar_mix(train, labels, test, others, num_labels=3, inverse_l2=1.0)
    assert np.argmax(found["weights"]) == 1 and sum(found["weights"]) == pytest.approx(1)
    centre = found["weights"] @ np.arange(4)
    assert found["centre_of_gravity"] == pytest.approx(centre)
    assert found["accuracy"] > 0.85


def test_the_scalar_mix_of_one_tap_is_the_linear_probe():
    rng = np.random.default_rng(5)
    (x, labels), (other, others) = (blobs(rng, rows, 3, 6, 1.5) for rows in (200, 500))
    options = {"num_labels": 3, "inverse_l2": 0.1}
    found = linear_probes.scalar_mix([x], labels, [other], others, **options)
    expected, _ = linear_probes.linear_probe(x, labels, other, others, **options)
    assert found["weights"] == [1] and found["accuracy"] == pytest.approx(expected, abs=0.004)
