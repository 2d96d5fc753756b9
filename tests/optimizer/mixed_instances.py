"""Small seeded random programs with mixes, classes, floors, capacities, and their referee."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from option_maker import make_option
from scipy.optimize import linprog

from ipa_energy.optimizer import mix_uses
from ipa_energy.optimizer.conflict import Relaxation
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.optimizer.queue_wait import (
    EXTRA_REPLICAS,
    fill_quantile,
    planned_wait_s,
    replica_wait_s,
)
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.stage_columns import StageRules
from ipa_energy.records import Allocation, Option, RequestClass, Stage

WIDENINGS = ("classes", "capacity", "floor", "energy", "knobs")


def random_option(rng: np.random.Generator, name: str, batch: int) -> Option:
    latency_s = float(rng.uniform(0.05, 0.5)) * (1 + 0.3 * batch)
    option = make_option(
        name,
        batch,
        latency_s=latency_s,
        throughput_rps=batch / latency_s,
        accuracy=float(rng.uniform(0.2, 1)),
        dynamic_energy_j=float(rng.uniform(0.2, 5)),
        idle_power_w=float(rng.choice([0.1, 1, 6])),
        cpu_cores=float(rng.integers(1, 3)),
    )
    boards = {"board": 1.0} if rng.random() < 0.5 else {}
    return dataclasses.replace(option, allocation=Allocation.of(option.cpu_cores, resources=boards))


def with_classes(rng: np.random.Generator, option: Option, names: list[str]) -> Option:
    """Figures by class; some options cannot serve some classes."""
    served = [name for name in names if rng.random() < 0.85] or names[:1]
    return dataclasses.replace(
        option,
        by_class=tuple(
            (
                name,
                dataclasses.replace(
                    option,
                    latency_s=option.latency_s * float(rng.uniform(0.5, 1.5)),
                    throughput_rps=option.throughput_rps * float(rng.uniform(0.6, 1.4)),
                    dynamic_energy_j=option.dynamic_energy_j * float(rng.uniform(0.3, 2)),
                    accuracy=float(rng.uniform(0.2, 1)),
                ),
            )
            for name in served
        ),
    )


def at_a_lower_clock(option: Option) -> Option:
    """The same model, slower and with fewer joules."""
    kept = [(name, at_a_lower_clock(each)) for name, each in option.by_class]
    labels = tuple(sorted((*option.allocation.labels, ("clock_mhz", 900.0))))
    return dataclasses.replace(
        option,
        allocation=dataclasses.replace(option.allocation, labels=labels),
        latency_s=1.5 * option.latency_s,
        throughput_rps=option.throughput_rps / 1.5,
        dynamic_energy_j=0.6 * option.dynamic_energy_j,
        by_class=tuple(kept),
    )


def mixed_problem(seed: int, widenings: tuple[str, ...]) -> Problem:
    """A program with these widenings; limits lie where they often bind and sometimes exclude."""
    rng = np.random.default_rng([seed, *map(len, widenings)])
    names = ["a", "b"] if "classes" in widenings else []
    stages = []
    for number in range(int(rng.integers(1, 3))):
        options = []
        for variant in range(int(rng.integers(2, 4))):
            batch = int(rng.choice([1, 1, 2, 4]))
            option = random_option(rng, f"s{number}v{variant}", batch)
            if names:
                option = with_classes(rng, option, names)
            options.append(option)
            if "knobs" in widenings and variant == 0:
                options.append(at_a_lower_clock(option))
        share = float(rng.choice([1.0, 1.0, 0.5]))
        stages.append(Stage(f"s{number}", f"n{number}", tuple(options), share))
    first = float(rng.uniform(0.2, 0.8))
    classes = [RequestClass("a", first), RequestClass("b", 1 - first, float(rng.uniform(0.3, 3)))]
    settings = Settings(
        alpha=float(rng.choice([0, 0, 5] if "floor" in widenings else [0.5, 5, 20])),
        beta=float(rng.choice([0, 0.2, 1])),
        gamma=float(rng.choice([0, 1e-6, 0.1])),
        energy_weight=float(rng.choice([0.1, 1])),
        energy_metric=str(rng.choice(["joules_per_request", "watts"])),
        accuracy_method=("sum", "average")[seed % 2],  # type: ignore[arg-type]
        normalize_accuracy=bool(rng.random() < 0.3),
        latency_sla_s=float(rng.uniform(0.3, 3)) if rng.random() < 0.7 else None,
        energy_sla_joules=float(rng.uniform(2, 12)) if "energy" in widenings else None,
        accuracy_floor=None,
        mix=True,
        latency_model="queue" if "queue" in widenings else "service",
        request_classes=tuple(classes) if names else (),
        scaling_cap=int(rng.choice([2, 3, 4])),
        batching_cap=4,
        prices={"board": float(rng.choice([0.0, 0.5]))},
        capacity={"board": float(rng.integers(1, 6))} if "capacity" in widenings else {},
    )
    if "floor" in widenings:
        ends = [[option.accuracy for option in stage.options] for stage in stages]
        low, high = sum(map(min, ends)), sum(map(max, ends))
        floor = low + float(rng.uniform(0.1, 1.02)) * (high - low)
        floor /= len(stages) if settings.accuracy_method == "average" else 1
        settings = dataclasses.replace(settings, accuracy_floor=floor)
    fixed = StageRules(replicas=2) if rng.random() < 0.1 else StageRules()
    rules = [fixed, *[StageRules() for _ in stages[1:]]]
    return Program(stages, settings, rules).at(float(rng.uniform(1, 8)))


@dataclass(frozen=True)
class Way:
    """An option on so many replicas, its wait, and the least and the most of the load that it gets.

    ``most`` is a share of what its replicas can carry.
    """

    option: Option
    replicas: int
    wait_s: float
    least: float = 0.0
    most: float = 1.0


def referee(problem: Problem) -> float | None:
    """The best objective: all replicas and waits tried, shares by a linear program each."""
    settings, load_rps = problem.settings, problem.load_rps
    classes = settings.request_classes or (RequestClass("", 1.0),)
    bounded = any("latency" in cap.name for cap in problem.caps)
    by_stage = []
    for candidates, rules in zip(problem.stages, problem.rules, strict=True):
        stage = candidates.stage
        rows = []
        for parts in _choices(stage, settings, rules, load_rps, bounded=bounded):
            found = _shares(problem, [(stage, parts)], classes, coupled=False)
            if found is not None:
                rows.append((found, parts))
        by_stage.append((stage, rows))
    combinations = [
        (sum(bound for bound, _ in rows), [parts for _, parts in rows])
        for rows in itertools.product(*(rows for _, rows in by_stage))
    ]
    best: float | None = None
    for bound, chosen in sorted(combinations, key=lambda one: -one[0]):
        if best is not None and bound <= best + 1e-12:
            break
        stages = [(stage, parts) for (stage, _), parts in zip(by_stage, chosen, strict=True)]
        found = _shares(problem, stages, classes, coupled=True)
        if found is not None and (best is None or found > best):
            best = found
    return best


def _choices(
    stage: Stage, settings: Settings, rules: StageRules, load_rps: float, *, bounded: bool
) -> Iterator[list[Way]]:
    most = rules.replicas or settings.scaling_cap
    stage_rps = stage.requests_per_input * load_rps
    queued = bounded and settings.latency_model == "queue"
    if queued:
        for option in stage.options:
            yield from ([way] for way in _alone(option, stage_rps, rules, most))
    if queued and rules.replicas:
        return
    ways: list[list[Way | None]] = []
    for option in stage.options:
        fills = mix_uses.FILL if bounded else mix_uses.FILL[-1:]
        fills = (1,) if option.batch == 1 else fills
        each = [(n, times) for n in range(1, most + 1) for times in fills]
        if queued:
            ways.append([None, *(way for pair in each for way in _part(option, *pair, stage_rps))])
        else:
            ways.append([None, *(_plain(option, *pair, stage_rps) for pair in each)])
    for parts in itertools.product(*ways):
        used = [part for part in parts if part is not None]
        total = sum(way.replicas for way in used)
        if rules.replicas and (total != rules.replicas or len(used) > 1):
            continue
        if total > most or total == 0 or sum(way.least for way in used) > 1 + 1e-9:
            continue
        carried = sum(way.replicas * way.most * _fastest_rps(way.option) for way in used)
        if carried >= stage_rps * (1 - 1e-12):
            yield used


def _fastest_rps(option: Option) -> float:
    rates = [each.throughput_rps for _, each in option.by_class]
    return max(rates) if rates else option.throughput_rps


def _plain(option: Option, replicas: int, times: int, stage_rps: float) -> Way:
    wait_s = times * (option.batch - 1) / stage_rps
    return Way(option, replicas, wait_s, 1 / times if option.batch > 1 else 0.0)


def _part(option: Option, replicas: int, times: int, stage_rps: float) -> Iterator[Way]:
    """What a part waits: as if it were as busy as it may be, on no more than a known number."""
    plain = _plain(option, replicas, times, stage_rps)
    filling_s = (fill_quantile(option.batch) - (option.batch - 1)) * times / stage_rps
    for busiest in mix_uses.BUSY:
        for least in mix_uses.LEAST:
            if least <= replicas:
                rps = busiest * least * option.throughput_rps
                queue_s = max(filling_s, replica_wait_s(option, least, rps))
                yield dataclasses.replace(plain, wait_s=plain.wait_s + queue_s, most=busiest)


def _alone(option: Option, stage_rps: float, rules: StageRules, most: int) -> Iterator[Way]:
    least = max(1, math.ceil(stage_rps / option.throughput_rps * (1 - 1e-12)))
    counts = range(least, least + EXTRA_REPLICAS + 1)
    for count in [rules.replicas] if rules.replicas else counts:
        if least <= count <= most:
            wait_s = (option.batch - 1) / stage_rps
            wait_s += planned_wait_s(option, count, stage_rps)
            yield Way(option, count, wait_s, 1.0)


def _shares(problem, stages, classes, *, coupled):  # type: ignore[no-untyped-def]
    """Best objective with these replicas; no less than it, and quickly, unless ``coupled``."""
    settings, load_rps = problem.settings, problem.load_rps
    watts = load_rps if settings.energy_metric == "watts" else 1.0
    count = len(problem.stages)
    of_stage = 1 / count if settings.accuracy_method == "average" else 1.0
    columns = []  # (stage, part, class, option of the class, delay)
    constant = idle_j = boards = 0.0
    for s, (_, parts) in enumerate(stages):
        for p, way in enumerate(parts):
            option, n, delay = way.option, way.replicas, way.wait_s
            idle_j += n * option.idle_power_w / load_rps
            boards += n * option.units("board")
            constant += settings.beta * n * option.cpu_cores + settings.gamma * option.batch
            for k, each in enumerate(classes):
                one = option.of_class(each.name)
                if one is not None:
                    columns.append((s, p, k, one, one.latency_s + delay))
    constant += settings.prices["board"] * boards + settings.energy_weight * watts * idle_j
    if "board" in settings.capacity and boards > settings.capacity["board"] + 1e-9:
        return None
    best = None
    for late in _allowed_delays(problem, stages, classes, columns) if coupled else [None]:
        found = _linear(
            problem,
            stages,
            classes,
            columns,
            late=late,
            idle_j=idle_j,
            of_stage=of_stage,
            watts=watts,
            coupled=coupled,
        )
        if found is not None and (best is None or found > best):
            best = found
    return None if best is None else best - constant


def _allowed_delays(problem, stages, classes, columns):  # type: ignore[no-untyped-def]
    """Longest delay of each (stage, class), every combination that meets the class's SLA."""
    per_class = []
    for k, each in enumerate(classes):
        sla = each.latency_sla_s or problem.settings.latency_sla_s
        delays = [
            sorted({d for s, _, kk, _, d in columns if s == stage and kk == k})
            for stage in range(len(stages))
        ]
        if sla is None:
            per_class.append([tuple(row[-1] if row else 0.0 for row in delays)])
        else:
            fitting = [c for c in itertools.product(*delays) if sum(c) <= sla * (1 + 1e-10)]
            per_class.append(
                [
                    c
                    for c in fitting
                    if not any(
                        o != c and all(a >= b for a, b in zip(o, c, strict=True)) for o in fitting
                    )
                ]
            )
    return itertools.product(*per_class)


