"""A detector of the video pipeline over a folder of images: boxes out.

::

    image ── letterbox ── network ── boxes above a score ── suppression ── the image's pixels

Letterbox: scaled to fit a square, proportions kept, the rest grey (114), as these networks were
trained. One anchor may give boxes of several categories, and suppression is within a category; the
defaults (score 0.001, overlap 0.7, 300 boxes) are those that YOLO repositories evaluate with: a mAP
integrates over all scores, so the low one costs precision nothing. Reading, scaling and suppression
are part of the accuracy but not of the profile's latency and joules.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from coco_categories import ids_of_classes
from coco_data import Detection, Picture, Truth

from ipa_energy.errors import ConfigError, UnavailableError
from ipa_energy.pipeline_models import Runner

logger = logging.getLogger(__name__)

Pixels = npt.NDArray[np.uint8]

GREY = 114
STRIDE = 32
"""The networks halve the image five times."""
BILINEAR = 2
"""PIL's number for this way of resampling; PIL itself is imported only where images are read."""
MOST_CANDIDATES = 30_000
"""Boxes of one image that go into the suppression, best first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How images become boxes.

    Attributes:
        size: side of the square the network sees, in pixels; a multiple of 32.
        batch: images at once.
        confidence: boxes with a lower score are dropped.
        overlap: boxes of one category with a higher IoU than this are one.
        most: boxes of one image.
    """

    size: int = 640
    batch: int = 8
    confidence: float = 0.001
    overlap: float = 0.7
    most: int = 300

    def __post_init__(self) -> None:
        if self.size < STRIDE or self.size % STRIDE:
            raise ConfigError(
                f"size {self.size}", where="--size", allowed=f"a multiple of {STRIDE} pixels"
            )
        if self.batch < 1:
            raise ConfigError(f"batch {self.batch}", where="--batch", allowed="1 or more")


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How an image lies in a square, so that boxes can be brought back.

    Attributes:
        scale: pixels of the square a pixel of the image.
        left, top: of the image in the square.
        width, height: of the image itself.
    """

    scale: float
    left: int
    top: int
    width: int
    height: int

    @classmethod
    def of(cls, width: int, height: int, size: int) -> Letterbox:
        """Where an image of ``width`` × ``height`` goes in a square of ``size``."""
        scale = min(size / width, size / height)
        left, top = size - round(width * scale), size - round(height * scale)
        return cls(scale, left // 2, top // 2, width, height)

    @property
    def inner(self) -> tuple[int, int]:
        """Width and height of the image in the square."""
        return max(1, round(self.width * self.scale)), max(1, round(self.height * self.scale))

    def to_image(self, box: Sequence[float]) -> tuple[float, float, float, float]:
        """(x, y, width, height) in the image of the corners (x1, y1, x2, y2) in the square."""
        x1, x2 = (_within((x - self.left) / self.scale, self.width) for x in (box[0], box[2]))
        y1, y2 = (_within((y - self.top) / self.scale, self.height) for y in (box[1], box[3]))
        return (x1, y1, x2 - x1, y2 - y1)


def letterbox(image: Any, size: int) -> tuple[Pixels, Letterbox]:
    """A PIL image as (size, size, 3) pixels, and how it got there."""
    place = Letterbox.of(image.width, image.height, size)
    width, height = place.inner
    square = np.full((size, size, 3), GREY, dtype=np.uint8)
    inner = square[place.top : place.top + height, place.left : place.left + width]
    # Bilinear, as in training; PIL's default would sharpen.
    inner[:] = np.asarray(image.resize((width, height), BILINEAR))
    return square, place


def find_images(folder: Path, truth: Truth) -> dict[int, Path]:
    """Image id → file, for every annotated image that is in the folder.

    Raises:
        ConfigError: none is.
    """
    if not folder.is_dir():
        raise ConfigError("no such folder", where=folder, allowed="a folder of images")
    found = {}
    for number, picture in truth.pictures.items():
        path = folder / Path(picture.file_name).name
        if picture.file_name and path.is_file():
            found[number] = path
    if not found:
        first = next(iter(truth.pictures.values()), Picture("", None, None))
        raise ConfigError(
            f"none of {len(truth.pictures)} annotated images is in the folder",
            where=folder,
            allowed=f"the file names of {truth.name}, e.g. {first.file_name}",
        )
    if len(found) < len(truth.pictures):
        logger.warning(
            "%d of %d annotated images are in %s: only they are evaluated",
            len(found),
            len(truth.pictures),
            folder,
        )
    return found


def detect(
    runner: Runner, paths: Mapping[int, Path], truth: Truth, settings: Settings
) -> tuple[list[Detection], set[int]]:
    """Boxes of every image, and the ids of the images that could be read.

    Raises:
        UnavailableError: torch or torchvision is not installed.
    """
    try:
        import torch
        from torchvision.ops import batched_nms
    except ImportError as error:
        raise UnavailableError(
            f"running a detector needs {error.name}; fix: pip install ipa-energy[video]"
        ) from error
    ids = ids_of_classes(truth.categories)
    found: list[Detection] = []
    read: set[int] = set()
    for numbers, squares, places in _batches(paths, truth, settings):
        batch = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255
        for number, place, output in zip(numbers, places, runner(batch), strict=True):
            read.add(number)
            for box, class_index, confidence in _suppressed(output, settings, batched_nms):
                if class_index in ids:
                    found.append(
                        Detection(number, ids[class_index], place.to_image(box), confidence)
                    )
    return found, read


def _batches(
    paths: Mapping[int, Path], truth: Truth, settings: Settings
) -> Iterator[tuple[list[int], list[Pixels], list[Letterbox]]]:
    from tqdm import tqdm

    numbers: list[int] = []
    squares: list[Pixels] = []
    places: list[Letterbox] = []
    for number, path in tqdm(paths.items(), unit="image", disable=None):
        image = _read(path, truth.pictures[number])
        if image is None:
            continue
        square, place = letterbox(image, settings.size)
        numbers.append(number)
        squares.append(square)
        places.append(place)
        if len(numbers) == settings.batch:
            yield numbers, squares, places
            numbers, squares, places = [], [], []
    if numbers:
        yield numbers, squares, places


def _read(path: Path, picture: Picture) -> Any:
    """The image in RGB; None, with a warning, if it cannot be evaluated."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
            upright = ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError, ImportError) as error:
        # ImportError: ultralytics, once imported, makes PIL try a plugin on what it cannot read.
        logger.warning("%s cannot be read and is left out: %s", path, error)
        return None
    size = (picture.width, picture.height)
    for candidate in (image, upright):
        if None in size or candidate.size == size:
            return candidate
    logger.warning(
        "%s is left out: it has %d × %d pixels, its annotation says %s × %s",
        path,
        *image.size,
        *size,
    )
    return None


def _suppressed(
    output: Any, settings: Settings, batched_nms: Any
) -> Iterator[tuple[list[float], int, float]]:
    """(corners, class, score) of what is left of one image's (4 + classes, anchors) output."""
    import torch

    centre, size = output[:2].T, output[2:4].T
    corners = torch.cat((centre - size / 2, centre + size / 2), dim=1)
    scores = output[4:].T
    anchors, classes = (scores > settings.confidence).nonzero(as_tuple=True)
    values = scores[anchors, classes]
    best = values.argsort(descending=True)[:MOST_CANDIDATES]
    anchors, classes, values = anchors[best], classes[best], values[best]
    kept = batched_nms(corners[anchors], values, classes, settings.overlap)[: settings.most]
    yield from zip(
        corners[anchors[kept]].tolist(), classes[kept].tolist(), values[kept].tolist(), strict=True
    )


def _within(value: float, high: float) -> float:
    return min(max(value, 0.0), float(high))
