"""Plans of a small pipeline and how they are rendered, for every test of this folder."""

from __future__ import annotations

from option_maker import make_option

from ipa_energy.config.sections import KubernetesConfig
from ipa_energy.records import EVERY_CLASS, Option, Part
from ipa_energy.serving.deployment import DeployedStage, Deployment
from ipa_energy.serving.kubernetes.manifests import Model, Rendering


def model_of(stage: str, option: Option) -> Model:
    """A stub."""
    return Model("made.up.Stub", {"stage": stage, "threads": max(1, round(option.cpu_cores))})


def rendering(**settings: object) -> Rendering:
    """Of the pipeline ``video`` in the namespace ``lab``."""
    return Rendering(
        "video",
        "lab",
        KubernetesConfig.model_validate(settings),
        model_of,
        drain_s={"crop": 3.2},
        token="t0ken",
    )


def stage(
    name: str = "crop",
    variant: str = "yolov5n",
    *,
    cores: float = 1,
    replicas: int = 1,
    batch: int = 1,
) -> DeployedStage:
    """What one stage runs."""
    return DeployedStage(name, make_option(variant, batch, cpu_cores=cores), replicas)


def mix(*parts: tuple[DeployedStage, float], name: str = "crop") -> DeployedStage:
    """Several options of a stage at once, each with its share."""
    each = tuple(Part(one.option, one.replicas, ((EVERY_CLASS, share),)) for one, share in parts)
    return DeployedStage(name, each[0].option, sum(part.replicas for part in each), parts=each)


def plan(crop: DeployedStage | None = None, other: DeployedStage | None = None) -> Deployment:
    """Of both stages."""
    return (crop or stage(), other or stage("classification", "resnet18"))