def _linear(problem, stages, classes, columns, *, late, idle_j, of_stage, watts, coupled):  # type: ignore[no-untyped-def]
    settings, load_rps = problem.settings, problem.load_rps
    ranks = [
        dict(zip([o.variant for o in c.stage.options], _scores(c.stage), strict=True))
        for c in problem.stages
    ]
    names = {c.stage.name: i for i, c in enumerate(problem.stages)}
    gain, joules, raw, upper = [], [], [], []
    for s, _, k, one, delay in columns:
        stage = stages[s][0]
        score = (
            ranks[names[stage.name]][one.variant] if settings.normalize_accuracy else one.accuracy
        )
        m = stage.requests_per_input
        joules.append(m * one.dynamic_energy_j)
        raw.append(one.accuracy)
        gain.append(
            settings.alpha * of_stage * score
            - settings.energy_weight * watts * m * one.dynamic_energy_j
        )
        upper.append(
            0.0 if late is not None and delay > late[k][s] * (1 + 1e-12) else classes[k].share
        )
    # What no shares of the usable columns reach needs no linear program to be excluded.
    most, reach, least_j = 0.0, 0.0, idle_j
    for s, k in itertools.product(range(len(stages)), range(len(classes))):
        usable = [at for at, c in enumerate(columns) if (c[0], c[2]) == (s, k) and upper[at] > 0]
        if not usable:
            return None
        most += classes[k].share * max(gain[at] for at in usable)
        reach += of_stage * classes[k].share * max(raw[at] for at in usable)
        least_j += classes[k].share * min(joules[at] for at in usable)
    if not coupled:
        return most
    floor, limit_j = settings.accuracy_floor, settings.energy_sla_joules
    if floor is not None and reach < floor - 1e-9:
        return None
    if limit_j is not None and least_j > limit_j + 1e-9:
        return None
    a_eq, b_eq, a_ub, b_ub = [], [], [], []
    for s, (stage, parts) in enumerate(stages):
        for k, each in enumerate(classes):
            a_eq.append([float(c[0] == s and c[2] == k) for c in columns])
            b_eq.append(each.share)
        for p, way in enumerate(parts):
            mine = [c[0] == s and c[1] == p for c in columns]
            rate = stage.requests_per_input * load_rps
            a_ub.append(
                [own * rate / c[3].throughput_rps for own, c in zip(mine, columns, strict=True)]
            )
            b_ub.append(way.replicas * way.most)
            if way.least:
                a_ub.append([-float(one) for one in mine])
                b_ub.append(-way.least)
    if floor is not None:
        a_ub.append([-of_stage * a for a in raw])
        b_ub.append(-floor)
    if limit_j is not None:
        a_ub.append(joules)
        b_ub.append(limit_j - idle_j)
    solved = linprog(
        -np.array(gain), A_ub=a_ub, b_ub=b_ub, A_eq=a_eq, b_eq=b_eq,
        bounds=[(0, u) for u in upper], method="highs",
    )  # fmt: skip
    return -float(solved.fun) if solved.status == 0 else None


