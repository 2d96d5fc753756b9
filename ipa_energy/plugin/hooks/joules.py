"""Joules on IPA's models: read where IPA reads its profile, carried where IPA carries latencies.

``load_profile`` gets six more columns, and each ``Model`` a :class:`Joules`, batch → figures. They
cannot be on ``Profile``: IPA's regression makes those anew. A profile without energy has neither,
and gets estimates only when a YAML asks for them (:func:`estimate`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipa_energy.errors import ConfigError

if TYPE_CHECKING:
    from ipa_energy.meters.power_model import PowerModel
    from ipa_energy.profile_table.ipa_results import EntryJoules
    from ipa_energy.profile_table.profile_row import ProfileRow

logger = logging.getLogger(__name__)

DYNAMIC = "dynamic_joules_per_request"
IDLE = "idle_power_w"
METER = "energy_meter"
QUALITY = "energy_quality"
TRIALS = "energy_trials"
INTERVAL = "energy_ci95_j"
SOURCE = "ipa_energy_source"
"""Where a table keeps what it was read from, in its ``attrs``."""

Entry = tuple[str, float, int]
"""(variant, cores of one replica, batch)."""


@dataclass(frozen=True, slots=True)
class ProfileSource:
    """Which experiments of which profiling series a table was made from."""

    folder: Path
    node: str
    load: Any


@dataclass(frozen=True, slots=True)
class Joules:
    """What a model costs, batch → figures; empty if its profile has no energy.

    IPA copies its pipeline deeply several times a decision; this record cannot change, so a copy
    of it is itself.
    """

    entries: Mapping[int, EntryJoules] = field(default_factory=dict)
    source: ProfileSource | None = None

    def __deepcopy__(self, memo: object) -> Joules:
        return self


NO_JOULES = Joules()


def joules_of(model: Any) -> Joules:
    """What an IPA model carries; nothing if it was made without us."""
    found = getattr(model, "joules", NO_JOULES)
    return found if isinstance(found, Joules) else NO_JOULES


def add_columns(table: Any, source: ProfileSource) -> Any:
    """IPA's profile table with its joules beside latency and throughput, if it has any."""
    table.attrs[SOURCE] = source
    found = read_energy(source)
    if not found:
        return table
    figures = [found.get(_key(row)) for _, row in table.iterrows()]
    return table.assign(
        **{
            DYNAMIC: [one.dynamic_energy_j if one else math.nan for one in figures],
            IDLE: [one.idle_power_w if one else math.nan for one in figures],
            METER: [one.meter if one else None for one in figures],
            QUALITY: [one.quality if one else None for one in figures],
            TRIALS: [one.trials if one else 0 for one in figures],
            INTERVAL: [one.energy_ci95_j if one else math.nan for one in figures],
        }
    )


def give_to_models(models: list[Any], table: Any) -> None:
    """Put a table's joules on the models that were made from it."""
    found: dict[Entry, EntryJoules] = {}
    if DYNAMIC in table.columns:
        for _, row in table.iterrows():
            energy = _from_row(row)
            if energy is not None:
                # Of two experiments of one entry IPA plans with the first.
                found.setdefault(_key(row), energy)
    source = table.attrs.get(SOURCE)
    for model in models:
        model.joules = Joules(_of_model(model, found), source)


def estimate(models: list[Any]) -> None:
    """Fill in, from recorded CPU seconds, what these models' profile lacks.

    Raises:
        ConfigError: the power model of this machine cannot be used.
    """
    from ipa_energy.meters.power_model import power_model_for_this_machine

    lacking = [model for model in models if missing_batches(model)]
    power_model = power_model_for_this_machine() if lacking else None
    estimates = {
        source: read_energy(source, power_model)
        for source in dict.fromkeys(joules_of(model).source for model in lacking)
        if source is not None
    }
    for model in lacking:
        carried = joules_of(model)
        if carried.source is not None:
            guessed = _of_model(model, estimates[carried.source])
            model.joules = Joules({**guessed, **carried.entries}, carried.source)


def missing_batches(model: Any) -> list[int]:
    """Batches that a model can be planned with and that have no joules."""
    known = joules_of(model).entries
    return [int(each.batch) for each in model.profiles if int(each.batch) not in known]


def read_energy(
    source: ProfileSource, power_model: PowerModel | None = None
) -> dict[Entry, EntryJoules]:
    """Energy of every experiment IPA would plan with; what has none, or is unreadable, is left out.

    Args:
        source: the series and the load to pick by.
        power_model: estimate what was not recorded; None to leave it out.
    """
    from ipa_energy.profile_table.ipa_tables import load_label, read_experiments, read_notes

    try:
        notes = read_notes(source.folder)
        experiments = read_experiments(source.folder)
    except ConfigError as error:
        logger.warning("no joules from this profile: %s", error)
        return {}
    found: dict[Entry, EntryJoules] = {}
    for experiment in experiments:
        if experiment.load == load_label(str(source.load)):
            row = _row(source, experiment, notes.get(experiment.number), power_model)
            if row is not None and row.has_energy:
                key = (experiment.variant, experiment.cpu_cores, experiment.batch)
                found.setdefault(key, _joules_of(row))
    return found


def _row(
    source: ProfileSource, experiment: Any, note: Any, power_model: PowerModel | None
) -> ProfileRow | None:
    from ipa_energy.profile_table.ipa_import import ImportChoice, row_of
    from ipa_energy.profile_table.ipa_results import UnusableError

    try:
        row, weaknesses = row_of(
            experiment,
            source.folder,
            note,
            stage=source.node,
            accuracy=0.0,
            choice=ImportChoice(accuracies=source.folder, power_model=power_model),
            node=source.node,
        )
    except UnusableError:
        return None  # IPA passes over it too
    except ConfigError as error:
        logger.warning("no joules from this experiment: %s", error)
        return None
    for weakness in weaknesses:
        if weakness.startswith("no energy"):
            logger.info("%s: experiment %d: %s", source.folder, experiment.number, weakness)
    return row


def _joules_of(row: ProfileRow) -> EntryJoules:
    from ipa_energy.profile_table.ipa_results import EntryJoules

    return EntryJoules(**{name: getattr(row, name) for name in EntryJoules.__dataclass_fields__})


def _from_row(row: Any) -> EntryJoules | None:
    from ipa_energy.profile_table.ipa_results import EntryJoules

    dynamic_j, idle_w = float(row[DYNAMIC]), float(row[IDLE])
    if math.isnan(dynamic_j) or math.isnan(idle_w):
        return None
    return EntryJoules(
        dynamic_energy_j=dynamic_j,
        idle_power_w=idle_w,
        joules_per_request=math.nan,  # of no load yet
        energy_ci95_j=float(row[INTERVAL]),
        trials=int(row[TRIALS]),
        meter=str(row[METER]),
        quality=row[QUALITY],
    )


def _of_model(model: Any, found: Mapping[Entry, EntryJoules]) -> dict[int, EntryJoules]:
    cores = float(model.resource_allocation.cpu)
    return {
        batch: energy
        for (variant, at_cores, batch), energy in found.items()
        if variant == str(model.name) and at_cores == cores
    }


def _key(row: Any) -> Entry:
    """The entry of a row of IPA's table."""
    return (str(row["model_variant"]), float(row["cpu_request"]), int(row["max_batch_size"]))
