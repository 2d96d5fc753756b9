"""The 80 categories a COCO detector knows, and the ids COCO's annotation files give them.

Detectors count classes 0 to 79; annotation files number the same 80 categories from 1 to 90, with
ten numbers left out that were dropped from the data set. Data of one's own has ids of its own, so
categories are matched by name first, and by COCO's number only where a file has no names.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ipa_energy.errors import ConfigError

logger = logging.getLogger(__name__)

_UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_IDS: tuple[int, ...] = tuple(number for number in range(1, 91) if number not in _UNUSED_IDS)
"""Class of a detector → category id in COCO's own files."""

# fmt: off
COCO_NAMES: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)
# fmt: on
"""Class of a detector → name."""


def ids_of_classes(categories: Mapping[int, str | None]) -> dict[int, int]:
    """Class of a detector → category id in a data set; classes it does not have are left out.

    Args:
        categories: id → name of the data set; None where it gives no name.

    Raises:
        ConfigError: the data set has none of the 80 categories.
    """
    by_name = {name.strip().lower(): number for number, name in categories.items() if name}
    found = {}
    for index, (name, number) in enumerate(zip(COCO_NAMES, COCO_IDS, strict=True)):
        if name in by_name:
            found[index] = by_name[name]
        elif number in categories and categories[number] is None:
            found[index] = number
    if not found:
        raise ConfigError(
            f"none of the categories {', '.join(str(name) for name in categories.values())} is one"
            " that these detectors know",
            allowed=", ".join(COCO_NAMES),
        )
    strangers = [str(name) for number, name in categories.items() if number not in found.values()]
    if strangers:
        logger.warning("no detector here knows %s: they count as missed", ", ".join(strangers))
    return found
