"""What a CPU second costs: by a counter, by the model where that fails, and what it adds up to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("grpc")

import itertools

from ipa_energy.errors import ConfigError, MeterUnavailableError
from ipa_energy.meters.power_model import PowerModel
from ipa_energy.serving.local.cpu_ledger import CpuLedger, Sample
from ipa_energy.serving.local.machine_meter import (
    RETRY_S,
    MeteredPrices,
    ModelPrices,
    machine_busy_s,
    prices_for,
)
from ipa_energy.serving.observed import Spent
from ipa_energy.testing import FakeMeter

MODEL = PowerModel(idle_w=4.0, max_w=12.0, cores=2, source="made up")
CALIBRATED = PowerModel(idle_w=10.0, max_w=30.0, cores=2, source="made up", machine="this one")


@dataclass
class World:
    """A machine of two cores on a clock of its own: one replica, the router, and other programs."""

    now_s: float = 100.0
    replica_s: float = 0.0
    router_s: float = 0.0
    others_s: float = 0.0
    energy_j: float = 0.0
    denied: bool = False
    members: list[Any] = field(default_factory=list)
    ended: list[Any] = field(default_factory=list)

    def pass_by(self, seconds: float, *, replica: float, router: float, others: float) -> None:
        """Shares of a core that each keeps busy; 10 W empty, 7 W more a busy core."""
        self.now_s += seconds
        self.replica_s += replica * seconds
        self.router_s += router * seconds
        self.others_s += others * seconds
        self.energy_j += (10.0 + 7.0 * (replica + router + others)) * seconds

    def clock(self) -> float:
        return self.now_s

    def busy_s(self) -> float:
        return self.replica_s + self.router_s + self.others_s

    def meter(self) -> FakeMeter:
        def joules(_: float) -> float:
            if self.denied:
                raise MeterUnavailableError("fake: may not be read any more")
            return self.energy_j

        return FakeMeter(joules, clock=self.clock, min_window_s=0.1)

    def prices(self, model: PowerModel = CALIBRATED) -> MeteredPrices:
        return MeteredPrices(self.meter(), model, busy_s=self.busy_s, now_s=self.clock)

    def ledger(self, prices: Any) -> CpuLedger:
        option = SimpleNamespace(
            variant="yolov5n",
            cpu_cores=1.0,
            allocation=SimpleNamespace(label="1c"),
            embodied_g_per_hour=7.2,
        )
        process = SimpleNamespace(
            cpu_s=lambda: self.replica_s, started_s=self.now_s, ended_s=None, pid=1
        )
        member = SimpleNamespace(
            name="crop-1", option=option, process=process, requests=0, batches=0
        )
        self.members.append(member)
        fleet = SimpleNamespace(
            members=self.members,
            take_ended=lambda: [self.ended.pop()] if self.ended else [],
            queue=SimpleNamespace(stage="crop"),
        )
        sets: Any = [fleet]
        return CpuLedger(prices, sets, {"router": lambda: self.router_s}, now_s=self.clock)


def steps(world: World, ledger: CpuLedger, act: Callable[[int], None], count: int) -> list[Sample]:
    async def go() -> list[Sample]:
        found = [await ledger.sample()]
        for index in range(count):
            act(index)
            found.append(await ledger.sample())
        return found

    return asyncio.run(go())


def test_a_counter_is_split_by_cpu_time_and_nothing_is_lost() -> None:
    world = World()
    ledger = world.ledger(world.prices())
    samples = steps(
        world, ledger, lambda _: world.pass_by(0.5, replica=0.5, router=0.2, others=0.3), 20
    )
    first, last = samples[1], samples[-1]
    assert {sample.meter for sample in samples[1:]} == {"fake"}
    assert {sample.quality for sample in samples[1:]} == {"measured"}
    seconds = last.at_s - first.at_s
    # One of two cores: half of 10 W while it exists; 7 J a CPU second, whoever spent it.
    assert last.idle_j[0] - first.idle_j[0] == pytest.approx(5.0 * seconds)
    assert last.dynamic_j[0] - first.dynamic_j[0] == pytest.approx(7.0 * 0.5 * seconds)
    beside_j = last.overhead_j["router"] - first.overhead_j["router"]
    assert beside_j == pytest.approx(7.0 * 0.2 * seconds)
    assert last.machine_j is not None
    assert first.machine_j is not None
    assert last.machine_j - first.machine_j == pytest.approx(17.0 * seconds)
    # 7.2 g an hour of what the replica holds, whatever it does.
    assert last.embodied_g[0] - first.embodied_g[0] == pytest.approx(0.002 * seconds)


def test_looks_that_come_too_soon_for_the_counter_are_made_up_for() -> None:
    """Every other look is 20 ms after the one before, where the counter needs 100 ms."""
    world = World()
    ledger = world.ledger(world.prices())

    def act(index: int) -> None:
        loads = ((0.5, 0.9), (0.02, 0.1), (0.5, 0.2), (0.02, 1.0))
        seconds, busy = loads[index % 4]
        world.pass_by(seconds, replica=busy, router=0.0, others=0.0)

    samples = steps(world, ledger, act, 40)
    machine_j = [sample.machine_j for sample in samples[2:]]
    assert None not in machine_j
    true_j = 10.0 * (0.5 + 0.02) * 20 + 7.0 * (0.5 * (0.9 + 0.2) + 0.02 * 1.1) * 10
    assert machine_j[-1] == pytest.approx(true_j, rel=0.05)
    samples = [*samples, *steps(world, ledger, act, 1)[1:]]
    spent_j = samples[-1].dynamic_j[0] - samples[1].dynamic_j[0]
    true_j = 7.0 * (0.5 * (0.9 + 0.2) + 0.02 * 1.1) * 10
    assert spent_j == pytest.approx(true_j, rel=0.02)
    assert {sample.meter for sample in samples[1:]} == {"fake"}


def test_replicas_that_reserve_more_cores_than_there_are_share_the_machines_idle_watts() -> None:
    world = World()
    ledger = world.ledger(world.prices())
    world.members *= 6
    samples = steps(
        world, ledger, lambda _: world.pass_by(0.5, replica=0.0, router=0.0, others=0.5), 20
    )
    seconds = samples[-1].at_s - samples[2].at_s
    assert samples[-1].idle_j[0] - samples[2].idle_j[0] == pytest.approx(10.0 * seconds)


def test_a_machine_that_nobody_calibrated_is_as_empty_as_it_was_seen() -> None:
    world = World()
    prices = world.prices(MODEL)
    world.pass_by(1.0, replica=0.0, router=0.0, others=0.5)  # before: 13.5 W
    ledger = world.ledger(prices)
    samples = steps(
        world,
        ledger,
        lambda i: world.pass_by(0.5, replica=0.5 if i > 4 else 0.0, router=0.0, others=0.0),
        20,
    )
    assert prices.empty_w == pytest.approx(10.0)
    late_j = samples[-1].dynamic_j[0] - samples[8].dynamic_j[0]
    assert late_j == pytest.approx(7.0 * 0.5 * (samples[-1].at_s - samples[8].at_s))


def test_a_permission_taken_away_falls_back_with_a_word_and_comes_back_with_one() -> None:
    world = World()
    prices = world.prices(MODEL)
    ledger = world.ledger(prices)
    told: list[str] = []

    def act(index: int) -> None:
        told.extend(prices.take_notes())
        world.denied = 10 <= index < 20
        world.pass_by(0.5, replica=0.5, router=0.1, others=0.1)

    samples = steps(world, ledger, act, 60)
    told += prices.take_notes()
    assert told == [
        "fake: may not be read any more: joules are estimated from CPU time from here on",
        "fake counts again",
    ]
    gone = samples[11:21]
    assert {(s.meter, s.quality) for s in gone} == {("cpu-time", "estimated")}
    # Never a silent 0: a CPU second costs what the model says, (12 − 4) W over two cores.
    for before, after in itertools.pairwise(gone):
        assert after.dynamic_j[0] - before.dynamic_j[0] == pytest.approx(4.0 * 0.25)
    assert samples[-1].meter == "fake"
    back_s = next(s.at_s for s in samples[21:] if s.meter == "fake")
    assert back_s - samples[20].at_s < RETRY_S + 2.0


def test_a_counter_that_stands_still_is_dead_and_never_0_joules() -> None:
    world = World()
    meter = world.meter()
    meter.may_rest = False
    prices = MeteredPrices(meter, MODEL, busy_s=world.busy_s, now_s=world.clock)
    ledger = world.ledger(prices)

    def act(_: int) -> None:
        still_j = world.energy_j
        world.pass_by(0.5, replica=1.0, router=0.0, others=0.0)
        world.energy_j = still_j

    samples = steps(world, ledger, act, 4)
    assert samples[-1].meter == "cpu-time"
    assert samples[-1].dynamic_j[0] == pytest.approx(4.0 * 2.0)
    assert "did not move" in prices.take_notes()[0]


def test_the_model_alone_charges_each_replica_and_knows_no_machine() -> None:
    world = World()
    ledger = world.ledger(ModelPrices(MODEL))
    samples = steps(
        world, ledger, lambda _: world.pass_by(1.0, replica=0.5, router=0.1, others=0.9), 4
    )
    last = samples[-1]
    assert (last.meter, last.quality, last.machine_j) == ("cpu-time", "estimated", None)
    assert (last.idle_j[0], last.dynamic_j[0]) == pytest.approx((2.0 * 4, 4.0 * 2))
    (spent,) = ledger.take_spent()
    assert spent == Spent("crop", "yolov5n 1c", "crop-1", pytest.approx(8.0), pytest.approx(8.0), 2)
    assert ledger.take_spent() == ()


def test_the_kernels_account_of_the_whole_machine_is_read(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 9999 500 6 4 77 100 20\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
    assert machine_busy_s(stat) == pytest.approx(1.6)
    before_s = machine_busy_s()
    assert before_s > 0


def test_meters_that_do_not_count_processors_are_refused_and_none_is_no_trouble(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match="--meter: nvml: the joules of a live run are told apart"):
        prices_for("nvml", tmp_path, MODEL)
    with pytest.raises(MeterUnavailableError):
        prices_for("rapl", tmp_path, MODEL)
    assert isinstance(prices_for("cpu-time", tmp_path, MODEL), ModelPrices)