def _scores(stage: Stage) -> list[float]:
    ordered = sorted({(o.accuracy, o.variant) for o in stage.options})
    rank = {variant: i / max(1, len(ordered) - 1) for i, (_, variant) in enumerate(ordered)}
    return [1.0 if len(ordered) == 1 else rank[o.variant] for o in stage.options]


def relaxed(problem: Problem, ways: Iterable[Relaxation]) -> Problem:
    """The problem with limits changed as told, and a millionth beyond."""
    settings, rules = problem.settings, list(problem.rules)
    for way in ways:
        kind, _, of = way.constraint.partition(":")
        if kind == "replicas":
            at = [each.stage.name for each in problem.stages].index(of)
            rules[at] = dataclasses.replace(rules[at], replicas=int(way.needed))
        elif kind == "capacity":
            capacity = {**settings.capacity, of: way.needed * (1 + 1e-6)}
            settings = dataclasses.replace(settings, capacity=capacity)
        else:
            room = -1e-6 if kind == "accuracy_floor" else 1e-6
            value = way.needed if isinstance(way.needed, int) else way.needed * (1 + room)
            settings = dataclasses.replace(settings, **{kind: value})  # type: ignore[arg-type]
    stages = [candidates.stage for candidates in problem.stages]
    return Program(stages, settings, rules).at(problem.load_rps)


def is_close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-7, abs_tol=1e-7)
