"""How the video pipeline is served: pictures as JPEGs in, what was found out.

::

    JPEG ─crop─▶ letterbox ▶ network ▶ best person ▶ JPEG ─classification─▶ resize ▶ network ▶ JSON

The detector hands on the person that it is surest of, cut out, or the picture as it came where it
sees none (as always with random weights). That is the first box that non-maximum suppression would
keep, which therefore is not run. Where the classifier is to see another number of requests than the
pipeline (``requests_per_input``), it hands on every person that it sees, none or many; with random
weights so many of the surest boxes as are asked for, whatever is in them. The classifier answers
``{"class", "label", "score", "weights"}``; ``weights`` is ``random`` where it means nothing.
"""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

from ipa_energy.errors import ConfigError
from ipa_energy.pipeline_models import (
    GPU_DEVICE,
    Handler,
    Runner,
    Signature,
    SpreadingHandler,
    Variant,
)

SIGNATURES = {
    "crop": Signature("image/jpeg", "image/jpeg"),
    "classification": Signature("image/jpeg", "application/json"),
}

PNG = b"\x89PNG"

MAX_PIXELS = 50_000_000
"""Of one picture; one that would need more is refused before it is decoded."""

PERSON = 0
"""Number of the class among COCO's."""

LEAST_SCORE = 0.25
"""Of a box that counts, as in YOLOv5."""

MOST_OVERLAP = 0.45
"""Of two boxes of two people, their intersection over their union, as in YOLOv5."""

MOST_PEOPLE = 20
"""Handed on of one picture."""

BOX_NUMBERS = 4
GREY = 114
CROP_QUALITY = 90

RESIZED, CROPPED = 256, 224
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
"""Of ImageNet's colours, 0..1, as torchvision's weights expect them."""

REQUEST_SIZE = (640, 480)
REQUEST_QUALITY = 85
REQUEST_NOISE = 12


def handler(
    variant: Variant, run: Runner, *, weights: str | None, device: str, yields: float = 1.0
) -> Handler | SpreadingHandler:
    """What answers a batch with a loaded network.

    Args:
        variant: what was loaded.
        run: its network, as ``pipeline.build`` returns it.
        weights: the file they are from; None for random ones.
        device: where it runs.
        yields: people that a detector is to hand on of a picture, in the mean; 1 is the surest one.
    """
    if variant.stage == "crop" and yields != 1:
        return _crowd_detector(variant, run, device, None if weights else yields)
    if variant.stage == "crop":
        return _detector(variant, run, device)
    return _classifier(variant, run, "random" if weights is None else "given")


