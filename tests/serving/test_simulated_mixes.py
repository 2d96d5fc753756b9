"""Stages that run several options at once, in the simulation: shares, joules, changes."""

from __future__ import annotations

import numpy as np
import pytest
from option_maker import make_option

from ipa_energy.records import Option, Part, Stage
from ipa_energy.serving.deployment import DeployedStage, changed_stages, short_of
from ipa_energy.serving.simulated.backend import SimulatedBackend

LIGHT = make_option("light", latency_s=0.01, throughput_rps=100.0, dynamic_energy_j=1.0,
                    idle_power_w=0.5)  # fmt: skip
HEAVY = make_option("heavy", latency_s=0.05, throughput_rps=20.0, dynamic_energy_j=10.0,
                    idle_power_w=2.0)  # fmt: skip
STAGE = Stage("s", "node", (LIGHT, HEAVY))


def mixed(light: int, heavy: int, share: float) -> DeployedStage:
    parts = (
        Part(LIGHT, light, (("", share),)),
        Part(HEAVY, heavy, (("", 1 - share),)),
    )
    return DeployedStage("s", LIGHT, light + heavy, parts=parts)


def backend(start: DeployedStage, told_s: float = 0.0) -> SimulatedBackend:
    return SimulatedBackend([STAGE], (start,), seed=0, reconfiguration_s=told_s)


def sent(start_s: float, end_s: float, rps: float = 10.0) -> np.ndarray:
    return np.arange(start_s, end_s, 1 / rps) + 0.001


def test_requests_are_dealt_out_by_share() -> None:
    served = backend(mixed(1, 1, 0.75)).serve(sent(0, 20), 20.0)
    assert served.dynamic_j.sum() == pytest.approx(150 * 1.0 + 50 * 10.0)
    assert served.idle_j.sum() == pytest.approx(20 * (0.5 + 2.0))
    assert (served.requests.dropped_at < 0).all()


def test_a_batch_of_one_part_waits_for_its_own_requests() -> None:
    """Every fourth of ten a second comes to a part with batches of two: 0.4 s apart."""
    pairs = make_option("pairs", 2, latency_s=0.05, throughput_rps=40.0, dynamic_energy_j=1.0)
    stage = Stage("s", "node", (LIGHT, pairs))
    parts = (Part(LIGHT, 1, (("", 0.75),)), Part(pairs, 1, (("", 0.25),)))
    start = DeployedStage("s", LIGHT, 2, parts=parts)
    made = SimulatedBackend([stage], (start,), seed=0, batch_timeout_s=[5.0])
    requests = made.serve(sent(0, 20), 20.0).requests
    waits_s = np.round(requests.started_s[:, 0] - requests.queued_s[:, 0], 6)
    assert sorted(set(waits_s.tolist())) == [0.0, 0.4]


def test_shares_change_when_what_they_need_is_ready() -> None:
    made = backend(DeployedStage("s", HEAVY, 2), told_s=5.0)
    made.serve(sent(0, 10), 10.0)
    made.deploy((mixed(1, 1, 0.5),))
    during = made.serve(sent(10, 15), 15.0)
    assert during.dynamic_j.sum() == pytest.approx(50 * 10.0, rel=0.05)  # heavy alone still serves
    after = made.serve(sent(15, 35), 35.0)
    assert after.dynamic_j.sum() == pytest.approx(100 * 1.0 + 100 * 10.0, rel=0.05)
    assert {(s.option.variant, s.ready) for s in made.deployed()} == {("light", 1), ("heavy", 1)}
    made.deploy((DeployedStage("s", LIGHT, 1),))
    last = made.serve(sent(35, 55), 55.0)
    assert last.dynamic_j.sum() == pytest.approx(200 * 1.0, rel=0.05)
    assert {(s.option.variant, s.ready) for s in made.deployed()} == {("light", 1)}
    made.finish()


def test_no_request_is_lost_or_served_twice_through_many_changes() -> None:
    rng = np.random.default_rng(1)
    made = backend(mixed(2, 2, 0.5), told_s=1.5)
    ids: list[int] = []
    for window in range(60):
        kind = rng.integers(4)
        options = [DeployedStage("s", LIGHT, 2), DeployedStage("s", HEAVY, 2)]
        options += [mixed(1 + int(rng.integers(2)), 2, float(rng.uniform(0.1, 0.9)))] * 2
        made.deploy((options[kind],))
        ids += made.serve(sent(window, window + 1), window + 1.0).requests.request_id.tolist()
    ids += made.finish().requests.request_id.tolist()
    assert sorted(ids) == list(range(600))


def test_other_shares_are_a_change_and_missing_parts_are_missed() -> None:
    assert changed_stages([mixed(1, 1, 0.5)], [mixed(1, 1, 0.75)]) == ["s"]
    assert changed_stages([mixed(1, 1, 0.5)], [mixed(1, 1, 0.5)]) == []
    assert short_of((mixed(1, 3, 0.5),), backend(mixed(1, 1, 0.5)).deployed()) == {"s": 2}


def test_whatever_follows_whatever_runs_when_it_is_ready() -> None:
    """Every plan after every other: fewer or more replicas, of new options beside old ones."""
    third = make_option("third", latency_s=0.02, throughput_rps=50.0, dynamic_energy_j=3.0)
    stage = Stage("s", "node", (LIGHT, HEAVY, third))

    def of(*parts: tuple[Option, int, float]) -> DeployedStage:
        made = tuple(Part(option, count, (("", share),)) for option, count, share in parts)
        total = sum(count for _, count, _ in parts)
        return DeployedStage("s", parts[0][0], total, parts=made if len(made) > 1 else ())

    plans = [
        of((LIGHT, 2, 1.0)),
        of((HEAVY, 1, 1.0)),
        of((HEAVY, 1, 0.25), (LIGHT, 1, 0.75)),
        of((third, 1, 0.5), (HEAVY, 1, 0.5)),
        of((third, 3, 0.2), (LIGHT, 2, 0.8)),
        of((third, 1, 0.1), (HEAVY, 1, 0.2), (LIGHT, 1, 0.7)),
    ]
    joules = [1.0, 10.0, 3.25, 6.5, 1.4, 3.0]
    pairs = [(a, b) for a in range(len(plans)) for b in range(len(plans)) if a != b]
    for a, b in pairs:
        made = SimulatedBackend([stage], (plans[a],), seed=0, reconfiguration_s=2.0)
        made.deploy((plans[b],))
        made.serve(sent(0, 4), 4.0)
        served = made.serve(sent(4, 14), 14.0)
        runs = {s.option.variant: (s.ready, s.starting) for s in made.deployed()}
        assert runs == {lane.option.variant: (lane.replicas, 0) for lane in plans[b].lanes}, (a, b)
        assert served.dynamic_j.sum() == pytest.approx(100 * joules[b], rel=0.03), (a, b)
