"""The video pipeline: its list of variants, and that the networks build and answer."""

import io
import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from ipa_energy.errors import ConfigError, UnavailableError
from ipa_energy.pipeline_models import find_variant, load_pipeline

ROOT = Path(__file__).parents[2]
video = pytest.mark.video


@pytest.fixture
def pipeline():
    return load_pipeline(str(ROOT / "pipelines/video"))


@pytest.fixture
def libraries():
    """The networks' libraries; their own deprecation warnings at import are not our concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("torch", "torchvision", "ultralytics"):
            pytest.importorskip(name)
        yield pytest.importorskip("torch")


def test_lists_ipas_variants_with_published_accuracies_as_ratios(pipeline):
    figures = {(v.stage, v.name): v.accuracy for v in pipeline.VARIANTS}
    assert figures == {
        ("crop", "yolov5n"): 0.457,
        ("crop", "yolov5s"): 0.568,
        ("crop", "yolov5m"): 0.641,
        ("crop", "yolov5l"): 0.673,
        ("crop", "yolov5x"): 0.689,
        ("classification", "resnet18"): 0.6975,
        ("classification", "resnet34"): 0.7331,
        ("classification", "resnet50"): 0.7613,
        ("classification", "resnet101"): 0.7737,
        ("classification", "resnet152"): 0.7831,
    }


def test_listing_the_variants_imports_no_network_library():
    code = (
        "import sys; import pipelines.video.pipeline as p; p.VARIANTS; p.versions(); "
        "sys.exit(bool({'torch', 'torchvision', 'ultralytics'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@video
@pytest.mark.parametrize(
    ("stage", "name", "shape"),
    [("crop", "yolov5n", (2, 84, 84)), ("classification", "resnet18", (2, 1000))],
)
def test_smallest_variant_answers_a_batch(pipeline, libraries, stage, name, shape):
    variant = replace(find_variant(pipeline, stage, name), input_shape=(3, 64, 64))
    batch = pipeline.sample(variant, 2, 0)
    assert batch.shape == (2, 3, 64, 64)
    output = pipeline.build(variant, weights=None, threads=1)(batch)
    assert tuple(output.shape) == shape
    assert not output.requires_grad
    assert bool(libraries.isfinite(output).all())


@video
@pytest.mark.parametrize(("stage", "name"), [("crop", "yolov5n"), ("classification", "resnet18")])
def test_half_as_many_bits_answer_nearly_the_same(pipeline, libraries, stage, name):
    variant = replace(find_variant(pipeline, stage, name), input_shape=(3, 64, 64))
    batch = pipeline.sample(variant, 2, 0)
    whole, half = (
        pipeline.build(variant, weights=None, threads=1, precision=precision)(batch)
        for precision in ("float32", "bfloat16")
    )
    assert (whole.dtype, half.dtype) == (libraries.float32, libraries.bfloat16)
    assert float(libraries.linalg.norm(half.float() - whole)) < 0.05 * float(
        libraries.linalg.norm(whole)
    )


@video
def test_gpu_that_cannot_be_used_is_said_with_the_fix(pipeline, libraries, monkeypatch):
    monkeypatch.setattr(libraries.version, "cuda", None)
    with pytest.raises(UnavailableError, match="built without CUDA; fix: install"):
        pipeline.gpu()
    monkeypatch.setattr(libraries.version, "cuda", "12.4")
    monkeypatch.setattr(libraries.cuda, "is_available", lambda: False)
    variant = find_variant(pipeline, "classification", "resnet18")
    with pytest.raises(UnavailableError, match=r"CUDA 12\.4\) can use no GPU; fix: a GPU"):
        pipeline.build(variant, weights=None, threads=1, device="cuda")


@video
@pytest.mark.gpu
@pytest.mark.parametrize(("stage", "name"), [("crop", "yolov5n"), ("classification", "resnet18")])
def test_gpu_answers_what_the_cpu_answers_when_it_is_done(pipeline, libraries, stage, name):
    torch = libraries
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU: PyTorch sees none")
    variant = replace(find_variant(pipeline, stage, name), input_shape=(3, 64, 64))
    batch = pipeline.sample(variant, 2, 0)
    on_gpu = pipeline.build(variant, weights=None, threads=1, device="cuda")(batch)
    assert torch.cuda.current_stream().query(), "the GPU still works"
    on_cpu = pipeline.build(variant, weights=None, threads=1)(batch)
    assert torch.allclose(on_gpu.cpu(), on_cpu, atol=0.1, rtol=0.05)
    assert pipeline.gpu()["multiprocessors"] > 0
    assert pipeline.peak_gpu_memory_bytes() > 1e6


@video
def test_classifier_takes_real_weights(pipeline, libraries, tmp_path):
    import torchvision

    torch = libraries
    variant = replace(find_variant(pipeline, "classification", "resnet18"), input_shape=(3, 64, 64))
    torch.manual_seed(7)
    source = torchvision.models.resnet18(weights=None).eval()
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    batch = pipeline.sample(variant, 1, 0)
    ours = pipeline.build(variant, weights=str(tmp_path / "weights.pt"), threads=1)(batch)
    with torch.inference_mode():
        theirs = source(batch)
    assert torch.allclose(ours, theirs, atol=1e-3)
    random = pipeline.build(variant, weights=None, threads=1)(batch)
    assert not torch.allclose(random, theirs, atol=1e-3)


@video
def test_detector_takes_real_weights(pipeline, libraries, tmp_path):
    from ultralytics import YOLO

    torch = libraries
    variant = replace(find_variant(pipeline, "crop", "yolov5n"), input_shape=(3, 64, 64))
    torch.manual_seed(7)
    model = YOLO("yolov5n.yaml", verbose=False)
    model.save(str(tmp_path / "weights.pt"))
    batch = pipeline.sample(variant, 1, 0)
    ours = pipeline.build(variant, weights=str(tmp_path / "weights.pt"), threads=1)(batch)
    with torch.no_grad():
        theirs = model.model.eval()(batch)[0]
    assert torch.allclose(ours, theirs, atol=0.1, rtol=0.05)
    random = pipeline.build(variant, weights=None, threads=1)(batch)
    assert not torch.equal(random, ours)


@video
@pytest.mark.parametrize(
    "label", [("crop", "yolov5n"), ("classification", "resnet18")], ids=lambda label: label[1]
)
@pytest.mark.parametrize("content", [None, b"no weights"], ids=["missing", "garbage"])
def test_weights_that_do_not_load_are_refused_by_name(
    pipeline, libraries, tmp_path, label, content
):
    path = tmp_path / "weights.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=label[1]) as caught:
        pipeline.build(find_variant(pipeline, *label), weights=str(path), threads=1)
    assert str(path) in str(caught.value)


@video
def test_weights_of_another_variant_are_refused(pipeline, libraries, tmp_path):
    import torchvision
    from ultralytics import YOLO

    resnet, yolo = str(tmp_path / "resnet18.pt"), str(tmp_path / "yolov5n.pt")
    libraries.save(torchvision.models.resnet18().state_dict(), resnet)
    YOLO("yolov5n.yaml", verbose=False).save(yolo)
    for stage, name, weights in (("classification", "resnet34", resnet), ("crop", "yolov5s", yolo)):
        with pytest.raises(ConfigError, match=name):
            pipeline.build(find_variant(pipeline, stage, name), weights=weights, threads=1)


@video
def test_served_stages_hand_a_picture_on_and_say_what_it_shows(pipeline, libraries):
    pictures = pipeline.requests(0, 2)
    assert pictures == pipeline.requests(0, 2) != pipeline.requests(1, 2)
    assert all(50_000 < len(picture) < 75_000 for picture in pictures)
    detector, classifier = find_variant(pipeline, "crop", "yolov5n"), "resnet18"
    given = {"weights": None, "threads": 1, "device": "cpu"}
    crops = pipeline.handler(detector, **given)(pictures)
    assert crops == pictures  # random weights see nobody
    classify = pipeline.handler(find_variant(pipeline, "classification", classifier), **given)
    answers = [json.loads(answer) for answer in classify(crops)]
    assert [sorted(answer) for answer in answers] == [["class", "label", "score", "weights"]] * 2
    assert {answer["weights"] for answer in answers} == {"random"}
    for garbage in (b"no picture", pictures[0][:9000], b"\x89PNG" + b"\0" * 40):
        with pytest.raises(ValueError, match=f"element 1 of {len(garbage)} bytes: it cannot"):
            classify([crops[0], garbage])


@video
def test_the_surest_person_is_cut_out(pipeline, libraries):
    from PIL import Image

    from pipelines.video import serving

    variant = replace(find_variant(pipeline, "crop", "yolov5n"), input_shape=(3, 64, 64))
    boxes = libraries.zeros((1, 84, 3))
    # In a picture twice as wide as high, letterboxed: 16 grey rows above and below.
    boxes[0, :5, 0] = libraries.tensor([16.0, 32.0, 16.0, 16.0, 0.5])
    boxes[0, :5, 1] = libraries.tensor([40.0, 32.0, 32.0, 8.0, 0.9])
    boxes[0, 6, 2] = 0.95  # a bicycle
    answer = serving.handler(variant, lambda batch: boxes, weights="some", device="cpu")
    picture = Image.new("RGB", (256, 128))
    picture.paste((255, 0, 0), (96, 48, 224, 80))
    (crop,) = answer([serving._jpeg(picture, 90)])
    with Image.open(io.BytesIO(crop)) as cut:
        assert cut.size == (128, 32)
        red, green, blue = cut.convert("RGB").getpixel((64, 16))
    assert red > 240
    assert green < 20
    assert blue < 20


@video
def test_a_stage_that_sees_several_gets_every_person_once(pipeline, libraries):
    from PIL import Image

    from pipelines.video import serving

    variant = replace(find_variant(pipeline, "crop", "yolov5n"), input_shape=(3, 64, 64))
    boxes = libraries.zeros((2, 84, 4))  # in the second picture nobody
    for anchor, (x, width, score) in enumerate(
        ((16.0, 16.0, 0.5), (17.0, 16.0, 0.9), (48.0, 8.0, 0.6), (32.0, 8.0, 0.1))
    ):
        boxes[0, :5, anchor] = libraries.tensor([x, 32.0, width, 16.0, score])
    picture = serving._jpeg(Image.new("RGB", (64, 64)), 90)
    given = {"device": "cpu", "yields": 2.0}
    found = serving.handler(variant, lambda _: boxes, weights="some", **given)([picture] * 2)
    sizes = [[Image.open(io.BytesIO(crop)).size for crop in crops] for crops in found]
    assert sizes == [[(16, 16), (8, 16)], []]  # the one beside the surest is the same person
    given["yields"] = 2.5
    made_up = serving.handler(variant, lambda _: boxes, weights=None, **given)
    counts = {len(crops) for _ in range(30) for crops in made_up([picture] * 2)}
    assert counts == {2, 3}


@video
def test_quickly_made_weights_are_spread_as_the_usual_ones(pipeline, libraries):
    from torch.nn import init

    from ipa_energy.torch_networks import quickly_random

    usual = init.kaiming_normal_
    fan_out = {"mode": "fan_out", "nonlinearity": "relu"}
    slow, quick = (libraries.empty(256, 128, 3, 3) for _ in range(2))
    init.kaiming_normal_(slow, **fan_out)
    with quickly_random():
        init.kaiming_normal_(quick, **fan_out)
    assert init.kaiming_normal_ is usual
    assert float(quick.std() / slow.std()) == pytest.approx(1, abs=0.02)
    assert float(quick.mean()) == pytest.approx(0, abs=0.001)
