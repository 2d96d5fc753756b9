"""The audio pipeline: its list of variants, and that its networks build, answer and refuse."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ipa_energy.errors import ConfigError, UnavailableError
from ipa_energy.pipeline_models import find_pipeline, find_variant, load_pipeline

ROOT = Path(__file__).parents[2]
GIVEN = {"weights": None, "threads": 1, "device": "cpu"}


@pytest.fixture
def pipeline():
    return load_pipeline(str(ROOT / "pipelines/audio"))


@pytest.fixture
def libraries():
    pytest.importorskip("transformers")
    return pytest.importorskip("torch")


def test_is_found_by_the_name_that_ipa_gives_it(pipeline):
    assert load_pipeline(find_pipeline("audio-sent")).VARIANTS == pipeline.VARIANTS
    accuracies = {(v.stage, v.name): v.accuracy for v in pipeline.VARIANTS}
    assert accuracies == {
        ("audio", "s2t-small"): 0.956,
        ("audio", "s2t-medium"): 0.966,
        ("nlp-sent", "distilbert"): 0.913,
        ("nlp-sent", "bert"): 0.927,
    }


def test_its_clips_are_made_without_the_networks_libraries():
    code = (
        "import sys; import pipelines.audio.pipeline as p; "
        "assert p.requests(0, 2) == p.requests(0, 2) != p.requests(1, 2); "
        "assert {len(clip) for clip in p.requests(0, 2)} == {2 * 16_000 * 58 // 10}; p.versions(); "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_clip_becomes_twenty_tokens_and_these_a_mood(pipeline, libraries):
    listen = pipeline.handler(find_variant(pipeline, "audio", "s2t-small"), **GIVEN)
    clips = [pipeline.requests(0, 1)[0], b"\0" * 32_000]  # 5.8 s of noise, 1 s of silence
    texts = listen(clips)
    tokens = [json.loads(text) for text in texts]
    assert [len(text) for text in tokens] == [20, 20]
    assert listen(clips[:1]) == texts[:1]
    for garbage in (b"\0" * 31_999, b"\0" * 100, b"\0" * 960_002):
        with pytest.raises(ValueError, match=f"element 1 of {len(garbage)} bytes is no clip"):
            listen([clips[0], garbage])

    judge = pipeline.handler(find_variant(pipeline, "nlp-sent", "distilbert"), **GIVEN)
    moods = [json.loads(answer) for answer in judge(texts)]
    assert {mood["weights"] for mood in moods} == {"random"}
    assert all(mood["mood"] in ("negative", "positive") for mood in moods)
    assert all(0.5 <= mood["score"] <= 1 for mood in moods)
    for garbage in (b"[1, 2]", b"{}", b"[" + b"1.5, " * 19 + b"1]", b"[" * 9000):
        with pytest.raises(ValueError, match=f"element 0 of {len(garbage)} bytes is no text"):
            judge([garbage])


def test_loads_given_weights_and_refuses_those_of_another_network(pipeline, libraries, tmp_path):
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    variant = find_variant(pipeline, "nlp-sent", "distilbert")
    libraries.manual_seed(7)
    source = DistilBertForSequenceClassification(DistilBertConfig(num_labels=2)).eval()
    path = tmp_path / "weights.pt"
    libraries.save(source.state_dict(), path)
    batch = pipeline.sample(variant, 2, 0)
    ours = pipeline.build(variant, weights=str(path))(batch)
    with libraries.inference_mode():
        assert libraries.allclose(ours, source(input_ids=batch).logits, atol=1e-4)
    for other, why in (("bert", "parameters are not its"), ("distilbert", "cannot load")):
        if other == "distilbert":
            path.write_bytes(b"no weights")
        with pytest.raises(ConfigError, match=why) as caught:
            pipeline.build(find_variant(pipeline, "nlp-sent", other), weights=str(path))
        assert str(path) in str(caught.value)


def test_a_gpu_is_refused(pipeline):
    variant = find_variant(pipeline, "audio", "s2t-small")
    with pytest.raises(UnavailableError, match="runs on CPUs alone"):
        pipeline.handler(variant, weights=None, threads=1, device="cuda")
