"""The best mix of a problem; a good one is looked for before, and what no better one has left out.

A solver that knows a good solution closes most branches at once, and the fewer uses there are the
sooner (:mod:`.mix_start`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ipa_energy.arrays import Floats
from ipa_energy.optimizer.deadline import Deadline
from ipa_energy.optimizer.linear import LinearProgram
from ipa_energy.optimizer.mix_rows import Layout, linear_mix
from ipa_energy.optimizer.mix_start import Beginning, Stretch
from ipa_energy.optimizer.mixing import Make, MixProgram
from ipa_energy.optimizer.plan import EQUAL_OBJECTIVE_RTOL, SHARE_RTOL, Plan
from ipa_energy.optimizer.plan_building import build_plan
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.records import Part
from ipa_energy.registries import SOLVERS

_LEAST_SHARE = 1e-9

_LEAST_OF_SITE = 1e-7
"""A site that is to get less of the load gets none."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """What a solver found.

    Attributes:
        parts: what each stage runs; None if nothing was found.
        bound: no mix is worth more; −inf if there is none.
        finished: False if its time was up.
    """

    parts: tuple[tuple[Part, ...], ...] | None
    bound: float
    finished: bool = True


def solve_mixed(make: Make, problem: Problem, deadline: Deadline | None = None) -> Mixed:
    """The best mix of a problem; exact without a deadline, within :data:`SHARE_RTOL`."""
    program = MixProgram(problem)
    made = _begun(program, make)
    if made is None:
        return Mixed(None, -np.inf)
    solver = make(made)
    try:
        if deadline is None:
            values = solver.best()
            bound, finished = np.inf, True
        else:
            answer = solver.best_within(deadline.left_s, None)
            values, bound, finished = answer.values, answer.bound, answer.finished
    finally:
        solver.close()
    found = [np.asarray(each) for each in (values, made.start) if each is not None]
    if not found or (finished and values is None):
        return Mixed(None, -np.inf if finished else np.inf, finished)
    solution = max(found, key=lambda each: float(made.cost @ each)) if not finished else found[0]
    solution = _whole(made, solution, make)
    worth = made.worth(float(made.cost @ solution))
    bound = worth if finished else max(worth, made.worth(bound))
    return Mixed(_parts(program, solution), bound, finished)


def _whole(made: LinearProgram, solution: Floats, make: Make) -> Floats:
    """A solution whose integers are whole: the others anew, where rounding breaks a row.

    A solver's integers are whole within a tolerance, and what is put back after its presolve was
    seen to miss an accuracy floor by 6e-7.
    """
    values = solution.copy()
    values[: made.integers] = np.round(values[: made.integers])
    if made.fits(values):
        return values
    found = _with_best_shares(made, values, make)
    return solution if found is None else found


def _with_best_shares(made: LinearProgram, values: Floats, make: Make) -> Floats | None:
    """The best solution whose integers are these; None: there is none."""
    solver = make(made.with_integers(values))
    try:
        found = solver.best()
    finally:
        solver.close()
    return None if found is None else np.concatenate([values[: made.integers], found])


def _begun(mix: MixProgram, make: Make) -> LinearProgram | None:
    """The program with a good mix to begin with, where one is found; None: plainly infeasible."""
    made = linear_mix(mix, mix.objective())
    if made is None or len(mix.classes) > 1 or mix.pools:
        return made
    best, start = -np.inf, None
    for path, (_, site) in enumerate(mix.paths):
        beginning = Beginning(mix, site)
        for one in beginning.starts():
            values = _bettered(mix, made, one, path, make)
            if values is not None and made.cost @ values > best:
                best, start = float(made.cost @ values), values
    if start is None or len(mix.paths) > 1:
        return replace(made, start=start)
    at, kept = Layout(mix), beginning.contenders(made.worth(best))
    used = np.flatnonzero(start[at.z] > 0.5)
    kept = np.union1d(kept, used)
    if len(kept) == len(mix.uses):
        return replace(made, start=start)
    same = [
        (int(np.searchsorted(kept, u)), int(start[at.n[u]]), float(start[at.x[u, 0]])) for u in used
    ]
    mix.narrow(kept)
    made = linear_mix(mix, mix.objective())
    if made is None:
        return None
    values = _values(mix, same, 0)
    return replace(made, start=values if made.fits(values) else None)


def _bettered(
    mix: MixProgram, made: LinearProgram, parts: Sequence[Stretch], path: int, make: Make
) -> Floats | None:
    """The values of a mix with the best shares that its replicas allow; None: it does not fit."""
    values = _values(mix, parts, path)
    if not made.fits(values):
        return None
    if len(parts) == len(mix.stages):
        return values
    found = _with_best_shares(made, values, make)
    if found is None:
        return values
    return found if made.fits(found) else None


def _values(mix: MixProgram, parts: Sequence[Stretch], path: int) -> Floats:
    """The values of a mix at one place."""
    at, delays_s = Layout(mix), mix.delays_s()[:, 0]
    values = np.zeros(at.width)
    longest_s = np.zeros(len(mix.stages))
    for u, count, share in parts:
        values[at.z[u]], values[at.n[u]], values[at.x[u, 0]] = 1.0, count, share
        stage = mix.uses[u].stage
        longest_s[stage] = max(longest_s[stage], delays_s[u])
    for (s, p), levels_s in mix.levels_s.items():
        level = int(np.searchsorted(levels_s, longest_s[s])) if p == path else 0
        values[at.levels[s, p][level]] = 1.0
    for p, cutoffs_s in mix.cutoffs_s.items():
        chosen = min(int(np.searchsorted(cutoffs_s, longest_s[0])), len(cutoffs_s) - 1)
        values[at.cutoffs[p][chosen if p == path else 0]] = 1.0
        if p == path and p in at.parts:
            values[at.parts[p][chosen]] = 1.0
    return values


def _parts(mix: MixProgram, values: Floats) -> tuple[tuple[Part, ...], ...]:
    """What the stages run by a solution, with shares that add up."""
    layout = Layout(mix)
    x = np.where(mix.serves, values[layout.x], 0.0) * mix.shares
    x[x < _LEAST_SHARE * mix.shares] = 0.0
    n = np.round(values[layout.n]).astype(int)
    found = []
    _agree(mix, x)
    for s in range(len(mix.stages)):
        mine = np.flatnonzero(mix.stage_of == s)
        x[mine] *= mix.shares / x[mine].sum(axis=0)
        used = [int(u) for u in mine if x[u].any()]
        fixed = mix.problem.rules[s].replicas is not None  # then all of them run, needed or not
        counts = [int(n[u]) if fixed else _fewest(mix, u, x[u]) for u in used]
        found.append(tuple(_part(mix, u, x[u], n) for u, n in zip(used, counts, strict=True)))
    return tuple(found)


def _agree(mix: MixProgram, x: Floats) -> None:
    """Make the stages' shares of each site equal to the last digit."""
    stages = range(len(mix.stages))
    for site in dict.fromkeys(site for _, site in mix.paths if site):
        rows = [np.flatnonzero((mix.stage_of == s) & mix.at_site(site)) for s in stages]
        shares = [float(x[mine].sum()) for mine in rows]
        for mine, share in zip(rows, shares, strict=True):
            x[mine] *= shares[0] / share if min(shares) > _LEAST_OF_SITE else 0.0
    if len(mix.paths) > len(mix.classes):
        x /= x[mix.stage_of == 0].sum()


