r"""Accuracy of a detector on one's own images: precision, recall, F1, mAP.

    python experiments/coco/evaluate.py --annotations instances.json --images FOLDER \
        --variant yolov5n --weights yolov5nu.pt
    python experiments/coco/evaluate.py --annotations instances.json --detections results.json

The first runs a detector of the video pipeline; the second takes what any detector wrote as a COCO
results file. ``--json`` prints one JSON object; ``--profile`` with ``--profile-out`` puts the
accuracy into a copy of a profile.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from accuracy_column import with_accuracy
from coco_data import Detection, Truth, read_detections, read_truth
from coco_detector import Settings, detect, find_images
from coco_scores import Scores, score

from ipa_energy.cli.options import print_json, text_table
from ipa_energy.errors import EXIT_DONE, ConfigError, IpaEnergyError
from ipa_energy.pipeline_models import find_variant, load_pipeline

PIPELINE = Path(__file__).parents[2] / "pipelines" / "video"
STAGE = "crop"
RANDOM_WEIGHTS = "random weights: the figures say nothing about the detector; give --weights"
METRICS = ("map_50", "map_50_95", "f1_coco", "f1_operating_point")

logger = logging.getLogger("ipa_energy.experiments.coco")


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, print, and answer the exit status of ``ipa-energy``'s verbs."""
    args = _parser().parse_args(argv)
    logging.basicConfig(format="evaluate.py: %(levelname)s: %(message)s")
    try:
        return evaluate(args)
    except IpaEnergyError as error:
        print(f"evaluate.py: error: {error}", file=sys.stderr)
        return error.exit_status


def evaluate(args: argparse.Namespace) -> int:
    """One evaluation, from files to the answer on stdout.

    Raises:
        IpaEnergyError: whatever is wrong with files and options.
    """
    if (args.detections is None) == (args.variant is None or args.images is None):
        raise ConfigError(
            "what is to be evaluated is not said",
            allowed="--images FOLDER with --variant NAME, or --detections FILE",
        )
    if (args.profile is None) != (args.profile_out is None):
        raise ConfigError("--profile and --profile-out belong together")
    truth = read_truth(args.annotations)
    if args.detections is not None:
        truth, found = _read(args, truth)
        weights = None
    else:
        truth, found = _run(args, truth)
        weights = args.weights.name if args.weights else "random"
    scores = score(truth, found, confidence=args.confidence)
    if args.profile is not None:
        _write_profile(args, scores, weights, truth.name)
    if args.json:
        document = {"data": truth.name, "variant": args.variant, "weights": weights}
        print_json(document | scores.to_json(per_category=args.per_category))
    else:
        print(report(scores, per_category=args.per_category))
    return EXIT_DONE


def report(scores: Scores, *, per_category: bool) -> str:
    """The scores as text."""
    point, coco = scores.operating_point, scores.coco
    at = "" if point.confidence is None else f" (confidence {point.confidence:.3f})"
    lines = [
        f"{scores.images} images, {scores.annotations} annotations, {scores.detections} detections",
        f"mAP@.5 {scores.map_50:.4f}   mAP@.75 {scores.map_75:.4f}   "
        f"mAP@[.5:.95] {scores.map_50_95:.4f}   AR@[.5:.95] {scores.recall_50_95:.4f}",
        text_table(
            ("definition", "precision", "recall", "F1"),
            [
                (name, f"{each.precision:.4f}", f"{each.recall:.4f}", f"{each.f1:.4f}")
                for name, each in (("coco", coco), (f"operating-point{at}", point))
            ],
        ),
    ]
    if per_category:
        rows = [
            (
                each.category,
                str(each.annotations),
                f"{each.map_50:.4f}",
                f"{each.map_50_95:.4f}",
                f"{each.recall_50_95:.4f}",
            )
            for each in scores.categories
        ]
        header = ("category", "annotations", "AP@.5", "AP@[.5:.95]", "AR@[.5:.95]")
        lines.append(text_table(header, rows))
    return "\n".join(lines)


def _read(args: argparse.Namespace, truth: Truth) -> tuple[Truth, list[Detection]]:
    """Detections of a file; with --images, on those images alone."""
    found = read_detections(args.detections, truth)
    if args.images is not None:
        truth = truth.only(find_images(args.images, truth))
    return truth, found


def _run(args: argparse.Namespace, truth: Truth) -> tuple[Truth, list[Detection]]:
    """Detections of a network on the images that can be read."""
    pipeline = load_pipeline(str(PIPELINE))
    variant = find_variant(pipeline, STAGE, args.variant)
    settings = Settings(size=args.size, batch=args.batch)
    paths = find_images(args.images, truth)
    if args.limit is not None:
        paths = dict(list(paths.items())[: args.limit])
    if args.weights is None:
        logger.warning(RANDOM_WEIGHTS)
    elif not args.weights.is_file():
        raise ConfigError("no such file", where=args.weights)
    weights = str(args.weights) if args.weights else None
    # ultralytics logs to stdout, where --json has its one object.
    os.environ.setdefault("YOLO_VERBOSE", "false")
    runner = pipeline.build(variant, weights=weights, threads=args.threads)
    found, read = detect(runner, paths, truth, settings)
    if args.detections_out is not None:
        args.detections_out.write_text(json.dumps([each.to_json() for each in found]))
    return truth.only(read), found


def _write_profile(
    args: argparse.Namespace, scores: Scores, weights: str | None, annotations: str
) -> None:
    if weights == "random":
        raise ConfigError(f"no accuracy is written into a profile: {RANDOM_WEIGHTS}")
    if args.variant is None:
        raise ConfigError("--profile needs --variant: whose accuracy this is")
    values = {
        "map_50": scores.map_50,
        "map_50_95": scores.map_50_95,
        "f1_coco": scores.coco.f1,
        "f1_operating_point": scores.operating_point.f1,
    }
    with_accuracy(
        args.profile,
        args.profile_out,
        stage=STAGE,
        variant=args.variant,
        accuracy=values[args.metric],
        source={
            "metric": args.metric,
            "annotations": annotations,
            "images": scores.images,
            "weights": weights,
        },
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Precision, recall, F1 and mAP of a detector on images with COCO annotations.",
        allow_abbrev=False,
    )
    parser.add_argument("--annotations", type=Path, required=True, metavar="JSON")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="only these are evaluated")
    parser.add_argument("--detections", type=Path, metavar="JSON", help="a COCO results file")
    parser.add_argument("--variant", metavar="NAME", help="of the video pipeline's stage crop")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="ultralytics checkpoint")
    parser.add_argument("--size", type=int, default=640, metavar="PIXELS")
    parser.add_argument("--batch", type=int, default=8, metavar="B", help="images at once")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument(
        "--confidence", type=float, metavar="C", help="of the operating point (default: best F1)"
    )
    parser.add_argument("--per-category", action="store_true")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--detections-out", type=Path, metavar="JSON", help="COCO results file")
    parser.add_argument("--profile", type=Path, metavar="PROFILE.csv")
    parser.add_argument("--profile-out", type=Path, metavar="COPY.csv")
    parser.add_argument(
        "--metric", choices=METRICS, default="map_50", help="written as accuracy (default: map_50)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
