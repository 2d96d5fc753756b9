"""The COCO evaluator: known answers, strict reading, and a run of a random network."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from experiment_scripts import script

from ipa_energy.errors import ConfigError, UnavailableError
from ipa_energy.profile_table.profile_csv import meta_path, read_profile

ROOT = Path(__file__).parents[2]
MODULES = (
    "evaluate",
    "accuracy_column",
    "coco_categories",
    "coco_data",
    "coco_detector",
    "coco_scores",
)

needs_pycocotools = pytest.mark.skipif(
    importlib.util.find_spec("pycocotools") is None,
    reason="needs pycocotools (pip install ipa-energy[accuracy])",
)

PERSON, DOG = 1, 18
"""Two of COCO's category ids; classes 0 and 16 of a detector."""

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def coco() -> dict[str, ModuleType]:
    """The scripts of experiments/coco."""
    return {name: script(f"coco/{name}") for name in MODULES}


def boxes() -> list[dict[str, Any]]:
    """Two persons and a dog in two images of 100 × 80, large enough that sizes do not matter."""
    found = [(1, PERSON, [10, 10, 40, 50]), (1, DOG, [60, 20, 30, 30]), (2, PERSON, [5, 5, 60, 60])]
    return [
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for number, (image, category, box) in enumerate(found, 1)
    ]


def document(**keys: Any) -> dict[str, Any]:
    return {
        "images": [
            {"id": number, "file_name": f"{number:012d}.jpg", "width": 100, "height": 80}
            for number in (1, 2)
        ],
        "categories": [{"id": PERSON, "name": "person"}, {"id": DOG, "name": "dog"}],
        "annotations": boxes(),
        **keys,
    }


def found(*which: int, score: Any = 0.9, **keys: Any) -> list[dict[str, Any]]:
    """Detections that are annotations ``which`` (from 0), exactly."""
    return [
        {
            "image_id": boxes()[index]["image_id"],
            "category_id": boxes()[index]["category_id"],
            "bbox": boxes()[index]["bbox"],
            "score": score,
            **keys,
        }
        for index in which
    ]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(content: Any, name: str = "instances.json") -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return to_file


def scores(coco: dict[str, ModuleType], write: Write, detections: Any, **options: Any) -> Any:
    truth = coco["coco_data"].read_truth(write(document()))
    read = coco["coco_data"].read_detections(write(detections, "results.json"), truth)
    return coco["coco_scores"].score(truth, read, **options)


# ------------------------------------------------------------------ known answers


@needs_pycocotools
def test_perfect_detections_score_1(coco: dict[str, ModuleType], write: Write) -> None:
    result = scores(coco, write, found(0, 1, 2))
    figures = (result.map_50, result.map_75, result.map_50_95, result.recall_50_95)
    assert figures == pytest.approx((1.0, 1.0, 1.0, 1.0))
    for definition in (result.coco, result.operating_point):
        assert (definition.precision, definition.recall, definition.f1) == pytest.approx((1, 1, 1))
    assert (result.images, result.annotations, result.detections) == (2, 3, 3)


@needs_pycocotools
def test_no_detections_score_0(coco: dict[str, ModuleType], write: Write) -> None:
    result = scores(coco, write, [])
    assert (result.map_50, result.map_50_95, result.recall_50_95) == (0.0, 0.0, 0.0)
    assert (result.coco.f1, result.operating_point.f1) == (0.0, 0.0)
    assert result.detections == 0


@needs_pycocotools
def test_one_of_two_persons_and_no_dog(coco: dict[str, ModuleType], write: Write) -> None:
    """Person: precision 1 up to recall 0.5, which is 51 of COCO's 101 recall levels."""
    result = scores(coco, write, found(0))
    assert result.map_50 == pytest.approx(51 / 101 / 2)
    assert result.map_50_95 == pytest.approx(51 / 101 / 2)
    assert result.recall_50_95 == pytest.approx(0.5 / 2)
    point = result.operating_point
    assert (point.precision, point.recall) == pytest.approx((1.0, 1 / 3))
    assert point.f1 == pytest.approx(0.5)
    precision, recall = 51 / 202, 0.25
    assert result.coco.f1 == pytest.approx(2 * precision * recall / (precision + recall))
    by_name = {each.category: each for each in result.categories}
    assert by_name["person"].map_50 == pytest.approx(51 / 101)
    assert (by_name["dog"].annotations, by_name["dog"].map_50) == (1, 0.0)


