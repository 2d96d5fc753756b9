"""What choosing the place hour by hour is worth, on measured boards and five real weeks.

    python experiments/carbon/sites.py       prints the table, writes experiments/carbon/sites.md

The same boards stand at several sites, each with the intensities of its own zone (the same week of
2023), a capacity and a network delay. Every hour the load is split by a linear program: the fewest
grams at which all requests are served, in time, at no less accuracy in the mean than asked for. It
is held against the best split that is the same all week, which knows the week, and against the same
share of the load for each site. Nothing is simulated, and what a request
of a plan needs is that of the hour's whole load, so that a share of it is as efficient: right where
a site's replicas are many or its load is all or nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from hours import MEAN_RPS, ZONES, intensity_of, loads_rps, planner_of
from scipy.optimize import linprog

from ipa_energy import energy
from ipa_energy.arrays import Floats
from ipa_energy.planning.carbon_budget import PriceCurve, price_curve

HERE = Path(__file__).resolve().parent

HEAD = """\
# What choosing the place hour by hour is worth

`python experiments/carbon/sites.py`: the load of each hour split among sites by a linear program,
against the best split that never changes and against an even one, at equal accuracy (halfway
between the least and the most of the boards). Five real weeks (Electricity Maps 2023, life cycle),
joules as MLPerf's submitters measured them on edge boards (open division; not verified by
MLCommons). *Room*: what each site can take, of the load or of the highest hour's. Least, most and
mean over the choices of so many of the five zones.

| sites | room | against the best fixed split | mean | against an even split | mean |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A place in one hour.

    Attributes:
        g_per_kwh: intensity.
        capacity: most of the load that it can take, a share of it.
        delay_s: of the network, there and back.
        pue: joules at its meter per joule at the servers.
    """

    g_per_kwh: float
    capacity: float = 1.0
    delay_s: float = 0.0
    pue: float = 1.0


@dataclass(frozen=True, slots=True)
class Plans:
    """What each site can run, arrays of K.

    Attributes:
        joules: of a request.
        accuracy: of the pipeline.
        latency_s: of a request.
    """

    joules: Floats
    accuracy: Floats
    latency_s: Floats


def split(
    sites: list[Site], plans: Plans, *, floor: float, latency_sla_s: float
) -> tuple[Floats, float]:
    """Shares of the load by site and plan, (S, K), and the grams of a mean request.

    Raises:
        ValueError: the sites cannot take the load, in time and this accurately.
    """
    count = len(plans.joules)
    grams = np.concatenate([energy.grams(plans.joules, site.g_per_kwh, site.pue) for site in sites])
    room = np.kron(np.eye(len(sites)), np.ones(count))
    upper = np.vstack([room, -np.tile(plans.accuracy, len(sites))])
    limits = np.append([site.capacity for site in sites], -floor)
    in_time = [plans.latency_s + site.delay_s <= latency_sla_s for site in sites]
    bounds = [(0.0, 1.0 if fits else 0.0) for fits in np.concatenate(in_time)]
    # In micrograms, so that the solver's tolerances are small beside them.
    found = linprog(
        1e6 * grams, upper, limits, np.ones((1, len(grams))), [1.0], bounds, method="highs"
    )
    if found.status != 0:
        raise ValueError("the sites cannot take the load")
    return found.x.reshape(len(sites), count), float(grams @ found.x)


@dataclass(frozen=True, slots=True)
class Emitted:
    """Grams of a mean request of the week.

    Attributes:
        hourly: with a split of each hour.
        fixed: with the best split that never changes.
        even: with the same share for every site.
    """

    hourly: float
    fixed: float
    even: float


def emitted(curves: list[PriceCurve], rates: Floats, loads: Floats, capacity: float) -> Emitted:
    """Of the sites together.

    Args:
        curves: of each hour's load.
        rates: (S, hours) intensities.
        loads: of each hour.
        capacity: of a site, of the highest hour's load; 1: no limit.
    """
    weights = loads / loads.sum()
    hourly = 0.0
    fixed_joules, fixed_room = np.zeros(len(loads)), []
    for hour, curve in enumerate(curves):
        plans = Plans(curve.joules, curve.worth, np.zeros(len(curve.joules)))
        floor = (curve.worth[0] + curve.worth[-1]) / 2
        room = min(1.0, capacity * loads.max() / loads[hour])
        sites = [Site(float(rate), room) for rate in rates[:, hour]]
        hourly += weights[hour] * split(sites, plans, floor=floor, latency_sla_s=1.0)[1]
        # At equal accuracy every site runs the same mixture, so that places are all that differ.
        _, least = split([Site(energy.JOULES_PER_KWH)], plans, floor=floor, latency_sla_s=1.0)
        fixed_joules[hour] = least
        fixed_room.append(room)
    grams = (energy.grams(fixed_joules * weights, 1.0) * rates).sum(axis=1)
    found = linprog(
        grams * 1e6,
        A_eq=np.ones((1, len(grams))),
        b_eq=[1.0],
        bounds=[(0.0, min(fixed_room))] * len(grams),
        method="highs",
    )
    return Emitted(float(hourly), found.fun / 1e6, float(grams.mean()))


def main() -> None:
    """Print and write the table."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    weeks = {zone: intensity_of(zone).g_per_kwh for zone in ZONES}
    lines = []
    board = "all boards"  # of one kind they save the same: places are all that differ
    planner, loads = planner_of(board), loads_rps(MEAN_RPS[board])
    known = {load: price_curve(planner.program, load) for load in np.unique(np.round(loads, 9))}
    curves = [known[round(float(load), 9)] for load in loads]
    for number in (2, 3, 5):
        for capacity in (1.0, 0.6):
            found = [
                emitted(curves, np.array([weeks[zone] for zone in zones]), loads, capacity)
                for zones in combinations(ZONES, number)
            ]
            cells = []
            for saved in (
                [1 - one.hourly / one.fixed for one in found],
                [1 - one.hourly / one.even for one in found],
            ):
                cells += [f"{min(saved):.1%} to {max(saved):.1%}", f"{np.mean(saved):.1%}"]
            lines.append(f"| {number} of 5 | {capacity:.0%} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    (HERE / "sites.md").write_text(HEAD + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
