from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, confusion_matrix

from attnpool.evaluation.metrics import average_precision, calibration_error, confusion, score

# Few distinct scores, so that ties are common.
RANKINGS = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40)
WITH_POSITIVES = RANKINGS.filter(lambda rows: any(positive for _, positive in rows))


def columns(rows: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([r[0] for r in rows]) / 7, np.array([r[1] for r in rows])


def points(rows: list[tuple[int, bool]]) -> list[tuple[Fraction, Fraction]]:
    """(recall, precision) at every threshold, in exact arithmetic, straight from the definition."""
    total = sum(positive for _, positive in rows)
    curve = []
    for threshold in sorted({s for s, _ in rows}, reverse=True):
        kept = [positive for s, positive in rows if s >= threshold]
        curve.append((Fraction(sum(kept), total), Fraction(sum(kept), len(kept))))
    return curve


def voc2007(rows: list[tuple[int, bool]]) -> Fraction:
    """The VOC devkit: for t = 0:0.1:1, p = max(prec(rec >= t)), ap = ap + p / 11."""
    curve = points(rows)
    return sum((max(p for r, p in curve if r >= Fraction(t, 10)) for t in range(11)), Fraction(0)) / 11


def voc2010(rows: list[tuple[int, bool]]) -> Fraction:
    """The VOC devkit: mrec = [0; rec; 1], mpre = [0; prec; 0], mpre(i) = max(mpre(i), mpre(i+1)), area of the steps."""
    curve = points(rows)
    recall = [Fraction(0), *(r for r, _ in curve), Fraction(1)]
    precision = [Fraction(0), *(p for _, p in curve), Fraction(0)]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    return sum(
        ((recall[i] - recall[i - 1]) * precision[i] for i in range(1, len(recall)) if recall[i] != recall[i - 1]),
        Fraction(0),
    )


@given(WITH_POSITIVES)
def test_voc_definitions(rows: list[tuple[int, bool]]) -> None:
    assert average_precision(*columns(rows), "voc07") == pytest.approx(float(voc2007(rows)), abs=1e-12)
    assert average_precision(*columns(rows), "voc10") == pytest.approx(float(voc2010(rows)), abs=1e-12)


@given(WITH_POSITIVES)
def test_sklearn_definition(rows: list[tuple[int, bool]]) -> None:
    scores, positives = columns(rows)
    ours = average_precision(scores, positives, "sklearn")
    assert ours == pytest.approx(average_precision_score(positives, scores), abs=1e-12)
    assert average_precision(scores, positives, "voc10") >= ours - 1e-12


@given(WITH_POSITIVES, st.randoms(use_true_random=False))
def test_the_order_of_images_and_any_rising_function_change_nothing(rows: list, random) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    for kind in ("voc10", "voc07", "sklearn"):
        scores, positives = columns(shuffled)
        assert average_precision(np.exp(3 * scores), positives, kind) == average_precision(*columns(rows), kind)


def test_extremes() -> None:
    for kind in ("voc10", "voc07", "sklearn"):
        perfect = average_precision(np.arange(40), np.arange(40) >= 23, kind)
        assert perfect == 1
        assert math.isnan(average_precision(np.arange(3), np.zeros(3, bool), kind))
        assert average_precision(np.zeros(8), np.arange(8) < 2, kind) == 0.25
        assert average_precision(np.array([np.inf, -np.inf, 0]), np.array([1, 0, 0]), kind) == 1


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="NaN"):
        average_precision(np.array([0.1, np.nan]), np.array([1, 0]))
    with pytest.raises(ValueError, match="voc10, voc07, sklearn"):
        average_precision(np.zeros(2), np.ones(2), "coco")
    with pytest.raises(ValueError, match="one length"):
        average_precision(np.zeros(3), np.ones(2))
    with pytest.raises(ValueError, match="one column a class"):
        score(np.zeros((3, 2)), np.zeros((3, 2)), ["a", "b", "c"], "multi")
    with pytest.raises(ValueError, match="one shape"):
        score(np.zeros((3, 2)), np.zeros((3, 2)), ["a", "b"], "multi", np.zeros((3, 1)))
    with pytest.raises(ValueError, match="exactly one class"):
        score(np.zeros((3, 2)), np.zeros((3, 2)), ["a", "b"], "single")
    with pytest.raises(ValueError, match="the same 2 classes"):
        confusion(np.zeros((3, 2)), np.array([0, 1, 2]), 2)


