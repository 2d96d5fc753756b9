"""From rows of a profile to the stages of a pipeline.

Rows that differ only in replicas or load measure one option. Replicas that work at once slow each
other down (shared caches, memory, a processor's clock) and draw other watts, so an option has
figures for each number of replicas that was measured (:meth:`ipa_energy.records.Option.at` says
what holds between and beyond them). Times of a number come from its row at the lowest load, where
no queue is in the latency. Joules come from all its rows: dynamic joules and idle watts hardly
depend on the load, so more rows mean a better mean, weighted by trials. What loading a replica
takes is a property of variant and allocation: the median over all their rows, whatever the batch.

Rows with a ``request_class`` hold for requests of that class; rows without one hold for every class
that has none of its own. An option that serves all classes alone has means over them, with
:math:`w_k` the share of class *k*: latency the longest, throughput :math:`1 / Σ w_k/h_k` (what one
replica sustains of the mixture), accuracy, joules and tokens :math:`Σ w_k·a_k` and the like.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from ipa_energy.config import PipelineConfig, StageConfig
from ipa_energy.config.source import raise_all
from ipa_energy.errors import ConfigError
from ipa_energy.profile_table.profile_row import ProfileRow
from ipa_energy.records import (
    Allocation,
    Option,
    Provenance,
    ReplicaFigures,
    RequestClass,
    Stage,
    joined_meters,
    weakest_quality,
)


def stages_from_rows(
    rows: Iterable[ProfileRow], config: PipelineConfig, where: str | Path | None = None
) -> tuple[Stage, ...]:
    """The pipeline's stages, in the order of the config, with everything the profile offers.

    Options keep the order in which the profile first has them. ``reference_latency`` chooses
    l(o); ``latency_margin`` and ``throughput_margin`` are applied to it and to h(o). With
    ``only_measured_profiles: false`` h(o) is batch / latency, as IPA computes it then, without the
    throughput margin. Rows of stages that the config does not name are left out.

    Args:
        rows: of one profile.
        config: the pipeline.
        where: the profile's path, for messages.

    Raises:
        ConfigError: the profile lacks a stage, or an initial variant, allocation or batch, that
            the config names; the message lists what it has.
    """
    grouped: dict[str, dict[tuple[object, ...], list[ProfileRow]]] = {}
    for row in rows:
        key = replace(row, request_class="").option_key if config.classes else row.option_key
        grouped.setdefault(row.stage, {}).setdefault(key, []).append(row)
    problems = []
    stages = []
    for stage_config in config.stages:
        groups = list(grouped.get(stage_config.name, {}).values())
        found = _no_options(stage_config.name, groups, grouped, where, known=config.classes)
        if found is not None:
            problems.append(found)
            continue
        stage = Stage(
            stage_config.name,
            stage_config.node_name,
            _options(groups, config),
            stage_config.requests_per_input,
        )
        stages.append(stage)
        problems += _missing_initial(stage, stage_config, where)
    if problems:
        raise_all(problems, where or "profile")
    return tuple(stages)


def accuracy_between(stages: Sequence[Stage], method: str, share: float) -> float:
    """An accuracy of the pipeline between the least (0) and the most (1) that its options have."""
    ends = []
    for pick in (min, max):
        values = [pick(option.accuracy for option in stage.options) for stage in stages]
        ends.append(sum(values) / (len(values) if method == "average" else 1))
    low, high = ends
    return low + share * (high - low)


def _no_options(
    name: str,
    groups: Sequence[Sequence[ProfileRow]],
    stages: Iterable[str],
    where: str | Path | None,
    *,
    known: Sequence[RequestClass],
) -> ConfigError | None:
    """Why these rows are no options of a stage; None if they are."""
    if not groups:
        return ConfigError(
            f"the profile has no stage {name}",
            where=where,
            allowed=f"a profile with that stage; this one has {_listed(stages)}",
            fix="name the stages in task_name as the profile does",
        )
    classes = sorted({row.request_class for group in groups for row in group})
    if len(classes) > 1 and not known:
        return ConfigError(
            f"stage {name}: figures by class: {_listed(each or 'none' for each in classes)}",
            where=where,
            allowed="figures of one class, which are taken for all requests",
            fix="set request_classes: {NAME: share}, or keep the rows of one class",
        )
    return None


def _options(groups: Sequence[Sequence[ProfileRow]], config: PipelineConfig) -> tuple[Option, ...]:
    """The options of a stage's groups, each with the load of its variant and allocation."""
    options = [_option_of(group, config) for group in groups]
    loads: dict[tuple[str, Allocation], list[ProfileRow]] = {}
    for option, group in zip(options, groups, strict=True):
        loads.setdefault((option.variant, option.allocation), []).extend(group)
    return tuple(
        replace(
            option,
            load_s=_median(row.load_s for row in loads[option.variant, option.allocation]),
            load_energy_j=_median(
                row.load_energy_j for row in loads[option.variant, option.allocation]
            ),
        )
        for option in options
    )


