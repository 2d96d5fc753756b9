"""``latency_model: queue``: the formula, and that every solver keeps the SLA by it."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from instances import objective, random_program
from option_maker import make_option

from ipa_energy.as_json import as_json
from ipa_energy.cli import main
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer import exhaustive, mix_uses
from ipa_energy.optimizer.conflict import find_conflict
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.optimizer.queue_wait import (
    EXTRA_REPLICAS,
    delay_probability,
    fill_quantile,
    planned_wait_s,
)
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.solve import solve
from ipa_energy.records import RequestClass, Stage


@pytest.mark.parametrize(
    ("replicas", "busy", "expected"),
    [
        (1, 0.3, 0.3),
        (1, 0.9, 0.9),
        (2, 0.5, 1 / 3),  # C(2, a) = a² / (2 + a)
        (2, 0.9, 1.8**2 / 3.8),
        (3, 2 / 3, 4 / 9),  # a = 2: (8/6)·3 / (1 + 2 + 2 + (8/6)·3)
    ],
)
def test_erlangs_delay_formula(replicas: int, busy: float, expected: float) -> None:
    found = delay_probability(np.array([float(replicas), 7.0]), np.array([busy, 0.1]))
    assert found[0] == pytest.approx(expected)


def test_one_replica_and_no_scatter_waits_as_pollaczek_and_khinchine_have_it() -> None:
    """M/D/1: E[W] = ρ·s / (2·(1 − ρ)); the 99 % quantile is E[W]/ρ · ln(100·ρ)."""
    option = make_option(latency_s=0.1, throughput_rps=10)
    expected = 0.1 / (2 * 0.2) * math.log(80)
    assert planned_wait_s(option, 1, 8) == pytest.approx(expected)


def test_a_few_requests_and_many_replicas_do_not_wait() -> None:
    assert planned_wait_s(make_option(latency_s=0.1, throughput_rps=10), 20, 10) == 0


@pytest.mark.parametrize("batch", [1, 2, 4, 8, 32])
def test_one_in_a_hundred_waits_longer_for_its_batch(batch: int) -> None:
    random = np.random.default_rng(batch)
    gaps = random.exponential(size=(40_000, batch - 1)) if batch > 1 else np.zeros((40_000, 0))
    later = np.cumsum(gaps[:, ::-1], axis=1)  # of the last but one, …, of the first
    waits = np.concatenate([np.zeros(40_000), later.ravel()])
    assert np.mean(waits > fill_quantile(batch)) == pytest.approx(
        0.01 if batch > 1 else 0, abs=1e-3
    )


@functools.cache
def queued(seed: int) -> Problem:
    """A random problem whose latency SLA, if there is one, holds of the queue too."""
    program, load_rps = random_program(seed, stages=1 + seed % 3)
    settings = dataclasses.replace(program.settings, latency_model="queue")
    return Program(program.stages, settings, program.rules).at(load_rps)


def test_options_are_there_on_more_replicas_and_each_carries_the_load() -> None:
    seen = 0
    for seed in range(60):
        problem = queued(seed)
        for stage, rules in zip(problem.stages, problem.rules, strict=True):
            load_rps = stage.stage.requests_per_input * problem.load_rps
            pairs = list(zip(stage.option_index.tolist(), stage.replicas.tolist(), strict=True))
            assert pairs == sorted(set(pairs))
            most = rules.replicas or problem.settings.scaling_cap
            assert all(n <= most for _, n in pairs)
            for index in set(stage.option_index.tolist()):
                of_option = [n for option, n in pairs if option == index]
                seen += len(of_option) > EXTRA_REPLICAS
                option = stage.stage.options[index]
                assert of_option[0] * option.throughput_rps >= load_rps * (1 - 1e-9)
                delays = [stage.delay_s[pairs.index((index, n))] for n in of_option]
                assert (np.diff(delays) <= 1e-12).all()
                wait_s = planned_wait_s(option, of_option[-1], load_rps)
                fill_s = (option.batch - 1) / load_rps
                assert delays[-1] == pytest.approx(option.latency_s + fill_s + wait_s)
    assert seen > 50


@functools.cache
def best_of(seed: int) -> list[Choice]:
    return exhaustive.solve(queued(seed), 1)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pareto", "highs", "gurobi", "auto"])
def test_every_solver_finds_the_best_plan_that_keeps_the_sla_with_its_queue(method: str) -> None:
    found = infeasible = 0
    for seed in range(120):
        problem = queued(seed)
        best = best_of(seed)
        result = solve(problem, method=method, top_k=1)
        if not best:
            infeasible += 1
            assert not result.plans
            continue
        found += 1
        plan = result.plans[0]
        assert plan.certificate.holds
        assert plan.objective == pytest.approx(objective(problem, best[0]), rel=1e-9, abs=1e-9)
        assert all(stage.queue_s is not None for stage in plan.stages)
        assert "queue_s" in as_json(plan)["stages"][0]
    assert found > 40
    assert infeasible > 10


def pipeline_of(scaling_cap: int, sla_s: float) -> Problem:
    """One option of 10 requests a second, whose batches of one take 0.1 s, at 18 a second."""
    stage = Stage("only", "node", (make_option(latency_s=0.1, throughput_rps=10),))
    settings = Settings(
        alpha=1, beta=0.1, gamma=0, scaling_cap=scaling_cap, batching_cap=1,
        latency_sla_s=sla_s, latency_model="queue",
    )  # fmt: skip
    return Program([stage], settings).at(18.0)


def test_a_tight_sla_takes_the_replica_more_that_it_needs() -> None:
    """Two replicas carry the load at ρ = 0.9; a wait of 0.1 s needs a third."""
    replicas = {
        sla_s: solve(pipeline_of(10, sla_s), method="pareto").plans[0].stages[0].replicas
        for sla_s in (2.0, 0.25, 0.12)
    }
    assert replicas == {2.0: 2, 0.25: 3, 0.12: 6}


def test_a_conflict_says_how_many_replicas_the_queue_needs() -> None:
    conflict = find_conflict(pipeline_of(2, 0.25))
    assert "a scaling_cap of at least 3" in str(conflict)
    assert "latency SLA" in str(conflict)


def test_without_it_nothing_of_a_queue_is_told() -> None:
    program, load_rps = random_program(0)
    plan = solve(program.at(load_rps), method="pareto").best
    assert "queue_s" not in as_json(plan)["stages"][0]


def test_classes_of_requests_have_no_queue_of_their_own() -> None:
    program, _ = random_program(4)
    classes = (RequestClass("a", 0.5), RequestClass("b", 0.5))
    settings = dataclasses.replace(program.settings, latency_model="queue", request_classes=classes)
    with pytest.raises(ConfigError, match="queue with classes of requests"):
        Program(program.stages, settings)


def mixing(seed: int) -> Problem:
    program, load_rps = random_program(seed, stages=1)
    ends = [[option.accuracy for option in stage.options] for stage in program.stages]
    floor = 0.6 * sum(map(max, ends)) + 0.4 * sum(map(min, ends))
    settings = dataclasses.replace(
        program.settings, latency_model="queue", mix=True, accuracy_method="sum", alpha=0.0,
        energy_weight=1.0, accuracy_floor=floor or None, latency_sla_s=2.0, scaling_cap=20,
    )  # fmt: skip
    return Program(program.stages, settings, program.rules).at(load_rps)


@pytest.mark.slow
def test_each_part_of_a_mix_waits_no_longer_than_was_planned_and_is_never_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And a mix is as good as one option a stage, whose waits are counted to the digit."""
    monkeypatch.setattr(mix_uses, "MANY_USES", 10_000)
    parts = 0
    for seed in range(24):
        problem = mixing(seed)
        alone = solve(problem.under(dataclasses.replace(problem.settings, mix=False)))
        result = solve(problem, "highs")
        if not alone.plans:
            continue
        best = result.best.objective
        assert best >= alone.best.objective - 1e-8 * max(1.0, abs(alone.best.objective)), seed
        if problem.settings.latency_sla_s is None:
            continue
        assert result.best.latency_s <= problem.settings.latency_sla_s * (1 + 1e-9)
        for stage in result.best.stages:
            for part in stage.parts if len(stage.parts) > 1 else ():
                carries_rps = part.replicas * part.option.throughput_rps
                assert part.share * stage.load_rps <= max(mix_uses.BUSY) * carries_rps * (1 + 1e-8)
                assert part.queue_s == planned_wait_s(
                    part.option, part.replicas, part.share * stage.load_rps
                )
                parts += 1
    assert parts > 1


def test_the_table_of_a_plan_has_the_wait_for_a_replica_so_that_stages_add_up(
    small_pipeline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["optimize", str(small_pipeline), "--load", "6"]
    assert main(words) == 0
    assert "queue s" not in capsys.readouterr().out
    assert main([*words, "--set", "latency_model=queue"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (at,) = [index for index, line in enumerate(lines) if line.startswith("stage ")]
    heads = [head.strip() for head in re.split(r"  +", lines[at])]
    rows = [re.split(r"  +", line) for line in lines[at + 2 : at + 4]]
    columns = [heads.index(name) for name in ("latency s", "wait s", "queue s")]
    delays_s = [float(row[column]) for row in rows for column in columns]
    (total,) = re.findall(r"latency ([0-9.]+) s of", "\n".join(lines))
    assert min(delays_s[2::3]) > 0
    assert sum(delays_s) == pytest.approx(float(total), abs=0.0035)
