"""The model J = e + n·p/λ held against several replicas at once, and against lower loads.

The optimizer plans n replicas at any load from what one does back to back. Entries of several
replicas, or of a load below saturation, say how far that is off: the model's J at the row's own
load, with e and p of one saturated replica, against the J that was measured; and n times the
throughput of one against that of all.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from ipa_energy.profile_table.profile_row import ProfileRow
from ipa_energy.profiling.grid import entry_of


def check_replicas(rows: Iterable[ProfileRow]) -> dict[str, Any] | None:
    """How well one saturated replica foretells the other rows; None without others.

    Returns:
        ``entries``: label → ``predicted_j``, ``measured_j``, ``relative_error`` of the joules
        (positive: the model promises too many), ``throughput_ratio`` and ``latency_avg_ratio``
        (the row over that of one), or ``unchecked`` with the reason; then
        ``relative_error_mean_abs`` and ``relative_error_max_abs``, None if nothing could be
        checked.
    """
    everything = [row for row in rows if row.has_energy and row.trials > 0]
    alone = {row.option_key: row for row in everything if row.replicas == 1 and row.is_saturated}
    others = [row for row in everything if row.replicas > 1 or not row.is_saturated]
    if not others:
        return None
    entries = {entry_of(row).label: _compare(row, alone.get(row.option_key)) for row in others}
    errors = [
        abs(found["relative_error"]) for found in entries.values() if "unchecked" not in found
    ]
    return {
        "model": "joules_per_request = e + n p / load, e and p of one saturated replica",
        "entries": entries,
        "relative_error_mean_abs": fmean(errors) if errors else None,
        "relative_error_max_abs": max(errors, default=None),
    }


def _compare(row: ProfileRow, one: ProfileRow | None) -> dict[str, Any]:
    if one is None:
        return {"unchecked": "no measured row of one saturated replica"}
    predicted_j = one.dynamic_energy_j + row.replicas * one.idle_power_w / row.load_rps
    return {
        "predicted_j": predicted_j,
        "measured_j": row.joules_per_request,
        "relative_error": predicted_j / row.joules_per_request - 1,
        "throughput_ratio": row.throughput_rps / one.throughput_rps,
        "latency_avg_ratio": row.latency_avg_s / one.latency_avg_s,
    }