@needs_pycocotools
def test_overlap_decides_at_each_threshold(coco: dict[str, ModuleType], write: Write) -> None:
    """Boxes at IoU 0.72: right at the five thresholds 0.50 to 0.70, wrong at the five above."""
    shrunk = found(0, 1, 2)
    for box in shrunk:
        box["bbox"] = [*box["bbox"][:3], box["bbox"][3] * 0.72]
    result = scores(coco, write, shrunk)
    assert (result.map_50, result.map_75) == pytest.approx((1.0, 0.0))
    assert result.map_50_95 == pytest.approx(0.5)
    assert result.recall_50_95 == pytest.approx(0.5)
    assert result.operating_point.f1 == pytest.approx(1.0)


@needs_pycocotools
def test_operating_point_is_where_f1_is_highest_or_where_told(
    coco: dict[str, ModuleType], write: Write
) -> None:
    """Right at 0.9 and 0.8, wrong at 0.5 and 0.4, right at 0.3: F1 2/4, 4/5, 4/6, 4/7, 6/8."""
    wrong = {"category_id": DOG, "bbox": [0, 0, 5, 5]}
    detections = [
        *found(0, score=0.9),
        *found(1, score=0.8),
        *(item | wrong for score in (0.5, 0.4) for item in found(0, score=score)),
        *found(2, score=0.3),
    ]
    best = scores(coco, write, detections).operating_point
    assert (best.precision, best.recall, best.f1) == pytest.approx((1.0, 2 / 3, 0.8))
    assert best.confidence == 0.8
    told = scores(coco, write, detections, confidence=0.4).operating_point
    assert (told.precision, told.recall, told.f1) == pytest.approx((0.5, 2 / 3, 4 / 7))
    assert told.confidence == 0.4
    nothing = scores(coco, write, detections, confidence=0.95).operating_point
    assert (nothing.precision, nothing.recall, nothing.f1) == (0.0, 0.0, 0.0)


@needs_pycocotools
def test_boxes_on_a_crowd_are_neither_right_nor_wrong(
    coco: dict[str, ModuleType], write: Write
) -> None:
    crowd = {**boxes()[2], "id": 9, "iscrowd": 1, "bbox": [70, 5, 28, 70], "area": 28 * 70}
    truth = coco["coco_data"].read_truth(write(document(annotations=[*boxes(), crowd])))
    on_crowd = found(2, score=0.95)[0] | {"bbox": [72, 8, 20, 60]}
    results = write([*found(0, 1, 2), on_crowd], "results.json")
    read = coco["coco_data"].read_detections(results, truth)
    result = coco["coco_scores"].score(truth, read)
    assert result.annotations == 3
    assert result.operating_point.f1 == pytest.approx(1.0)
    assert result.map_50 == pytest.approx(1.0)


# ------------------------------------------------------------------ files


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"images": None}, "images is null"),
        ({"annotations": [7]}, r"annotations\[0\] is 7"),
        ({"annotations": []}, "nothing to find"),
        ({"images": [{"id": 1}, {"id": 1}]}, r"images\[1\]\.id 1 is repeated"),
        ({"categories": [{"id": "1"}]}, r"categories\[0\]\.id is the text '1'"),
        ({"annotations": [boxes()[0] | {"image_id": 5}]}, r"annotations\[0\]\.image_id is 5"),
        ({"annotations": [boxes()[0] | {"bbox": [1, 2, 3]}]}, r"\[0\]\.bbox is a list of 3"),
        ({"annotations": [boxes()[0] | {"bbox": [1, 2, 3, -4]}]}, r"\[0\]\.bbox"),
    ],
)
def test_bad_annotations_are_refused_with_their_key(
    coco: dict[str, ModuleType], write: Write, keys: dict[str, Any], message: str
) -> None:
    path = write(document(**keys))
    with pytest.raises(ConfigError, match=message):
        coco["coco_data"].read_truth(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no list"),
        ("[{", "not JSON"),
        (found(0, image_id=77), r"\[0\]\.image_id is 77"),
        (found(0, category_id=77), r"\[0\]\.category_id is 77"),
        (found(0, score="high"), r"\[0\]\.score is the text 'high'"),
        (found(0, bbox=[0, 0, float("nan"), 1]), r"\[0\]\.bbox"),
    ],
)
def test_bad_detections_are_refused_with_their_key(
    coco: dict[str, ModuleType], write: Write, content: Any, message: str
) -> None:
    truth = coco["coco_data"].read_truth(write(document()))
    with pytest.raises(ConfigError, match=message):
        coco["coco_data"].read_detections(write(content, "results.json"), truth)


