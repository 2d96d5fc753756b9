"""How good detections are against annotations: COCO's measures, and precision, recall and F1.

pycocotools matches boxes to annotations and averages, as COCO's own evaluation. F1 = 2PR/(P+R) is
not one number until P and R are said, so two definitions are given, each by its name:

``coco``
    P is AP@[.50:.95], R is AR@[.50:.95] with 100 detections an image. Needs no choice of a
    confidence, but neither is a precision or recall that a user of the detector would see.
``operating-point``
    P and R of all boxes above one confidence, all categories counted together, a box being right
    when its overlap (IoU) with an annotation of its category is at least 0.5. The confidence is
    given, or the one where F1 is highest on these very images, which flatters a little.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from coco_data import Detection, Truth

from ipa_energy.errors import ConfigError, UnavailableError

Floats = npt.NDArray[np.float64]

AT_50, AT_75 = 0, 5
"""Indices of IoU 0.50 and 0.75 in COCO's ten thresholds."""


@dataclass(frozen=True, slots=True)
class F1:
    """Precision, recall and their harmonic mean.

    Attributes:
        precision, recall, f1: ratios.
        confidence: boxes with at least this score count; None where none is chosen.
    """

    precision: float
    recall: float
    f1: float
    confidence: float | None


@dataclass(frozen=True, slots=True)
class CategoryScore:
    """One category: how many annotations it has, AP@.5, AP@[.5:.95], AR@[.5:.95]."""

    category: str
    annotations: int
    map_50: float
    map_50_95: float
    recall_50_95: float


@dataclass(frozen=True, slots=True)
class Scores:
    """What an evaluation found; ratios, and counts of what is behind them.

    Attributes:
        images, annotations, detections: how many (annotations without crowds).
        map_50, map_75, map_50_95: mean average precision over categories.
        recall_50_95: average recall with at most 100 detections an image.
        coco, operating_point: F1 by the two definitions above.
        categories: one entry for each category with annotations.
    """

    images: int
    annotations: int
    detections: int
    map_50: float
    map_75: float
    map_50_95: float
    recall_50_95: float
    coco: F1
    operating_point: F1
    categories: tuple[CategoryScore, ...]

    def to_json(self, *, per_category: bool) -> dict[str, Any]:
        """The scores as JSON, with or without the table of categories."""
        document = asdict(self)
        definitions = {"coco": "coco", "operating-point": "operating_point"}
        document["f1"] = {name: document.pop(key) for name, key in definitions.items()}
        if not per_category:
            del document["categories"]
        return document


def score(
    truth: Truth, detections: Sequence[Detection], *, confidence: float | None = None
) -> Scores:
    """Evaluate detections on every image of ``truth``; those of other images are left out.

    Args:
        truth: the annotations.
        detections: in any order.
        confidence: of the operating point; None for the one with the highest F1.

    Raises:
        ConfigError: no image has an annotation.
        UnavailableError: pycocotools is not installed.
    """
    counts = _annotations_by_category(truth)
    if not counts:
        raise ConfigError(
            f"{len(truth.pictures)} images without annotations: nothing to find in them",
            where=truth.name,
        )
    found = [detection for detection in detections if detection.image_id in truth.pictures]
    evaluation = _evaluate(truth, found)
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    # precision: IoU × recall level × category × area × most detections; recall lacks the second.
    precision, recall = precision[:, :, :, 0, -1], recall[:, :, 0, -1]
    average_precision, average_recall = _mean(precision), _mean(recall)
    return Scores(
        images=len(truth.pictures),
        annotations=sum(counts.values()),
        detections=len(found),
        map_50=_mean(precision[AT_50]),
        map_75=_mean(precision[AT_75]),
        map_50_95=average_precision,
        recall_50_95=average_recall,
        coco=F1(average_precision, average_recall, f1(average_precision, average_recall), None),
        operating_point=_operating_point(evaluation, confidence),
        categories=tuple(
            CategoryScore(
                category=truth.categories[number] or str(number),
                annotations=counts[number],
                map_50=_mean(precision[AT_50, :, index]),
                map_50_95=_mean(precision[:, :, index]),
                recall_50_95=_mean(recall[:, index]),
            )
            for index, number in enumerate(evaluation.params.catIds)
            if counts.get(number)
        ),
    )


def f1(precision: float, recall: float) -> float:
    """2PR/(P+R); 0 where nothing was found or nothing was right."""
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _evaluate(truth: Truth, detections: Sequence[Detection]) -> Any:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise UnavailableError(
            f"evaluating needs {error.name}; fix: pip install ipa-energy[accuracy]"
        ) from error
    found = [
        {
            **detection.to_json(),
            "id": number,
            "area": detection.box[2] * detection.box[3],
            "iscrowd": 0,
        }
        for number, detection in enumerate(detections, 1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        sets = []
        for boxes in (truth.boxes, found):
            data = COCO()
            data.dataset = {
                "images": [{"id": number} for number in truth.pictures],
                "categories": [{"id": number} for number in truth.categories],
                "annotations": [dict(box) for box in boxes],
            }
            data.createIndex()
            sets.append(data)
        evaluation = COCOeval(*sets, iouType="bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _operating_point(evaluation: Any, confidence: float | None) -> F1:
    """P and R of all categories together at IoU 0.5."""
    everything = evaluation.params.areaRng[0]
    scores, right, annotations = [], [], 0
    for image in evaluation.evalImgs:
        if image is None or image["aRng"] != everything:
            continue
        annotations += int(np.sum(np.asarray(image["gtIgnore"]) == 0))
        counted = ~np.asarray(image["dtIgnore"][AT_50], dtype=bool)
        scores.append(np.asarray(image["dtScores"], dtype=float)[counted])
        right.append(np.asarray(image["dtMatches"][AT_50])[counted] > 0)
    ordered, correct = _sorted(scores, right)
    if not len(ordered):
        return F1(0.0, 0.0, 0.0, confidence)
    precision = np.cumsum(correct) / np.arange(1, len(correct) + 1)
    recall = np.cumsum(correct) / annotations
    if confidence is None:
        # Boxes of one score come in together, so only the last of them is a possible end.
        ends = np.flatnonzero(np.append(ordered[:-1] != ordered[1:], True))
        values = [f1(precision[end], recall[end]) for end in ends]
        end = int(ends[int(np.argmax(values))])
    else:
        end = int(np.sum(ordered >= confidence)) - 1
    if end < 0:
        return F1(0.0, 0.0, 0.0, confidence)
    point = (float(precision[end]), float(recall[end]))
    return F1(*point, f1(*point), float(ordered[end]) if confidence is None else confidence)


def _sorted(scores: list[Floats], right: list[npt.NDArray[np.bool_]]) -> tuple[Floats, Floats]:
    """Every counted detection, best first: its score, and 1 if it is right."""
    if not scores:
        return np.zeros(0), np.zeros(0)
    every, correct = np.concatenate(scores), np.concatenate(right).astype(float)
    order = np.argsort(-every, kind="stable")
    return every[order], correct[order]


def _mean(values: Floats) -> float:
    """Mean of what exists: COCO writes −1 where a category has no annotations."""
    kept = values[values > -1]
    return float(kept.mean()) if kept.size else 0.0


def _annotations_by_category(truth: Truth) -> dict[int, int]:
    counts: dict[int, int] = {}
    for box in truth.boxes:
        if not box["iscrowd"]:
            counts[box["category_id"]] = counts.get(box["category_id"], 0) + 1
    return counts
