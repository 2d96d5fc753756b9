"""The variants of the video pipeline and their published accuracies; imports nothing heavy."""

from __future__ import annotations

from ipa_energy.pipeline_models import Variant

YOLO_SOURCE = (
    "mAP@0.5 on COCO val2017 of the original YOLOv5, https://github.com/ultralytics/yolov5"
)
RESNET_SOURCE = "top-1 on ImageNet-1K, https://pytorch.org/vision/stable/models.html"
YOLO_SHAPE = (3, 640, 640)
RESNET_SHAPE = (3, 224, 224)

YOLO_ACCURACIES = {
    "yolov5n": 0.457,
    "yolov5s": 0.568,
    "yolov5m": 0.641,
    "yolov5l": 0.673,
    "yolov5x": 0.689,
}
RESNET_ACCURACIES = {
    "resnet18": 0.6975,
    "resnet34": 0.7331,
    "resnet50": 0.7613,
    "resnet101": 0.7737,
    "resnet152": 0.7831,
}

VARIANTS: tuple[Variant, ...] = (
    *(Variant("crop", n, a, YOLO_SOURCE, YOLO_SHAPE) for n, a in YOLO_ACCURACIES.items()),
    *(
        Variant("classification", n, a, RESNET_SOURCE, RESNET_SHAPE)
        for n, a in RESNET_ACCURACIES.items()
    ),
)
