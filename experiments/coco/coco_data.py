"""COCO's two JSON files, read strictly: annotations (what is there), detections (what was found).

pycocotools takes whatever it is given and fails deep inside, or worse, does not fail; a box in the
wrong form is a wrong accuracy. So the files are checked here, with the key at fault.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipa_energy.config.source import read_text, shown
from ipa_energy.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of a data set: file name and size in pixels (None if the file does not say)."""

    file_name: str
    width: int | None
    height: int | None


@dataclass(frozen=True, slots=True)
class Truth:
    """A data set's annotations.

    Attributes:
        name: of the file, for reports.
        pictures: image id → image.
        categories: category id → name; None where the file gives none.
        boxes: annotations as pycocotools takes them.
    """

    name: str
    pictures: Mapping[int, Picture]
    categories: Mapping[int, str | None]
    boxes: list[dict[str, Any]]

    def only(self, image_ids: Collection[int]) -> Truth:
        """The same of a part of the images."""
        return Truth(
            self.name,
            {number: picture for number, picture in self.pictures.items() if number in image_ids},
            self.categories,
            [box for box in self.boxes if box["image_id"] in image_ids],
        )


@dataclass(frozen=True, slots=True)
class Detection:
    """One box found: x, y, width, height in pixels of the image, and a score of 0..1."""

    image_id: int
    category_id: int
    box: tuple[float, float, float, float]
    score: float

    def to_json(self) -> dict[str, Any]:
        """The entry of a COCO results file."""
        return {
            "image_id": self.image_id,
            "category_id": self.category_id,
            "bbox": list(self.box),
            "score": self.score,
        }


def read_truth(path: Path) -> Truth:
    """A COCO annotation file (``instances_*.json``).

    Raises:
        ConfigError: it is no such file, an id is repeated or unknown, or a box is impossible.
    """
    document = _read_json(path)
    if not isinstance(document, dict):
        raise ConfigError("no mapping", where=path, allowed="images, annotations, categories")
    pictures: dict[int, Picture] = {}
    for key, item in _items(document, "images", path):
        pictures[_new_id(item, key, pictures, path)] = Picture(
            file_name=_text(item, "file_name", key, path) or "",
            width=item.get("width"),
            height=item.get("height"),
        )
    categories: dict[int, str | None] = {}
    for key, item in _items(document, "categories", path):
        categories[_new_id(item, key, categories, path)] = _text(item, "name", key, path)
    boxes = []
    for number, (key, item) in enumerate(_items(document, "annotations", path), 1):
        box = _box(item, key, path)
        boxes.append(
            {
                "id": number,
                "image_id": _known(item, "image_id", key, pictures, path),
                "category_id": _known(item, "category_id", key, categories, path),
                "bbox": list(box),
                "area": item.get("area", box[2] * box[3]),
                "iscrowd": int(bool(item.get("iscrowd", 0))),
            }
        )
    if not boxes:
        raise ConfigError("no annotations: there is nothing to find", where=path)
    return Truth(path.name, pictures, categories, boxes)


def read_detections(path: Path, truth: Truth) -> list[Detection]:
    """A COCO results file: a list of ``{image_id, category_id, bbox, score}``.

    Raises:
        ConfigError: it is no such list, or names images or categories the annotations lack.
    """
    document = _read_json(path)
    if not isinstance(document, list):
        raise ConfigError("no list", where=path, allowed="a COCO results file")
    found = []
    for key, item in _items({"": document}, "", path):
        score = item.get("score")
        if score is None or not _is_number(score) or not math.isfinite(score):
            raise ConfigError(f"{key}.score is {shown(score)}", where=path, allowed="a number")
        found.append(
            Detection(
                image_id=_known(item, "image_id", key, truth.pictures, path),
                category_id=_known(item, "category_id", key, truth.categories, path),
                box=_box(item, key, path),
                score=float(score),
            )
        )
    return found


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}", where=path) from error


def _items(document: Mapping[str, Any], name: str, path: Path) -> list[tuple[str, dict[str, Any]]]:
    """(key for messages, item) of a list of mappings."""
    values = document.get(name)
    if not isinstance(values, list):
        raise ConfigError(f"{name} is {shown(values)}", where=path, allowed="a list")
    items = []
    for index, value in enumerate(values):
        key = f"{name}[{index}]"
        if not isinstance(value, dict):
            raise ConfigError(f"{key} is {shown(value)}", where=path, allowed="a mapping")
        items.append((key, value))
    return items


def _new_id(item: Mapping[str, Any], key: str, known: Collection[int], path: Path) -> int:
    number = item.get("id")
    if not isinstance(number, int) or isinstance(number, bool):
        raise ConfigError(f"{key}.id is {shown(number)}", where=path, allowed="an integer")
    if number in known:
        raise ConfigError(f"{key}.id {number} is repeated", where=path)
    return number


def _known(item: Mapping[str, Any], name: str, key: str, known: Collection[int], path: Path) -> int:
    number = item.get(name)
    if not isinstance(number, int) or isinstance(number, bool) or number not in known:
        raise ConfigError(
            f"{key}.{name} is {shown(number)}", where=path, allowed="an id of the annotation file"
        )
    return number


def _text(item: Mapping[str, Any], name: str, key: str, path: Path) -> str | None:
    value = item.get(name)
    if not isinstance(value, str | None):
        raise ConfigError(f"{key}.{name} is {shown(value)}", where=path, allowed="text")
    return value


def _box(item: Mapping[str, Any], key: str, path: Path) -> tuple[float, float, float, float]:
    value = item.get("bbox")
    if (
        not isinstance(value, list)
        or len(value) != 4
        or not all(_is_number(side) and math.isfinite(side) for side in value)
        or min(value[2:]) < 0
    ):
        raise ConfigError(
            f"{key}.bbox is {shown(value)}", where=path, allowed="[x, y, width, height] in pixels"
        )
    x, y, width, height = map(float, value)
    return (x, y, width, height)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