def _option_of(group: Sequence[ProfileRow], config: PipelineConfig) -> Option:
    """The option of rows that differ in class, replicas or load alone.

    Rows of classes that the YAML does not name are left out.
    """
    common = [row for row in group if not row.request_class]
    found: dict[str, Option] = {}
    for each in config.classes:
        mine = [row for row in group if row.request_class == each.name] or common
        if mine:
            found[each.name] = _option(mine, config)
    return mixture(found, config.classes) if found else _option(group, config)


def _median(values: Iterable[float]) -> float:
    """Of those that are there; NaN of none."""
    there = [value for value in values if not math.isnan(value)]
    return median(there) if there else math.nan


def _option(rows: Sequence[ProfileRow], config: PipelineConfig) -> Option:
    counted = _measured(rows)
    alone = _first(counted)
    figures = [
        _figures([row for row in counted if row.replicas == count], counted, config)
        for count in sorted({row.replicas for row in counted})
    ]
    least = figures[0]
    return Option(
        variant=alone.variant,
        allocation=_allocation(alone),
        batch=alone.batch,
        latency_s=least.latency_s,
        latency_avg_s=least.latency_avg_s,
        latency_p99_s=least.latency_p99_s,
        throughput_rps=least.throughput_rps,
        accuracy=alone.accuracy,
        dynamic_energy_j=least.dynamic_energy_j,
        idle_power_w=least.idle_power_w,
        provenance=least.provenance,
        at_once=tuple(figures) if len(figures) > 1 else (),
        embodied_g_per_hour=alone.embodied_g_per_hour,
        tokens_per_request=alone.tokens_per_request,
    )


def _measured(rows: Sequence[ProfileRow]) -> Sequence[ProfileRow]:
    """Without the predictions for numbers of replicas, if some number was measured."""
    windows = dict.fromkeys((row.replicas for row in rows), 0)
    for row in rows:
        windows[row.replicas] += row.trials
    return [row for row in rows if windows[row.replicas]] or rows


def _first(rows: Iterable[ProfileRow]) -> ProfileRow:
    return min(rows, key=lambda row: (row.replicas, row.load_rps))


def _figures(
    rows: Sequence[ProfileRow], others: Sequence[ProfileRow], config: PipelineConfig
) -> ReplicaFigures:
    """Of the rows of one number of replicas; joules that they lack are the nearest number's."""
    first = _first(rows)
    p99 = config.reference_latency == "p99"
    latency_s = first.latency_p99_s if p99 else first.latency_avg_s
    latency_s *= (100 + config.latency_margin) / 100
    if config.only_measured_profiles:
        throughput_rps = first.throughput_rps * (100 + config.throughput_margin) / 100
    else:
        throughput_rps = first.batch / latency_s
    metered = _nearest([row for row in others if row.has_energy], first.replicas)
    return ReplicaFigures(
        replicas=first.replicas,
        latency_s=latency_s,
        latency_avg_s=first.latency_avg_s,
        latency_p99_s=first.latency_p99_s,
        throughput_rps=throughput_rps,
        dynamic_energy_j=_weighted([row.dynamic_energy_j for row in metered], metered),
        idle_power_w=_weighted([row.idle_power_w for row in metered], metered),
        provenance=_provenance(metered),
    )


def _nearest(rows: Sequence[ProfileRow], replicas: int) -> list[ProfileRow]:
    """The rows of the number of replicas that is nearest, of two the smaller."""
    numbers = {row.replicas for row in rows}
    nearest = min(numbers, key=lambda number: (abs(number - replicas), number), default=None)
    return [row for row in rows if row.replicas == nearest]