def _fewest(mix: MixProgram, u: int, x: Floats) -> int:
    busy = float((x * mix.per_share(u)).sum())
    return max(mix.uses[u].least, int(np.ceil(busy * (1 - SHARE_RTOL))))


def _part(mix: MixProgram, u: int, x: Floats, replicas: int) -> Part:
    use = mix.uses[u]
    shares = [(each.name, float(x[k])) for k, each in enumerate(mix.classes) if x[k]]
    option = mix.stages[use.stage].options[use.option_index]
    return Part(option.at(replicas), replicas, tuple(shares), use.wait_s)


def what_mixing_does(problem: Problem, plan: Plan) -> str:
    """What a mix is worth beside the best plan with one option a stage, in words."""
    sites = dict.fromkeys(part.option.allocation.site for part in plan.stages[0].parts)
    if any(sites):
        return f"the load goes to {_places(plan)}"
    # Made anew: what does not serve every class may be in a mix, and cannot run alone.
    stages = [candidates.stage for candidates in problem.stages]
    settings = replace(problem.settings, mix=False)
    alone = Program(stages, settings, problem.rules).at(problem.moment)
    method = "highs" if settings.gpus else "pareto"
    found = [] if alone.is_empty() else SOLVERS[method].load()(alone, 1)
    if not found:
        return "no plan with one option a stage is feasible"
    best = build_plan(alone, found[0])
    gain = plan.objective - best.objective
    if gain > EQUAL_OBJECTIVE_RTOL * max(1.0, abs(best.objective)) * 10:
        saved_j = best.joules_per_request - plan.joules_per_request
        if saved_j > 0:
            share = 100 * saved_j / best.joules_per_request
            return f"mixing saves {share:.3g} % of the joules that one option a stage needs at best"
        return f"mixing makes the objective better by {gain:.4g} than one option a stage can"
    if not _binding(plan):
        return (
            "mixing cannot help here: no floor, cap or capacity binds, and one option a stage is"
            " optimal up to whole replicas"
        )
    return "mixing does not help here: one option a stage is as good"


def _places(plan: Plan) -> str:
    """``GB 62 %, NL 38 %``."""
    shares: dict[str, float] = {}
    for part in plan.stages[0].parts:
        site = part.option.allocation.site
        shares[site] = shares.get(site, 0.0) + part.share
    return ", ".join(f"{site} {100 * share:.3g} %" for site, share in shares.items())


def _binding(plan: Plan) -> list[str]:
    """Limits that a plan meets with nothing to spare."""
    own = ("throughput", "shares", "batching_cap")
    return [
        check.constraint
        for check in plan.certificate.checks
        if check.limit is not None
        and check.constraint.split(":")[0] not in own
        and abs(check.value - check.limit) <= 1e-6 * abs(check.limit)
    ]