def test_classes_get_cocos_ids(coco: dict[str, ModuleType]) -> None:
    categories = coco["coco_categories"]
    official = dict(zip(categories.COCO_IDS, categories.COCO_NAMES, strict=True))
    assert len(official) == 80
    known = {1: "person", 11: "fire hydrant", 13: "stop sign", 18: "dog", 90: "toothbrush"}
    assert {number: official[number] for number in known} == known
    mapped = categories.ids_of_classes(official)
    assert (mapped[0], mapped[16], mapped[79]) == (1, 18, 90)
    assert categories.ids_of_classes(dict.fromkeys(official)) == mapped


def test_own_ids_are_matched_by_name(
    coco: dict[str, ModuleType], caplog: pytest.LogCaptureFixture
) -> None:
    ids_of_classes = coco["coco_categories"].ids_of_classes
    assert ids_of_classes({0: "helmet", 1: "Dog"}) == {16: 1}
    assert "helmet: they count as missed" in caplog.text
    with pytest.raises(ConfigError, match="helmet"):
        ids_of_classes({0: "helmet"})


@pytest.mark.parametrize(
    ("width", "height", "corners", "box"),
    [
        (640, 640, (10, 20, 30, 50), (10, 20, 20, 30)),
        (320, 160, (0, 160, 640, 480), (0, 0, 320, 160)),
        (320, 160, (320, 240, 400, 280), (160, 40, 40, 20)),
        (100, 80, (-50, -50, 900, 900), (0, 0, 100, 80)),
    ],
)
def test_boxes_come_back_from_the_letterbox(
    coco: dict[str, ModuleType],
    width: int,
    height: int,
    corners: tuple[float, ...],
    box: tuple[float, ...],
) -> None:
    place = coco["coco_detector"].Letterbox.of(width, height, 640)
    assert place.to_image(corners) == pytest.approx(box)


# ------------------------------------------------------------------ the script


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The two annotated images in uniform grey, and a third that nobody annotated."""
    image_module = pytest.importorskip("PIL.Image")
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (1, 2, 3):
        image_module.new("RGB", (100, 80), (90 + number, 90, 90)).save(
            folder / f"{number:012d}.jpg"
        )
    return folder


@needs_pycocotools
def test_script_on_a_results_file(
    coco: dict[str, ModuleType], write: Write, capsys: pytest.CaptureFixture[str], images: Path
) -> None:
    words = ["--annotations", str(write(document())), "--detections"]
    words.append(str(write(found(0, 1), "results.json")))
    assert coco["evaluate"].main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["images"], result["annotations"], result["detections"]) == (2, 3, 2)
    assert set(result["f1"]) == {"coco", "operating-point"}
    assert result["f1"]["operating-point"]["recall"] == pytest.approx(2 / 3)
    assert "categories" not in result
    assert coco["evaluate"].main([*words, "--per-category"]) == 0
    text = capsys.readouterr().out
    assert "mAP@.5 " in text
    assert "dog" in text
    # In a folder with one of the images, nothing is missed.
    (images / "000000000002.jpg").unlink()
    assert coco["evaluate"].main([*words, "--images", str(images), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["map_50_95"] == pytest.approx(1.0)


@needs_pycocotools
def test_script_writes_a_copy_of_the_profile(
    coco: dict[str, ModuleType],
    write: Write,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    original = ROOT / "configs" / "profiles" / "video-epyc-9005-2vcpu.csv"
    copy = tmp_path / "copy.csv"
    words = ["--annotations", str(write(document()))]
    words += ["--detections", str(write(found(0, 1), "results.json"))]
    words += ["--profile", str(original), "--profile-out", str(copy), "--metric", "map_50"]
    assert coco["evaluate"].main([*words, "--variant", "yolov5n"]) == 0
    capsys.readouterr()
    expected = pytest.approx((51 / 101 + 1) / 2)
    for before, after in zip(read_profile(original), read_profile(copy), strict=True):
        changed = after.variant == "yolov5n"
        assert after.accuracy == (expected if changed else before.accuracy)
        assert after.joules_per_request == before.joules_per_request
    meta = json.loads(meta_path(copy).read_text())
    assert meta["accuracies"]["crop/yolov5n"]["metric"] == "map_50"
    assert meta["machine"] == json.loads(meta_path(original).read_text())["machine"]
    assert coco["evaluate"].main([*words, "--variant", "yolov5n"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert coco["evaluate"].main([*words, "--variant", "yolov9"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "what is to be evaluated is not said"),
        (["--variant", "yolov5n"], "what is to be evaluated is not said"),
        (["--detections", "d", "--profile", "p"], "belong together"),
        (["--images", "nowhere", "--variant", "yolov5n"], "no such folder"),
        (["--images", ".", "--variant", "yolov9"], "no variant crop/yolov9"),
        (["--images", ".", "--variant", "yolov5n", "--size", "100"], "a multiple of 32"),
    ],
)
def test_script_refuses_bad_use(
    coco: dict[str, ModuleType],
    write: Write,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    assert coco["evaluate"].main(["--annotations", str(write(document())), *words]) == 2
    assert message in capsys.readouterr().err


def test_without_pycocotools_the_extra_is_named(
    coco: dict[str, ModuleType], write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(UnavailableError, match=r"ipa-energy\[accuracy\]"):
        scores(coco, write, found(0))


@pytest.fixture
def libraries() -> Iterator[None]:
    """The networks' libraries; their own deprecation warnings at import are not our concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("torch", "torchvision", "ultralytics", "pycocotools"):
            pytest.importorskip(name)
        yield


