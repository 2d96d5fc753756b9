"""What a sweep of one's own says: whole process and steady state side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from seed_answers import correlated, fronts, line, steady_points, trial_error
from seed_data import SeedPoint
from seed_figures import sweep_figures
from seed_words import change, coefficient, correlation_table, front_table, percent

from ipa_energy.report.page import Facts, Section, meanings
from ipa_energy.tables import Cell, Head, Row, Table, significant

_LE = ("latency_s", "joules_per_request")
_AE = ("accuracy", "joules_per_request")


def sweep_sections(
    points: Sequence[SeedPoint], facts: Mapping[str, object], name: str
) -> list[Section]:
    """One section for a sweep over weights and batches.

    Args:
        points: its points; with several numbers of images there are no fronts.
        facts: of its meta file.
        name: what was run.
    """
    steady = steady_points(points)
    best = steady if len(steady) == len(points) else list(points)
    texts = [_meaning(points), *_loading(points)]
    tables = [_table(points)]
    if len(points) > 2:
        found = correlated(best)
        texts.append(_correlation_words(best))
        tables.append(correlation_table(found))
    if len({point.images for point in best}) == 1 and len(points) > 1:
        on_front = fronts(best, trial_error(best))
        texts.append(_front_words(best))
        tables.append(front_table(on_front, _off_by(best)))
    return [
        Section(
            title=f"Live: {name}",
            text=texts,
            points=_batches(best),
            tables=tables,
            figures=sweep_figures(points),
            facts=[Facts("How it was measured", _facts(facts, points))],
            notes=meanings({point.quality for point in points}),
        )
    ]


def _meaning(points: Sequence[SeedPoint]) -> str:
    if all(point.quality == "measured" for point in points):
        return "Joules are measured by a counter, over the whole process and over its steady state."
    if any(point.meter == "cpu-time" for point in points):
        return (
            "All joules of this section are estimated: the machine has no energy counter, and the "
            "estimate is computed from CPU time and running time. So energy follows latency here "
            "by construction, as far as all cores are equally busy, and the correlation of the "
            "two shows nothing. What can be learnt is what CPU time tells: the share of loading, "
            "the effect of the batch, and how the networks compare."
        )
    return "Not all joules of this section are measured; the quality stands beside each."


def _loading(points: Sequence[SeedPoint]) -> list[str]:
    known = steady_points(points)
    if not known:
        return []
    shares = [
        1 - point.steady_joules_per_image / point.joules_per_image
        for point in points
        if not math.isnan(point.steady_joules_per_image)
    ]
    low, high = min(shares), max(shares)
    most = known[shares.index(high)]
    images = sorted({point.images for point in known})
    return [
        f"Measured as a whole process over {' or '.join(f'{n:g}' for n in images)} images, "
        f"{percent(low)} to {percent(high)} % of the joules are those of starting and loading "
        f"(most for {most.label}): a figure of the whole process says as much about the length of "
        "the run as about the network."
    ]


def _batches(points: Sequence[SeedPoint]) -> list[str]:
    """The cheapest batch of each network, against the smallest and the largest."""
    words = []
    for weights in dict.fromkeys(point.weights for point in points):
        found = sorted((p for p in points if p.weights == weights), key=lambda p: p.batch)
        if len(found) < 2:
            continue
        best = min(found, key=lambda point: point.joules_per_image)
        first, last = found[0], found[-1]
        ratio = last.joules_per_image / first.joules_per_image
        known = not math.isnan(first.ci95_j + last.ci95_j)
        sure = ", within the intervals" if known and not _apart(first, last) else ""
        words.append(
            f"{weights} is cheapest at batch {best.batch} ({_joules(best)} J per image) and takes "
            f"{change(ratio)} at batch {last.batch} than at batch {first.batch}{sure}."
        )
    return words


def _apart(a: SeedPoint, b: SeedPoint) -> bool:
    """True if the intervals do not overlap."""
    return abs(a.joules_per_image - b.joules_per_image) > a.ci95_j + b.ci95_j


def _off_by(points: Sequence[SeedPoint]) -> str:
    if all(point.trials < 2 for point in points):
        return "nothing: one trial a point has no interval"
    return "up to its 95 % interval over trials"


def _correlation_words(points: Sequence[SeedPoint]) -> str:
    found, fit = correlated(points), line(points)
    words = (
        f"Energy and latency: r = {coefficient(found, 'pearson', *_LE)}; one straight line "
        f"explains {100 * fit.r2:.1f} % of the variance."
    )
    if any(math.isnan(point.accuracy) for point in points):
        return words
    return (
        f"{words} Energy and published accuracy: r = {coefficient(found, 'pearson', *_AE)}, at "
        f"equal latency {coefficient(found, 'pearson', *_AE, 'latency_s')}."
    )


def _front_words(points: Sequence[SeedPoint]) -> str:
    found = fronts(points, trial_error(points))
    only = [each for each in found if each.with_energy and not each.without]
    without = sum(each.without for each in found)
    if not only:
        return (
            f"{without} of {len(found)} configurations are Pareto-optimal, the same ones with "
            "energy as an objective and without."
        )
    names = "; ".join(each.point.label for each in only)
    sure = max(each.share_only for each in only)
    return (
        f"{without} of {len(found)} configurations are Pareto-optimal without energy, "
        f"{without + len(only)} with it. Only because energy counts: {names}; with every figure "
        "moved within its interval, the surest of them stays so in "
        f"{percent(sure)} % of the draws."
    )


def _table(points: Sequence[SeedPoint]) -> Table:
    rows = [
        Row(
            point.label,
            [
                1000 * point.latency_s,
                _with_interval(point.joules_per_image, point.ci95_j),
                _with_interval(point.steady_joules_per_image, point.steady_ci95_j),
                point.load_s,
                point.trials,
                f"{point.quality}, {point.meter}",
            ],
        )
        for point in points
    ]
    return Table(
        "Whole process and steady state",
        "configuration",
        [
            Head("inference", "ms/image"),
            Head("whole process", "J/image"),
            Head("steady state", "J/image"),
            Head("to the first image", "s"),
            Head("trials"),
            Head("joules"),
        ],
        rows,
        note="Intervals are 95 % over trials.",
    )


def _with_interval(value: float, half_width: float) -> Cell | None:
    if math.isnan(value):
        return None
    note = "" if math.isnan(half_width) else f"± {significant(half_width, 2)}"
    return Cell(significant(value, 4), note=note, key=value)


def _joules(point: SeedPoint) -> str:
    return significant(point.joules_per_image, 3)


def _facts(facts: Mapping[str, object], points: Sequence[SeedPoint]) -> dict[str, str]:
    machine = facts.get("machine")
    machine = machine if isinstance(machine, dict) else {}
    model = facts.get("power_model")
    model = model if isinstance(model, dict) else {}
    versions = facts.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    command = facts.get("command")
    shown = {
        "processor": f"{machine.get('cpu')}, {machine.get('cores')} logical CPUs"
        + (", virtual" if machine.get("virtualised") else ""),
        "meter": ", ".join(sorted({f"{p.meter} ({p.quality})" for p in points})),
        "versions": ", ".join(f"{name} {value}" for name, value in versions.items() if value),
        "command": " ".join(map(str, command)) if isinstance(command, list) else str(command),
        "runs": f"{facts.get('runs')}, of which {len(_failed(facts))} without figures",
    }
    if model:
        shown["power model"] = (
            f"{model.get('idle_w')} W idle, {model.get('max_w')} W busy, good to "
            f"±{100 * float(model.get('relative_error', math.nan)):.0f} %. {model.get('source')}"
        )
    return shown


def _failed(facts: Mapping[str, object]) -> Sequence[object]:
    failed = facts.get("without_figures")
    return failed if isinstance(failed, list) else []