def _allocation(row: ProfileRow) -> Allocation:
    other = {row.resource: row.resource_units} if row.resource else {}
    labels: dict[str, str | float] = {
        name: value
        for name, value in (("clock_mhz", row.clock_mhz), ("power_cap_w", row.power_cap_w))
        if not math.isnan(value)
    }
    if row.precision:
        labels["precision"] = row.precision
    return Allocation.of(row.cpu_cores, row.gpu_share, row.hardware, resources=other, **labels)


def _weighted(values: Sequence[float], rows: Sequence[ProfileRow]) -> float:
    """Mean of ``values`` weighted by the rows' trials; NaN of none."""
    if not rows:
        return math.nan
    weights = _weights(rows)
    return sum(value * weight for value, weight in zip(values, weights, strict=True))


def _weights(rows: Sequence[ProfileRow]) -> list[float]:
    """Shares of the rows in a mean: by trials, and equal where there are only predictions.

    A prediction has 0 trials and never dilutes a measurement.
    """
    total = sum(row.trials for row in rows)
    return [row.trials / total if total else 1 / len(rows) for row in rows]


def _provenance(rows: Sequence[ProfileRow]) -> Provenance | None:
    """Where the mean comes from; its interval is that of a weighted mean of independent parts."""
    rows = [row for row, weight in zip(rows, _weights(rows), strict=True) if weight > 0]
    quality = weakest_quality([row.quality for row in rows])
    if quality is None:
        return None
    weights = _weights(rows)
    return Provenance(
        meter=joined_meters(sorted({row.meter for row in rows})),
        quality=quality,
        trials=sum(row.trials for row in rows),
        ci95_j=math.hypot(
            *(row.energy_ci95_j * weight for row, weight in zip(rows, weights, strict=True))
        ),
    )


def mixture(found: Mapping[str, Option], classes: Sequence[RequestClass]) -> Option:
    """The option as all of its requests together find it, with the figures by class."""
    weights = {each.name: each.share for each in classes if each.name in found and each.share > 0}
    weights = weights or dict.fromkeys(found, 1.0)
    total = sum(weights.values())
    parts = [(found[name], share / total) for name, share in weights.items()]
    numbers = sorted({figures.replicas for option, _ in parts for figures in option.at_once})
    return parts[0][0].with_figures(
        _mixed_figures(1, parts),
        accuracy=sum(share * option.accuracy for option, share in parts),
        tokens_per_request=sum(share * option.tokens_per_request for option, share in parts),
        at_once=tuple(_mixed_figures(n, [(o.at(n), share) for o, share in parts]) for n in numbers),
        by_class=tuple(found.items()),
    )


def _mixed_figures(replicas: int, parts: Sequence[tuple[Option, float]]) -> ReplicaFigures:
    return ReplicaFigures(
        replicas=replicas,
        latency_s=max(option.latency_s for option, _ in parts),
        latency_avg_s=sum(share * option.latency_avg_s for option, share in parts),
        latency_p99_s=max(option.latency_p99_s for option, _ in parts),
        throughput_rps=1 / sum(share / option.throughput_rps for option, share in parts),
        dynamic_energy_j=sum(share * option.dynamic_energy_j for option, share in parts),
        idle_power_w=max(option.idle_power_w for option, _ in parts),
        provenance=parts[0][0].provenance,
    )


def _missing_initial(
    stage: Stage, config: StageConfig, where: str | Path | None
) -> list[ConfigError]:
    """Whether the profile can run what the YAML starts with."""
    variant, cores, batch = config.initial_variant, config.initial_cpu_cores, config.initial_batch
    if variant is None:
        return []
    of_variant = [option for option in stage.options if option.variant == variant]
    if not of_variant:
        variants = dict.fromkeys(option.variant for option in stage.options)
        return [
            ConfigError(
                f"stage {stage.name}: the profile has no variant {variant}, which"
                " initial_active_model names",
                where=where,
                allowed=_listed(variants),
            )
        ]
    for option in of_variant:
        if cores in (None, option.cpu_cores) and batch in (None, option.batch):
            return []
    wanted = [f"{cores:g} cores"] if cores is not None else []
    wanted += [f"batch {batch}"] if batch is not None else []
    return [
        ConfigError(
            f"stage {stage.name}: the profile has no {variant} at {', '.join(wanted)}, which"
            " initial_cpu_allocation and initial_batch name",
            where=where,
            allowed=_listed(f"{option.cpu_cores:g}c b{option.batch}" for option in of_variant),
        )
    ]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names)) or "nothing"