@given(st.integers(0, 10_000), st.integers(2, 5), st.booleans())
def test_score_against_scikit_learn(seed: int, k: int, ties: bool) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, k, 30)
    scores = random.integers(0, 4, (30, k)) / 3 if ties else random.random((30, k))
    targets = labels[:, None] == np.arange(k)
    classes = [f"class {i}" for i in range(k)]
    result = score(scores, targets, classes, "single")

    present = [i for i in range(k) if targets[:, i].any()]
    theirs = [average_precision_score(targets[:, i], scores[:, i]) for i in present]
    assert result.mAP_sklearn == pytest.approx(np.mean(theirs))
    assert result.classes_scored == len(present)
    assert [row["positives"] for row in result.per_class] == targets.sum(0).tolist()

    counts = confusion(scores, labels, k)
    assert counts.sum(1).tolist() == targets.sum(0).tolist()
    assert np.trace(counts) / 30 == pytest.approx(result.accuracy)
    if not ties:
        assert result.accuracy == pytest.approx(accuracy_score(labels, scores.argmax(1)))
        np.testing.assert_array_equal(counts, confusion_matrix(labels, scores.argmax(1), labels=range(k)))

    swap = random.permutation(k)
    assert score(scores[:, swap], targets[:, swap], classes, "single").accuracy == result.accuracy


