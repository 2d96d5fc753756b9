"""Language models with forced lengths: so many tokens, whatever the weights."""

from __future__ import annotations

import pytest

from ipa_energy.errors import ConfigError
from ipa_energy.pipeline_models import find_pipeline, find_variant, load_pipeline


@pytest.fixture
def pipeline():
    return load_pipeline(find_pipeline("llm-local"))


def test_a_size_with_a_length_is_a_variant(pipeline):
    found = {variant.name: pipeline.tokens_of(variant) for variant in pipeline.VARIANTS}
    assert found["gpt2-128"] == 128
    assert found["gpt2-large-32"] == 32
    by_size = {v.name.rpartition("-")[0]: v.accuracy for v in pipeline.VARIANTS}
    assert by_size["gpt2"] < by_size["gpt2-medium"] < by_size["gpt2-large"]


def test_as_many_tokens_are_made_as_the_variant_says(pipeline):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    variant = find_variant(pipeline, "generate", "gpt2-32")
    run = pipeline.build(variant, weights=None, threads=1)
    prompts = pipeline.sample(variant, 2, 0)
    made = run(prompts)
    assert tuple(made.shape) == (2, 32)
    assert torch.equal(made, run(prompts))
    assert set(pipeline.versions()) == {"torch", "transformers"}


def test_weights_are_refused_with_the_way_to_profile_trained_ones(pipeline):
    variant = find_variant(pipeline, "generate", "gpt2-32")
    with pytest.raises(ConfigError, match="profile-endpoint"):
        pipeline.build(variant, weights="trained.pt", threads=1)