def requests(seed: int, count: int) -> list[bytes]:
    """JPEGs of 640 × 480 pixels and about 60 kB: a few shapes on coloured noise."""
    from PIL import Image, ImageDraw

    pictures = []
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")
        width, height = REQUEST_SIZE
        small = Image.frombytes("RGB", (width // 16, height // 16), chance.randbytes(3600))
        picture = small.resize(REQUEST_SIZE, Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(picture)
        for _ in range(6):
            left, top = chance.randrange(width - 60), chance.randrange(height - 60)
            corner = (left + chance.randrange(20, 200), top + chance.randrange(20, 200))
            shape = draw.ellipse if chance.random() < 0.5 else draw.rectangle
            shape(((left, top), corner), fill=tuple(chance.randbytes(3)))
        grain = Image.frombytes("L", REQUEST_SIZE, chance.randbytes(width * height))
        grain = Image.merge("RGB", (grain, grain, grain))
        picture = Image.blend(picture, grain, REQUEST_NOISE / 256)
        pictures.append(_jpeg(picture, REQUEST_QUALITY))
    return pictures


def _detector(variant: Variant, run: Runner, device: str) -> Handler:
    side = variant.input_shape[-1]

    def answer(elements: Sequence[bytes]) -> list[bytes]:
        return [
            _best_person(boxes, picture, element, side)
            for boxes, picture, element in _looked_at(elements, run, device, side)
        ]

    return answer


def _crowd_detector(
    variant: Variant, run: Runner, device: str, made_up: float | None
) -> SpreadingHandler:
    side = variant.input_shape[-1]

    def answer(elements: Sequence[bytes]) -> list[list[bytes]]:
        return [
            _people(boxes, picture, side)
            if made_up is None
            else _surest(boxes, picture, element, side, math.floor(made_up + random.random()))
            for boxes, picture, element in _looked_at(elements, run, device, side)
        ]

    return answer


def _looked_at(
    elements: Sequence[bytes], run: Runner, device: str, side: int
) -> Iterator[tuple[Any, Any, bytes]]:
    """What the network finds in each picture, (84, anchors), the picture, and how it came."""
    import numpy as np
    import torch

    pictures = [_picture(element, number) for number, element in enumerate(elements)]
    batch = np.stack([_letterboxed(picture, side) for picture in pictures])
    found = run(torch.from_numpy(batch).permute(0, 3, 1, 2).float().div_(255))
    if device == GPU_DEVICE:
        found = found.cpu()
    return zip(found, pictures, elements, strict=True)


def _classifier(variant: Variant, run: Runner, weights: str) -> Handler:
    import torch
    import torchvision

    known = torchvision.models.get_model_weights(variant.name)
    labels = known.DEFAULT.meta["categories"]
    mean = torch.tensor(MEAN).view(3, 1, 1)
    deviation = torch.tensor(DEVIATION).view(3, 1, 1)

    def answer(elements: Sequence[bytes]) -> list[bytes]:
        batch = torch.stack(
            [_centre(_picture(element, number, RESIZED)) for number, element in enumerate(elements)]
        )
        logits = run((batch - mean) / deviation)
        scores, classes = logits.softmax(1).max(1)
        return [
            json.dumps(
                {"class": kind, "label": labels[kind], "score": round(score, 4), "weights": weights}
            ).encode()
            for kind, score in zip(classes.tolist(), scores.tolist(), strict=True)
        ]

    return answer


def _picture(element: bytes, number: int, least_side: int | None = None) -> Any:
    """The picture, decoded; no smaller than ``least_side`` where it is larger, which is faster.

    Raises:
        ValueError: it is none.
    """
    # Not by Image.open, in whose place ultralytics puts one that looks for further libraries.
    from PIL import Image
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    kind = PngImageFile if element.startswith(PNG) else JpegImageFile
    try:
        picture = kind(io.BytesIO(element))
        if picture.width * picture.height > MAX_PIXELS:
            raise ValueError(f"{picture.width} × {picture.height} pixels, more than {MAX_PIXELS}")
        if least_side is not None and kind is JpegImageFile:
            picture.draft("RGB", (least_side, least_side))
        return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        is_ours = isinstance(error, ValueError) and "pixels" in str(error)
        why = str(error) if is_ours else "it cannot be read as a picture"
        raise ValueError(
            f"element {number} of {len(element)} bytes: {why}; allowed: JPEG or PNG"
        ) from error


def _letterboxed(picture: Any, side: int) -> Any:
    """(side, side, 3) bytes: the picture as large as it goes, in the middle of grey."""
    import numpy as np

    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    if picture.size != (width, height):
        picture = picture.resize((width, height), 2)  # bilinear
    box = np.full((side, side, 3), GREY, dtype=np.uint8)
    left, top = (side - width) // 2, (side - height) // 2
    box[top : top + height, left : left + width] = np.asarray(picture)
    return box


def _best_person(boxes: Any, picture: Any, element: bytes, side: int) -> bytes:
    """The surest person of (84, anchors) as a JPEG; the element itself if there is none."""
    score, anchor = boxes[BOX_NUMBERS + PERSON].max(0)
    if not float(score) >= LEAST_SCORE:
        return element
    return _cut(boxes, anchor, picture, side) or element


def _people(boxes: Any, picture: Any, side: int) -> list[bytes]:
    """Every person of (84, anchors) as a JPEG, the surest first."""
    import torch
    import torchvision

    scores = boxes[BOX_NUMBERS + PERSON]
    anchors = torch.nonzero(scores >= LEAST_SCORE).flatten()
    centres, sizes = boxes[:2, anchors].T, boxes[2:BOX_NUMBERS, anchors].T
    corners = torch.cat([centres - sizes / 2, centres + sizes / 2], 1)
    kept = torchvision.ops.nms(corners, scores[anchors], MOST_OVERLAP)[:MOST_PEOPLE]
    crops = (_cut(boxes, anchor, picture, side) for anchor in anchors[kept])
    return [crop for crop in crops if crop is not None]


def _surest(boxes: Any, picture: Any, element: bytes, side: int, count: int) -> list[bytes]:
    """So many boxes as JPEGs, the surest ones; the element itself where one is empty."""
    anchors = boxes[BOX_NUMBERS + PERSON].topk(count).indices
    return [_cut(boxes, anchor, picture, side) or element for anchor in anchors]


def _cut(boxes: Any, anchor: Any, picture: Any, side: int) -> bytes | None:
    """What is in one box as a JPEG; None if nothing is."""
    x, y, width, height = boxes[:BOX_NUMBERS, anchor].tolist()
    scale = side / max(picture.size)
    margins = [(side - round(length * scale)) // 2 for length in picture.size]
    edges = [
        (centre - margin + sign * length / 2) / scale
        for sign in (-1, 1)
        for centre, margin, length in ((x, margins[0], width), (y, margins[1], height))
    ]
    limits = (*picture.size, *picture.size)
    left, top, right, bottom = (
        min(max(0, round(edge)), limit) for edge, limit in zip(edges, limits, strict=True)
    )
    if right <= left or bottom <= top:
        return None
    return _jpeg(picture.crop((left, top, right, bottom)), CROP_QUALITY)


def _centre(picture: Any) -> Any:
    """(3, 224, 224) floats 0..1: the middle of the picture scaled to a shorter side of 256."""
    import numpy as np
    import torch

    scale = RESIZED / min(picture.size)
    size = tuple(max(CROPPED, round(length * scale)) for length in picture.size)
    picture = picture.resize(size, 2)
    left, top = ((length - CROPPED) // 2 for length in size)
    pixels = np.array(picture.crop((left, top, left + CROPPED, top + CROPPED)))
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div_(255)


def _jpeg(picture: Any, quality: int) -> bytes:
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=quality)
    return written.getvalue()


def signature(stage: str) -> Signature:
    """What a stage takes and gives."""
    if stage not in SIGNATURES:
        raise ConfigError(f"no stage {stage!r}", allowed=", ".join(SIGNATURES))
    return SIGNATURES[stage]
