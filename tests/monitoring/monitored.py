"""An exporter of a made-up pipeline, every family of it filled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ipa_energy.serving.deployment import StageState
from ipa_energy.serving.local.cpu_ledger import Sample
from ipa_energy.serving.local.exporter import Exporter
from ipa_energy.serving.local.router import Trip
from ipa_energy.serving.observed import AdapterFigures, Scale, StageJoules
from ipa_energy.testing import fake_stages

SLA_S = 0.4


class Queue(list[Any]):
    """A stage's queue, of which an exporter wants the name and the length."""

    def __init__(self, stage: str, waiting: int) -> None:
        super().__init__(range(waiting))
        self.stage = stage


def fleet(index: int) -> Any:
    stage = fake_stages()[index]
    option = stage.options[0]
    state = StageState(stage.name, option, ready=2, starting=1)
    members = [SimpleNamespace(option=option)] * 3
    return SimpleNamespace(
        queue=Queue(stage.name, 3), repaired=1, members=members, states=lambda: (state,)
    )


def trip(latency_s: float, **further: Any) -> Trip:
    served = [100.1, 100.2] if "trouble" not in further else [100.1]
    return Trip("1", 0.0, latency_s, served_s=served, **further)


def figures(**further: Any) -> AdapterFigures:
    known: dict[str, Any] = {
        "status": "optimal",
        "told_at_s": 1.7e9,
        "accuracy": 1.2,
        "predicted_load_rps": 11.0,
        "planned_load_rps": 12.0,
        "decision_s": 0.003,
        "objective": {"accuracy": 2.0, "energy": 0.5},
        "scales": (Scale("crop", "yolov5n", "1c", 1.2, 1.25, 1.0),),
        "joules": (
            StageJoules(
                stage="crop",
                variant="yolov5n",
                allocation="1c",
                requests=50,
                load_rps=5.0,
                batch_fill=1.0,
                live_j=2.4,
                profile_j=2.0,
                is_clean=True,
            ),
        ),
    }
    return AdapterFigures(**{**known, **further})


def filled_exporter(**named: Any) -> Exporter:
    by_variant = {
        ("crop", "yolov5n", "rapl", "measured"): (10.0, 20.0),
        ("classification", "resnet18", "rapl", "measured"): (1.0, 2.0),
    }
    ledger: Any = SimpleNamespace(by_variant=by_variant)
    known = {"latency_sla_s": SLA_S, "energy_sla_j": 5.0, "meter": "rapl"}
    exporter = Exporter("video", [fleet(0), fleet(1)], ledger, **{**known, **named})
    for at_s, joules in ((10.0, 0.0), (10.5, 2.0)):
        exporter.sampled(
            Sample(at_s, (joules, 0), (2 * joules, 0), (0, 0), {"router": joules}, meter="rapl")
        )
    for latency_s in (0.1, 0.4, 0.41):
        exporter.left(trip(latency_s))
    exporter.left(trip(0.1, trouble="old", is_dropped=True))
    exporter.left(trip(0.1, trouble="broken"))
    exporter.told(figures())
    return exporter
