r"""A YOLOv5 over images, as a program to be measured whole; prints one JSON line.

    python experiments/seed/detect.py --variant yolov5n --batch 8 --images 64

Start, import, loading of the network, one image to warm up, then every image: read, scaled to a
square, through the network. Suppression of overlapping boxes is left out: with random weights its
time would mean nothing. Without ``--folder`` the images are noise of a fixed seed; without
``--weights`` the network is random, which costs the same time and energy.

``latency_s`` is the network's time over the images, as YOLOv7's ``test.py`` gives it. With
``--meter`` it also measures its own steady state, from the first image after the warm-up to the
last: ``steady_energy_j``, what is left of the run's joules when start and loading are taken out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipa_energy.errors import EXIT_DONE, ConfigError, IpaEnergyError
from ipa_energy.meters.base import Energy, Meter
from ipa_energy.pipeline_models import find_variant, load_pipeline
from ipa_energy.records import meters_in

PIPELINE = Path(__file__).parents[2] / "pipelines" / "video"
STAGE = "crop"
GREY = 114
STRIDE = 32
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

Pixels = npt.NDArray[np.uint8]


def main(argv: Sequence[str] | None = None) -> int:
    """Detect, print, and answer the exit status of ``ipa-energy``'s verbs."""
    started_s = time.perf_counter()
    args = _parser().parse_args(argv)
    try:
        print(json.dumps(detect(args, started_s), allow_nan=False))
    except IpaEnergyError as error:
        print(f"detect.py: error: {error}", file=sys.stderr)
        return error.exit_status
    return EXIT_DONE


def detect(args: argparse.Namespace, started_s: float) -> dict[str, Any]:
    """The whole work; what the JSON line says of it.

    Raises:
        IpaEnergyError: bad input, or something required is missing.
    """
    if args.batch < 1 or args.images < 1:
        raise ConfigError(f"batch {args.batch}, {args.images} images", allowed="1 or more of each")
    if args.size < STRIDE or args.size % STRIDE:
        raise ConfigError(f"size {args.size}", where="--size", allowed=f"a multiple of {STRIDE}")
    pictures = _pictures(args)
    pipeline = load_pipeline(str(PIPELINE))
    variant = find_variant(pipeline, STAGE, args.variant)
    weights = str(args.weights) if args.weights else None
    # ultralytics logs to stdout, where the JSON line goes.
    os.environ.setdefault("YOLO_VERBOSE", "false")
    runner = pipeline.build(variant, weights=weights, threads=args.threads)
    runner(_tensor([_noise(args.size, seed=0)]))
    with _meter(args) as meter:
        first = meter.read() if meter else None
        steady_from_s = time.perf_counter()
        images, inference_s = _run(runner, pictures, args)
        steady_s = time.perf_counter() - steady_from_s
        energy = meter.energy_between(first, meter.read()) if meter and first else None
    return {
        "variant": args.variant,
        "weights": args.weights.name if args.weights else "random",
        "pictures": "noise" if args.folder is None else "folder",
        "batch": args.batch,
        "size_px": args.size,
        "threads": args.threads,
        "images": images,
        "latency_s": inference_s / images,
        "inference_s": inference_s,
        "load_s": steady_from_s - started_s,
        "steady_s": steady_s,
        **_energy(energy),
    }


def _energy(energy: Energy | None) -> dict[str, Any]:
    if energy is None:
        return {}
    return {
        "steady_energy_j": energy.energy_j,
        "steady_meter": energy.meter,
        "steady_quality": energy.quality,
    }


def _run(
    runner: Any, pictures: Sequence[Path | int], args: argparse.Namespace
) -> tuple[int, float]:
    """Number of images, and seconds that the network took for them."""
    inference_s = 0.0
    for start in range(0, len(pictures), args.batch):
        batch = [_square(one, args.size) for one in pictures[start : start + args.batch]]
        tensor = _tensor(batch)
        begun_s = time.perf_counter()
        output = runner(tensor)
        inference_s += time.perf_counter() - begun_s
        if len(output) != len(batch):
            raise ConfigError(f"{len(output)} outputs for a batch of {len(batch)}")
    return len(pictures), inference_s


def _pictures(args: argparse.Namespace) -> Sequence[Path | int]:
    """Files, or seeds of noise: at most as many as asked for.

    Raises:
        ConfigError: the folder has no images.
    """
    if args.folder is None:
        return range(1, args.images + 1)
    if not args.folder.is_dir():
        raise ConfigError("no such folder", where=args.folder)
    found = sorted(path for path in args.folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ConfigError("no images", where=args.folder, allowed=", ".join(SUFFIXES))
    return found[: args.images]


def _square(picture: Path | int, size: int) -> Pixels:
    """The image scaled to fit a square, the rest grey, as these networks were trained."""
    if isinstance(picture, int):
        return _noise(size, seed=picture)
    from PIL import Image

    try:
        with Image.open(picture) as file:
            image = file.convert("RGB")
    except OSError as error:
        raise ConfigError(f"no image: {error}", where=picture) from error
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    left, top = (size - width) // 2, (size - height) // 2
    square = np.full((size, size, 3), GREY, dtype=np.uint8)
    square[top : top + height, left : left + width] = np.asarray(
        image.resize((width, height), Image.Resampling.BILINEAR)
    )
    return square


def _noise(size: int, *, seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def _tensor(batch: Sequence[Pixels]) -> Any:
    import torch

    return torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() / 255


@contextmanager
def _meter(args: argparse.Namespace) -> Iterator[Meter | None]:
    """The meter named; cpu-time charges this process."""
    if args.meter is None:
        yield None
        return
    from ipa_energy.meters.composite import CompositeMeter
    from ipa_energy.meters.cpu_time import CpuTimeMeter
    from ipa_energy.meters.discovery import CPU_ESTIMATE, close_meter, open_meter
    from ipa_energy.meters.power_model import power_model_for_this_machine, power_model_in

    def opened(name: str) -> Meter:
        if name != CPU_ESTIMATE:
            return open_meter(name)
        path = args.power_model
        model = power_model_in(Path(path)) if path else power_model_for_this_machine()
        return CpuTimeMeter(model, pid=os.getpid(), reserved_cores=model.cores)

    parts = [opened(name) for name in meters_in(args.meter)]
    try:
        yield parts[0] if len(parts) == 1 else CompositeMeter(parts)
    finally:
        for part in parts:
            close_meter(part)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--variant", required=True, help="yolov5n, s, m, l or x")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE.pt", help="of the variant (default: random)"
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--images", type=int, default=64, help="how many, at most (default: 64)")
    parser.add_argument("--folder", type=Path, help="of images (default: noise)")
    parser.add_argument("--size", type=int, default=640, help="of the square, in pixels")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--meter", help="measures the steady state too; as ipa-energy meters")
    parser.add_argument("--power-model", default="", metavar="JSON", help="of the cpu-time meter")
    return parser


if __name__ == "__main__":
    sys.exit(main())