@pytest.mark.video
@pytest.mark.usefixtures("libraries")
def test_random_network_runs_from_images_to_scores(
    coco: dict[str, ModuleType],
    write: Write,
    images: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (images / "000000000002.jpg").write_bytes(b"not an image")
    out, copy = images.parent / "boxes.json", images.parent / "copy.csv"
    words = ["--annotations", str(write(document())), "--images", str(images)]
    words += ["--variant", "yolov5n", "--size", "64", "--detections-out", str(out), "--json"]
    assert coco["evaluate"].main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["images"], result["weights"]) == (1, "random")
    assert "random weights" in caplog.text
    assert "cannot be read" in caplog.text
    for box in json.loads(out.read_text()):
        assert box["category_id"] in (PERSON, DOG)
        assert 0 <= box["bbox"][0] <= 100
        assert 0 <= box["bbox"][1] <= 80
    profile = ROOT / "configs" / "profiles" / "video-epyc-9005-2vcpu.csv"
    words += ["--profile", str(profile), "--profile-out", str(copy)]
    assert coco["evaluate"].main(words) == 2
    assert not copy.exists()


@pytest.mark.video
@pytest.mark.usefixtures("libraries")
def test_known_boxes_come_through_the_detector(
    coco: dict[str, ModuleType], write: Write, images: Path
) -> None:
    """A runner that knows the answer, in the network's own output format, scores 1."""
    import torch

    detector = coco["coco_detector"]
    truth = coco["coco_data"].read_truth(write(document()))
    place = detector.Letterbox.of(100, 80, 64)
    classes = {PERSON: 0, DOG: 16}
    queue = list(truth.pictures)

    def runner(batch: Any) -> Any:
        output = torch.zeros((len(batch), 84, 21))
        for index in range(len(batch)):
            image = queue.pop(0)
            for anchor, box in enumerate(b for b in truth.boxes if b["image_id"] == image):
                x, y, width, height = box["bbox"]
                centre = ((x + width / 2) * place.scale, (y + height / 2) * place.scale)
                sides = (width * place.scale, height * place.scale)
                for twin in (0, 10):  # the same box twice: suppression leaves one
                    column = output[index, :, anchor + twin]
                    column[0], column[1] = centre[0] + place.left, centre[1] + place.top
                    column[2], column[3] = sides
                    column[4 + classes[box["category_id"]]] = 0.9 - twin / 100
        return output

    settings = detector.Settings(size=64, batch=1)
    paths = detector.find_images(images, truth)
    boxes_found, read = detector.detect(runner, paths, truth, settings)
    assert read == {1, 2}
    assert len(boxes_found) == 3
    result = coco["coco_scores"].score(truth, boxes_found)
    assert result.map_50_95 == pytest.approx(1.0)


@pytest.mark.video
@pytest.mark.usefixtures("libraries")
def test_suppression_leaves_the_boxes_that_ultralytics_leaves(coco: dict[str, ModuleType]) -> None:
    import torch
    from torchvision.ops import batched_nms

    place = "nms" if importlib.util.find_spec("ultralytics.utils.nms") else "ops"
    reference = importlib.import_module(f"ultralytics.utils.{place}").non_max_suppression
    generator = torch.Generator().manual_seed(3)
    output = torch.rand((1, 84, 500), generator=generator)
    output[:, :2] *= 640
    output[:, 2:4] = 20 + 150 * output[:, 2:4]
    output[:, 4:] = output[:, 4:] ** 40
    settings = coco["coco_detector"].Settings()
    kept = coco["coco_detector"]._suppressed(output[0], settings, batched_nms)
    (expected,) = reference(output.clone(), 0.001, 0.7, multi_label=True, max_det=300)
    ours = {(round(score, 4), index) for _, index, score in kept}
    assert ours == {(round(row[4], 4), int(row[5])) for row in expected.tolist()}
    assert len(ours) > 200
