"""What the published experiments say, in words, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence

from seed_answers import (
    OnFront,
    batch_change,
    correlated,
    equally_fast,
    fixed_costs,
    fronts,
    line,
    reading_error,
    reversals,
)
from seed_data import SeedPoint
from seed_figures import figures_1, figures_2
from seed_words import (
    at,
    change,
    coefficient,
    correlation_table,
    front_table,
    is_clear,
    pair_words,
    percent,
)

from ipa_energy.report.page import Section
from ipa_energy.tables import Head, Row, Table

MOST_REVERSALS = 4


def published_sections(one: Sequence[SeedPoint], two: Sequence[SeedPoint]) -> list[Section]:
    """The answer, then experiment 1 and experiment 2."""
    return [_answer(one, two), _experiment_1(one), _experiment_2(one, two)]


def _answer(one: Sequence[SeedPoint], two: Sequence[SeedPoint]) -> Section:
    found = [*fronts(one, reading_error(one)), *fronts(two, reading_error(two))]
    only = [each for each in found if each.with_energy and not each.without]
    batches = batch_change(two)
    divided = batches.first.published_per_input_j / batches.last.published_per_input_j
    verdict = "Yes, in these data: " if only else "Not in these data: "
    texts = [
        verdict + _fronts_words(found, only),
        "Energy is a metric of its own beside accuracy, and nearly none beside inference time per "
        f"image: Pearson's r is {coefficient(correlated(one), 'pearson', *_LE)} in experiment 1 "
        f"and {coefficient(correlated(two), 'pearson', *_LE)} in experiment 2. " + _exceptions(one),
        "The published conclusion rested on figure 4, which divides the energy of a run by the "
        "batch size. Every run processed the same images, so that quotient falls with the batch "
        "whatever the energy does. Divided by the number of images, energy is "
        f"{batches.first.joules_per_image:.1f} J at batch {batches.first.batch} and "
        f"{batches.last.joules_per_image:.1f} J at batch {batches.last.batch}: "
        f"{change(batches.energy)}, not {divided:.0f} times less.",
    ]
    return Section(
        title="Does energy expand the trade-off space?",
        text=texts,
        points=[
            "The latency here is inference time over images. In IPA a request waits for its whole "
            "batch, so large batches cost even more latency there.",
            "Cost in cores and replicas were not varied. With them energy has idle power to tell "
            "apart, which one process on one machine cannot show.",
            "One run a point, on one machine, read off plots: no interval over trials is known.",
        ],
    )


_LE = ("latency_s", "joules_per_request")
_AE = ("accuracy", "joules_per_request")


def _fronts_words(found: Sequence[OnFront], only: Sequence[OnFront]) -> str:
    with_energy = sum(each.with_energy for each in found)
    if only:
        names = "; ".join(each.point.label for each in only)
        are = "configuration is" if len(only) == 1 else "configurations are"
        first = f"{len(only)} {are} optimal only because energy counts ({names})."
    else:
        first = (
            f"{with_energy} of {len(found)} runs are Pareto-optimal (each experiment by itself) "
            "with energy as an objective, and the same ones without: none is optimal only because "
            "energy counts."
        )
    room = sorted(
        (each for each in found if each.share_only > 0 and each not in only),
        key=lambda each: -each.share_only,
    )
    if not room:
        return first
    shares = "; ".join(
        f"{each.point.label}, in {percent(each.share_only)} % of the draws" for each in room
    )
    return f"{first} Reading errors of ±1 % leave room for {len(room)}: {shares}."


def _exceptions(one: Sequence[SeedPoint]) -> str:
    """Whether a frugal configuration that latency hides is ever worth choosing."""
    pairs = [*equally_fast(one), *reversals(one)]
    if not pairs:
        return "There is no exception beyond the reading errors."
    chosen = {each.point for each in fronts(one, reading_error(one)) if each.with_energy}
    worth = [pair for pair in pairs if pair.cheaper in chosen]
    largest = max(pair.ratio for pair in pairs)
    first = (
        f"In {len(pairs)} pairs of configurations latency does not tell which takes more: up to "
        f"{change(largest)} energy at no more latency."
    )
    if worth:
        return f"{first} In {len(worth)} of them the frugal one is Pareto-optimal."
    return (
        f"{first} But the frugal one of each pair is beaten by a third configuration, in accuracy, "
        "latency and energy at once."
    )


def _experiment_1(one: Sequence[SeedPoint]) -> Section:
    found, fit = correlated(one), line(one)
    e6e, x = at(one, "yolov7-e6e", 32), at(one, "yolov7-x", 32)
    largest = "more" if fit.worst > 0 else "less"
    texts = [
        f"Energy and accuracy: r = {coefficient(found, 'pearson', *_AE)}. At batch 32, E6E takes "
        f"{change(e6e.run_energy_j / x.run_energy_j)} energy than X at an F1 of {e6e.accuracy:.4f} "
        f"against {x.accuracy:.4f}. Energy is not redundant with accuracy.",
        f"Energy and latency: r = {coefficient(found, 'pearson', *_LE)}. One straight line over "
        f"latency explains {100 * fit.r2:.1f} % of the variance of energy; the point farthest from "
        f"it, {fit.worst_point.label}, takes {100 * abs(fit.worst):.1f} % {largest}. At equal "
        "latency, accuracy and energy are correlated by "
        f"{coefficient(found, 'pearson', *_AE, 'latency_s')}"
        + ("." if is_clear(found, "pearson", *_AE, "latency_s") else ", compatible with none."),
    ]
    points = [f"As fast as each other: {pair_words(pair)}." for pair in equally_fast(one)]
    turned = reversals(one)
    shown = turned[:MOST_REVERSALS]
    points += [f"Faster, and yet dearer: {pair_words(pair)}." for pair in shown]
    if len(turned) > len(shown):
        points.append(f"{len(turned) - len(shown)} further pairs like that, all smaller.")
    strict = fronts(one, reading_error(one, f1_from_zero=True))
    likeliest = max(strict, key=lambda each: each.share_only)
    return Section(
        title="Experiment 1: seven weights, two batches, 496 images",
        text=texts,
        points=points,
        tables=[
            correlation_table(found),
            front_table(fronts(one, reading_error(one)), "up to ±1 % of its axis"),
        ],
        figures=figures_1(one),
        notes=[
            "Latency and energy axes are taken to begin at 0, which is the worst case; the F1 axis "
            "to span its values. If it began at 0 as well, the largest share of draws in which a "
            f"configuration is optimal only with energy would be {percent(likeliest.share_only)} % "
            f"({likeliest.point.label}).",
        ],
    )


def _experiment_2(one: Sequence[SeedPoint], two: Sequence[SeedPoint]) -> Section:
    batches, found = batch_change(two), correlated(two)
    texts = [
        f"At batch {batches.last.batch} an image takes {change(batches.energy)} energy than at "
        f"batch {batches.first.batch} ({change(batches.energy_low)} to "
        f"{change(batches.energy_high)} with reading errors at their worst) and "
        f"{change(batches.latency)} inference time. Energy and latency: "
        f"r = {coefficient(found, 'pearson', *_LE)}. " + _best_batch(two),
        f"Per second of inference the process takes {batches.first.power_w:.0f} J at batch "
        f"{batches.first.batch} and {batches.last.power_w:.0f} J at batch {batches.last.batch} "
        "(the whole process's energy over inference time alone, so both are too high). Fewer watts "
        "at larger batches suggest that the processors wait more for memory. Energy "
        "proportionality was expected to show the opposite: larger batches, busier processors, "
        "fewer joules per inference.",
    ]
    rows = [
        Row(
            str(point.batch),
            [
                1000 * point.latency_s,
                point.run_energy_j / 1000,
                f"{point.published_per_input_j:,.0f}",
                f"{point.joules_per_image:.1f}",
                f"{100 * (point.joules_per_image / batches.first.joules_per_image - 1):+.1f}",
            ],
        )
        for point in two
    ]
    table = Table(
        "Figure 4 as published and corrected",
        "batch",
        [
            Head("inference", "ms/image"),
            Head("run", "kJ"),
            Head("published: run ÷ batch", "J"),
            Head("corrected: run ÷ images", "J/image"),
            Head(f"corrected, against batch {batches.first.batch}", "%"),
        ],
        rows,
        note=f"Steps of less than {2 * reading_error(two).energy_j / 1000:.1f} kJ are within two "
        "reading errors.",
    )
    return Section(
        title="Experiment 2: eleven batches, 5000 images",
        text=[*texts, _fixed_words(one, two)],
        tables=[table, correlation_table(found)],
        figures=figures_2(two),
    )


def _best_batch(two: Sequence[SeedPoint]) -> str:
    frugal = min(two, key=lambda point: point.joules_per_image)
    fast = min(two, key=lambda point: point.latency_s)
    if frugal is fast:
        return f"Batch {frugal.batch} is best in both on that machine."
    return f"Batch {frugal.batch} takes least energy, batch {fast.batch} least time."


def _fixed_words(one: Sequence[SeedPoint], two: Sequence[SeedPoint]) -> str:
    costs = fixed_costs(one, two)
    if not costs:
        return "No configuration ran over both numbers of images."
    shares = " and ".join(f"{100 * cost.share:.0f} %" for cost in costs)
    fixed = " and ".join(f"{cost.fixed_j / 1000:.1f} kJ" for cost in costs)
    batches = " and ".join(str(cost.batch) for cost in costs)
    first = costs[0].batch
    both_ms = [1000 * at(points, two[0].weights, first).latency_s for points in (one, two)]
    return (
        "What the whole process takes beside its images: E6E ran over 496 and over 5000 images at "
        f"batch {batches}. A line through the two leaves {fixed} for no images at all, {shares} of "
        f"the short run. Inference time differs as well ({both_ms[0]:.0f} and {both_ms[1]:.0f} ms "
        f"at batch {first}), so part of that is another state of the machine; but figures of the "
        "whole process over few images are figures of its start, too."
    )