@st.composite
def hico_labels(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, and labels 1, -1, 0 (ambiguous) and NaN (unknown); some classes lack positives."""
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    n, k = draw(st.integers(1, 30)), draw(st.integers(1, 4))
    chances = random.dirichlet([0.5, 1, 0.5, 1])
    labels = random.choice([1, -1, 0, np.nan], (n, k), p=chances)
    return random.integers(0, 8, (n, k)) / 8 if draw(st.booleans()) else random.random((n, k)), labels


def by_class(scores: np.ndarray, labels: np.ndarray, setting: str) -> list[float | None]:
    """HICO's two settings as they are described, one class at a time: 11-point AP, or `None` without positives."""
    found: list[float | None] = []
    for column, anno in zip(scores.T, labels.T, strict=True):
        pairs = [(s, a) for s, a in zip(column, anno, strict=True) if a != 0]  # the ambiguous are left out
        if setting == "known object":  # images without the object go to the back
            pairs = [(-1.0 if np.isnan(a) else s, a) for s, a in pairs]
        rows = [(s, a == 1) for s, a in pairs]  # NaN is a negative
        found.append(float(voc2007(rows)) if any(positive for _, positive in rows) else None)
    return found


@given(hico_labels())
def test_hico_settings_against_a_transcription(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = case
    classes = [f"class {k}" for k in range(labels.shape[1])]
    # Here the unknown images are left out instead, which is the same: they stand behind every positive.
    counted = {"default": labels != 0, "known object": np.abs(labels) == 1}
    for setting, mask in counted.items():
        ours = score(scores, labels == 1, classes, "multi", mask)
        theirs = by_class(scores, labels, setting)
        assert [row["AP_voc07"] for row in ours.per_class] == [
            None if ap is None else pytest.approx(ap, abs=1e-12) for ap in theirs
        ]
        present = [ap for ap in theirs if ap is not None]
        assert ours.classes_scored == len(present)
        assert ours.mAP_voc07 == pytest.approx(np.mean(present), abs=1e-12) if present else math.isnan(ours.mAP_voc07)
        assert [row["images"] for row in ours.per_class] == mask.sum(0).tolist()
        for k, row in enumerate(ours.per_class):
            if row["positives"]:
                own = average_precision_score(labels[mask[:, k], k] == 1, scores[mask[:, k], k])
                assert row["AP_sklearn"] == pytest.approx(own, abs=1e-12)


@given(hico_labels())
def test_images_that_show_no_object_may_stand_at_the_back_or_stay_away(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = case
    positives = labels[:, 0] == 1
    shows = np.abs(labels[:, 0]) == 1
    back = np.where(shows, scores[:, 0], -np.inf)
    for kind in ("voc07", "voc10", "sklearn"):
        away = average_precision(scores[shows, 0], positives[shows], kind)
        assert average_precision(back, positives, kind) == pytest.approx(away, abs=1e-12, nan_ok=True)


def test_what_does_not_count_changes_nothing() -> None:
    random = np.random.default_rng(0)
    scores, targets, counted = random.random((40, 3)), random.random((40, 3)) > 0.5, random.random((40, 3)) > 0.3
    other = np.where(counted, scores, 5.0), np.where(counted, targets, ~targets)
    classes = ["a", "b", "c"]
    assert score(scores, targets, classes, "multi", counted) == score(*other, classes, "multi", counted)
    whole = score(scores, targets, classes, "multi", np.ones((40, 3), bool))
    assert whole == score(scores, targets, classes, "multi")
    assert whole != score(scores, targets, classes, "multi", counted)


def test_a_network_that_says_the_same_everywhere_is_never_right() -> None:
    targets = np.eye(3, dtype=bool)[[0, 0, 1, 2]]
    assert score(np.full((4, 3), 1 / 3), targets, list("abc")).accuracy == 0
    assert score(np.zeros((4, 1)), np.ones((4, 1), bool), ["only"]).accuracy == 1


def test_json_has_no_nan() -> None:
    result = score(np.array([[0.9, 0.1], [0.8, 0.3]]), np.array([[1, 0], [1, 0]]), ["seen", "unseen"], "multi")
    value = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert value["mAP"] == 1
    assert value["accuracy"] is None
    assert value["classes_scored"] == 1
    assert value["images"] == 2
    assert value["per_class"][1] == {
        "class": "unseen", "AP": None, "AP_voc07": None, "AP_sklearn": None, "positives": 0, "images": 2,
    }  # fmt: skip
    nothing = score(np.zeros((0, 2)), np.zeros((0, 2)), ["a", "b"], "single").to_json()
    assert nothing["mAP"] is None
    assert nothing["accuracy"] is None
    assert confusion(np.zeros((0, 2)), np.zeros(0), 2).sum() == 0


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.88, 0.12], [0.4, 0.6], [0.5, 0.5]])
    targets = np.array([[1, 0], [0, 1], [0, 1], [0, 0]], bool)
    # Bins of a fifth: 0.9 and 0.88 are in one, half right; 0.6 in another, right; the last image has no label.
    assert calibration_error(probabilities, targets, bins=5) == pytest.approx((0.78 + 0.4) / 3)


def test_calibration_error_of_several_labels() -> None:
    probabilities = np.array([[0.9, 0.2], [0.7, 0.0]])
    targets = np.array([[1, 0], [0, 0]], bool)
    assert calibration_error(probabilities, targets, task="multi", bins=10) == pytest.approx((0.1 + 0.2 + 0.7) / 4)
    counted = np.array([[1, 0], [0, 1]], bool)
    assert calibration_error(probabilities, targets, counted, "multi", 10) == pytest.approx(0.05)
    assert math.isnan(calibration_error(probabilities, targets, ~np.ones((2, 2), bool), "multi"))


@given(st.integers(1, 10**6), st.integers(1, 30))
def test_probabilities_that_are_right_as_often_as_they_say_are_calibrated(seed: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    targets = rng.random((40, 3)) < 0.5
    share = np.full(targets.shape, targets.mean())
    assert calibration_error(share, targets, task="multi", bins=bins) == pytest.approx(0, abs=1e-12)
