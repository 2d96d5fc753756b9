"""Profiles of lone replicas: decisions are those from before plans knew figures for n replicas."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ipa_energy.optimizer.solve import decide
from ipa_energy.planning.planner import load_planner

ROOT = Path(__file__).parent.parent.parent
PROFILE = "video-epyc-9004-2vcpu.csv"

# Of every plan's label and objective at loads of 0.5 to 40 requests a second; stored at 6335ad8.
STORED = {
    (None, 0.0): "7dd3b3fff789f595",
    (None, 2.0): "1e38836f4709c2ff",
    ("fa2-low", 2.0): "64ade3433ebd4c6d",
    ("rim-high", 2.0): "0f4467d801397780",
}


@pytest.mark.parametrize(("policy", "weight"), STORED)
def test_decisions_on_lone_replicas_are_as_before(policy: str | None, weight: float) -> None:
    changes = {"profile": str(ROOT / "configs" / "profiles" / PROFILE), "energy_weight": weight}
    planner = load_planner(ROOT / "configs" / "video.yaml", changes, policy=policy)
    digest = hashlib.sha256()
    for load_rps in (0.5, 1, 2, 3.5, 7, 10, 14, 20, 28, 40):
        result = decide(planner.program, load_rps, top_k=3)
        for plan in result.plans:
            digest.update(f"{plan.label} {plan.objective:.12g}\n".encode())
        digest.update(f"{result.conflict}\n".encode())
    assert digest.hexdigest()[:16] == STORED[policy, weight]
