r"""Several options of a stage at once: a mixed-integer linear program, for ``mix: true``.

A stage splits its requests among *uses*: options with the number of replicas that run them. Of use
*u* of stage *s*, :math:`x_{uk}` is the share of the stage's requests that are of class *k* and come
to it, :math:`n_u` its replicas, :math:`z_u ∈ \{0, 1\}` whether it is in use. With
:math:`λ_s = m_sλ` the load of the stage and :math:`w_k` the share of class *k* in all requests::

    (1') split         Σ_u x_uk = w_k                        every stage and class; x_uk ≤ w_k·z_u
    (2') throughput    λ_s·Σ_k x_uk / h_uk ≤ B_u·n_u,  z_u ≤ n_u ≤ scaling_cap·z_u
                       Σ_u n_u ≤ scaling_cap                 all replicas of the stage
    (3') latency       D_sk ≥ (l_uk + q_u)·[u serves k],  Σ_s D_sk ≤ latency SLA of class k
         batches       Σ_k x_uk ≥ z_u·(b_u − 1) / (λ_s·q_u)  its share fills a batch within q_u
    (4') caps          Σ_u [ n_u·g_u + Σ_k x_uk·f_uk + z_u·c_u ] ≤ limit
    (6') GPUs          as in :mod:`.pools`
    (7') sites         Σ_u∈i x_uk the same in every stage  each site i, where there are several

    maximise           alpha·A − Σ weight·(the same sum of each term),   A = Σ x_uk·a_uk

Whatever quantity a cap or a term counts (:mod:`.quantities`), its amount is linear in the replicas:
:math:`g_u` is what one replica adds, and the rest belongs to the requests, by their share
(:math:`f_{uk}`), or to the option in use, as its batch does (:math:`c_u`). Joules are thus
:math:`Σ x·e + Σ n·p/λ`, units of a resource :math:`Σ n·units`, and an accuracy floor caps
:math:`Σ x·(1 − a)`.

Requests are dealt out to the parts as they come, by share, so each part fills its batches alone.
The longest wait :math:`q_u` is one of :data:`.mix_uses.FILL` times that of a part with all requests
(of :data:`.mix_uses.FEW_FILLS` in large programs); an
option with batches is a use for each, which has a least share. :math:`B_u` is 1, a
``throughput_margin`` being in :math:`h_{uk}`; under ``latency_model: queue`` it is less, and
:math:`q_u` has the wait for a replica (:mod:`.mix_uses`). An option whose figures depend on
how many of its replicas work at once is a use for each number that was measured. A stage with a
fixed number of replicas (RIM) runs one option on all of them. Where options are at several sites
(their allocation's label ``site``), :math:`D_{sk}` is one of each site's, and (3') holds at each.

Where no floor, cap or capacity binds, one option a stage is optimal up to whole replicas: the
program is then a choice among ratios, and its best vertex has one option.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ipa_energy.arrays import Floats, Ints, Mask
from ipa_energy.energy import ROUNDING_RTOL
from ipa_energy.errors import ConfigError
from ipa_energy.gpu_partitions import GpuPool
from ipa_energy.optimizer.linear import SCALE, LinearProgram, Solver
from ipa_energy.optimizer.mix_uses import uses_of
from ipa_energy.optimizer.plan import EQUAL_OBJECTIVE_RTOL, SHARE_RTOL, Plan
from ipa_energy.optimizer.plan_building import build_plan
from ipa_energy.optimizer.pools import held
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.optimizer.quantities import (
    LATENCY_OF,
    amount_of,
    over_all_options,
)
from ipa_energy.optimizer.settings import Cap
from ipa_energy.optimizer.stage_columns import StageColumns, StageRules, accuracy_scores
from ipa_energy.records import EVERY_CLASS, Option, Part, RequestClass, Stage
from ipa_energy.registries import SOLVERS

Solve = TypeVar("Solve", bound=Callable[..., Any])
Make = Callable[[LinearProgram], Solver]

CAP_ROOM = 0.2 * SHARE_RTOL
"""Relative, granted to caps: a mix on a cap must not be lost to rounding."""

_LEAST_SHARE = 1e-9

_MOST_GPUS = 1024
"""More of them are not looked for in a pool."""

_LEAST_OF_SITE = 1e-7
"""A site that is to get less of the load gets none."""


def mixes(make: Make) -> Callable[[Solve], Solve]:
    """Mark a solver as one that can mix options, and what solves its linear programs."""

    def marked(solve: Solve) -> Solve:
        solve.mixes_by = make  # type: ignore[attr-defined]
        return solve

    return marked


def mixer_of(solver: Callable[..., Any], method: str) -> Make:
    """What solves the linear programs of a method.

    Raises:
        ConfigError: the method cannot mix.
    """
    make: Make | None = getattr(solver, "mixes_by", None)
    if make is None:
        able = [name for name, one in SOLVERS.items() if hasattr(one.load(), "mixes_by")]
        raise ConfigError(
            f"method {method} runs one option a stage and cannot mix",
            where="optimization_method",
            allowed=f"{', '.join(able)}; or mix: false",
        )
    return make


class MixProgram:
    """The rows of a problem's linear program; its objective is still open.

    Args:
        problem: with ``mix`` in its settings.
        enforced: whether a limit of this name holds (as in :mod:`.conflict`); all do by default.
        elastic: limits that may be exceeded, by as little as can be: caps, ``scaling_cap``,
            ``gpus:<pool>``.
    """

    def __init__(
        self,
        problem: Problem,
        enforced: Callable[[str], bool] = lambda name: True,
        elastic: Sequence[str] = (),
    ) -> None:
        self.problem = problem
        self.stages: tuple[Stage, ...] = tuple(each.stage for each in problem.stages)
        self.classes = problem.settings.request_classes or (RequestClass(EVERY_CLASS, 1.0),)
        self.classes = tuple(each for each in self.classes if each.share > 0)
        self._enforced, self.elastic = enforced, tuple(elastic)
        self.caps = tuple(cap for cap in problem.caps if enforced(cap.name))
        gpus = problem.settings.gpus
        self.pools = tuple(pool for pool in gpus if enforced(f"gpus:{pool.name}"))
        delays = [cap for cap in self.caps if is_latency(cap)]
        self._slas_s = {_class_of(cap): cap.limit for cap in delays}

        def holds(name: str) -> bool:
            return enforced(name) and name.partition(":")[0] not in self.elastic

        self.uses = uses_of(problem, holds, bounded=bool(delays))
        self.shares = np.array([each.share for each in self.classes])
        self._options = self._options_by_class()
        self.serves = np.array(
            [[option is not None for option in row] for row in self._options], dtype=bool
        ).reshape(len(self.uses), len(self.classes))
        self.paths = self._paths()
        self._drop_late()
        self.stage_of = np.array([use.stage for use in self.uses], dtype=np.intp)
        self._amounts: dict[str, tuple[Floats, Floats, Floats]] = {}
        self._drop_dominated()
        self._divide_slas()

    def _divide_slas(self) -> None:
        self.cutoffs_s = self._cutoffs_s()
        self.levels_s = {} if self.cutoffs_s else self._levels_s()

    def narrow(self, kept: Ints) -> None:
        """Forget all other uses."""
        self._keep(kept)
        self._divide_slas()

    @property
    def unserved(self) -> list[tuple[int, RequestClass]]:
        """(stage, class) that none of the uses serves."""
        return [
            (stage, each)
            for stage in range(len(self.stages))
            for k, each in enumerate(self.classes)
            if not self.serves[self.stage_of == stage, k].any()
        ]

    def objective(self) -> tuple[Floats, Floats, Floats]:
        """Worth of a replica (U,), of a share (U, K), and of a use (U,)."""
        settings = self.problem.settings
        count = len(self.stages) if settings.accuracy_method == "average" else 1
        replica, use = np.zeros(len(self.uses)), np.zeros(len(self.uses))
        share = settings.alpha / count * self._scores()
        for term in self.problem.terms:
            g, f, c = self.amounts(term.quantity)
            replica, share, use = (
                replica - term.weight * g,
                share - term.weight * f,
                use - term.weight * c,
            )
        return replica, share, use

    def amounts(self, quantity: str) -> tuple[Floats, Floats, Floats]:
        """Of a quantity: what a replica adds (U,), a share (U, K), and being in use (U,)."""
        if quantity not in self._amounts:
            self._amounts[quantity] = self._amounts_of(quantity)
        return self._amounts[quantity]

    def _amounts_of(self, quantity: str) -> tuple[Floats, Floats, Floats]:
        amount = over_all_options(quantity)
        by_option = getattr(amount_of(quantity), "per_option", False)
        width = len(self.classes)
        g, c = np.zeros(len(self.uses)), np.zeros(len(self.uses))
        f = np.zeros((len(self.uses), width))
        for s, stage in enumerate(self.stages):
            mine = np.flatnonzero(self.stage_of == s)
            for k in range(width):
                options = [self._options[u][k] or self.uses[u].option for u in mine]
                shown = replace(stage, options=tuple(options))
                every = np.arange(len(mine))
                columns = StageColumns(shown, StageRules(), self.problem.settings, every)
                one, two = (
                    amount(columns, np.full(len(mine), count), stage, self.problem.moment)
                    for count in (1.0, 2.0)
                )
                g[mine] = two - one
                rest = 2 * one - two
                if by_option:
                    c[mine] = rest
                else:
                    f[mine, k] = rest
        return g, f, c

    def _scores(self) -> Floats:
        """(U, K) what a share adds to the accuracy of the objective."""
        normalize = self.problem.settings.normalize_accuracy
        ranks = [accuracy_scores(stage, normalize=True) for stage in self.stages]
        return np.array(
            [
                [
                    ranks[use.stage][use.option_index]
                    if normalize
                    else (option or use.option).accuracy
                    for option in row
                ]
                for use, row in zip(self.uses, self._options, strict=True)
            ]
        ).reshape(len(self.uses), len(self.classes))

    def _options_by_class(self) -> list[list[Option | None]]:
        return [[use.option.of_class(each.name) for each in self.classes] for use in self.uses]

    def _paths(self) -> list[tuple[int, str]]:
        """(class, site): what requests have a latency of their own."""
        sites = dict.fromkeys(use.site for use in self.uses) or {"": None}
        self._site_at = {site: at for at, site in enumerate(sites)}
        return [(k, site) for k in range(len(self.classes)) for site in sites]

    @property
    def sites(self) -> Ints:
        """(U,) where each use is, by the order of the places."""
        return np.array([self._site_at[use.site] for use in self.uses], dtype=np.intp)

    def at_site(self, site: str) -> Mask:
        """(U,) which uses are at a place; all of them where there is but one."""
        found: Mask = self.sites == self._site_at[site]
        return found

    def delays_s(self) -> Floats:
        """(U, K) latency and wait."""
        return np.array(
            [
                [(option or use.option).latency_s + use.wait_s for option in row]
                for use, row in zip(self.uses, self._options, strict=True)
            ]
        ).reshape(len(self.uses), len(self.classes))

    def _drop_late(self) -> None:
        """Forget what would break a latency SLA even with the fastest of all other stages."""
        delays_s = self.delays_s()
        stage_of = np.array([use.stage for use in self.uses], dtype=np.intp)
        for k, site in self.paths:
            each, there = self.classes[k], self.at_site(site)
            sla_s = self._slas_s.get(each.name)
            elastic = f"latency_sla_s:{each.name}".rstrip(":") in self.elastic
            if sla_s is None or elastic:
                continue
            serving = np.where(self.serves[:, k] & there, delays_s[:, k], np.inf)
            fastest = np.array(
                [serving[stage_of == s].min(initial=np.inf) for s in range(len(self.stages))]
            )
            fastest[np.isinf(fastest)] = 0.0  # nobody serves the class there in any case
            room = sla_s * (1 + CAP_ROOM) - fastest.sum() + fastest[stage_of]
            self.serves[:, k] &= (serving <= room) | ~there
        kept = np.flatnonzero(self.serves.any(axis=1))
        self.uses = [self.uses[u] for u in kept]
        self._options = [self._options[u] for u in kept]
        self.serves = self.serves[kept]

    def _cutoffs_s(self) -> dict[int, Floats]:
        """Path under a latency SLA that two stages share → what its first stage may take at most.

        What is left is the second stage's, so a cutoff is worth having only if a longer one would
        leave it less that it can run. Ascending; empty where there is no path of two stages, or
        where a cap gives way.
        """
        if len(self.stages) != 2 or self.elastic:
            return {}
        delays_s, found = self.delays_s(), {}
        for p, (k, site) in enumerate(self.paths):
            sla_s = self._slas_s.get(self.classes[k].name)
            there = self.serves[:, k] & self.at_site(site)
            first, second = (np.unique(delays_s[there & (self.stage_of == s), k]) for s in (0, 1))
            if sla_s is None or not len(first) or not len(second):
                continue
            rest_s = sla_s * (1 + 2 * CAP_ROOM) - first
            left = np.searchsorted(second, rest_s, side="right")
            found[p] = first[(left > 0) & (left > np.append(left[1:], 0))]
        return found

    def limits_s(self, path: int) -> list[tuple[float, ...]]:
        """What each stage may take at most, cutoff by cutoff; no limit where there are none."""
        cutoffs_s = self.cutoffs_s.get(path)
        if cutoffs_s is None:
            return [(np.inf,) * len(self.stages)]
        sla_s = self._slas_s[self.classes[self.paths[path][0]].name] * (1 + CAP_ROOM)
        return [(float(cutoff_s), float(sla_s - cutoff_s)) for cutoff_s in cutoffs_s]

    def _levels_s(self) -> dict[tuple[int, int], Floats]:
        """(stage, path) under a latency SLA that stages share → its delays, ascending."""
        delays_s = self.delays_s()
        found = {
            (s, p): np.unique(
                delays_s[(self.stage_of == s) & self.serves[:, k] & self.at_site(site), k]
            )
            for p, (k, site) in enumerate(self.paths)
            for s in range(len(self.stages))
            if self.classes[k].name in self._slas_s and (len(self.stages) > 1 or self.elastic)
        }
        # A site where some stage has nothing gets no request; the others' delays are no matter.
        empty = {p for (_, p), delays in found.items() if not len(delays) and self.paths[p][1]}
        return {key: delays for key, delays in found.items() if key[1] not in empty}

    def _drop_dominated(self) -> None:
        """Forget uses in whose place another can do, of the same stage and no worse in anything."""
        if not self.uses:
            return
        better = [np.where(self.serves, self._scores() * self.problem.settings.alpha, -np.inf)]
        columns = [*better, -self._needs(), -self.delays_s()]
        columns = [np.where(self.serves, each, -np.inf) for each in columns]
        flat = [[-use.least_share, -float(use.least), float(use.most)] for use in self.uses]
        for term in self.problem.terms:
            columns += [-term.weight * each for each in self.amounts(term.quantity)]
        for cap in self.caps:
            if not is_latency(cap):
                columns += [-each for each in self.amounts(cap.quantity)]
        for pool in self.pools:
            for name in pool.slices:
                flat_held = [-float(held(pool, name, use.option)) for use in self.uses]
                columns.append(np.array(flat_held))
        table = np.hstack([each.reshape(len(self.uses), -1) for each in [*columns, np.array(flat)]])
        kept = np.ones(len(self.uses), dtype=bool)
        sites = self.sites
        for u in range(len(self.uses)):
            others = kept & (self.stage_of == self.stage_of[u]) & (sites == sites[u])
            others[u] = False
            kept[u] = not (table[others] >= table[u]).all(axis=1).any()
        self._keep(np.flatnonzero(kept))

    def _keep(self, kept: Ints) -> None:
        self.uses = [self.uses[u] for u in kept]
        self._options = [self._options[u] for u in kept]
        self.serves, self.stage_of = self.serves[kept], self.stage_of[kept]
        self._amounts = {
            name: (g[kept], f[kept], c[kept]) for name, (g, f, c) in self._amounts.items()
        }

    def _needs(self) -> Floats:
        """(U, K) replicas that all requests of the stage would need."""
        found = [self.per_share(u) for u in range(len(self.uses))]
        return np.array(found).reshape(len(self.uses), len(self.classes))

    def linear(
        self, objective: tuple[Floats, Floats, Floats] | None = None
    ) -> LinearProgram | None:
        """The program with an objective; None if it is plainly infeasible.

        Args:
            objective: worth of a replica, of a share, and of a use; None: what the elastic caps are
                exceeded by, each as a share of its limit.
        """
        if self.unserved:
            return None
        rows = _Rows(self)
        rows.split()
        rows.replicas(self._enforced)
        rows.places()
        delays_s = self.delays_s()
        for cap in self.caps:
            if is_latency(cap):
                rows.delays(cap, delays_s)
            else:
                rows.cap(cap, self.amounts(cap.quantity))
        for index, pool in enumerate(self.pools):
            rows.pool(index, pool)
        return rows.program(objective)

    def exceeded(self, values: Floats) -> dict[str, float]:
        """Elastic cap → its total in a solution, of those that are exceeded."""
        over = values[Layout(self).over]
        limits = {cap.name: cap.limit for cap in self.caps}
        limits["scaling_cap"] = self.problem.settings.scaling_cap
        limits |= {f"gpus:{pool.name}": pool.gpus for pool in self.pools}
        return {
            name: limits[name] + share * (abs(limits[name]) or 1.0)
            for name, share in zip(self.elastic, over.tolist(), strict=True)
            if share > SHARE_RTOL
        }

    def parts(self, values: Floats) -> tuple[tuple[Part, ...], ...]:
        """What the stages run by a solution, with shares that add up."""
        layout = Layout(self)
        x = np.where(self.serves, values[layout.x], 0.0)
        x[x < _LEAST_SHARE * self.shares] = 0.0
        n = np.round(values[layout.n]).astype(int)
        found = []
        self._agree(x)
        for s in range(len(self.stages)):
            mine = np.flatnonzero(self.stage_of == s)
            x[mine] *= self.shares / x[mine].sum(axis=0)
            used = [int(u) for u in mine if x[u].any()]
            counts = {u: self._fewest(u, x[u]) for u in used}
            fixed = self.problem.rules[s].replicas
            if fixed is not None:  # all of them run, needed or not
                counts = {u: int(n[u]) for u in used}
            found.append(tuple(self._part(u, x[u], counts[u]) for u in used))
        return tuple(found)

    def _agree(self, x: Floats) -> None:
        """Make the stages' shares of each site equal to the last digit."""
        stages = range(len(self.stages))
        for site in dict.fromkeys(site for _, site in self.paths if site):
            rows = [np.flatnonzero((self.stage_of == s) & self.at_site(site)) for s in stages]
            shares = [float(x[mine].sum()) for mine in rows]
            for mine, share in zip(rows, shares, strict=True):
                x[mine] *= shares[0] / share if min(shares) > _LEAST_OF_SITE else 0.0
        if len(self.paths) > len(self.classes):
            x /= x[self.stage_of == 0].sum()

    def _fewest(self, u: int, x: Floats) -> int:
        use = self.uses[u]
        busy = float((x * self.per_share(u)).sum())
        return max(use.least, int(np.ceil(busy * (1 - SHARE_RTOL))))

    def per_share(self, u: int) -> Floats:
        """(K,) replicas that all requests of the stage would need."""
        use = self.uses[u]
        load_rps = self.stages[use.stage].requests_per_input * self.problem.moment.peak_rps
        return load_rps / np.array(
            [use.busiest * (option or use.option).throughput_rps for option in self._options[u]]
        )

    def _part(self, u: int, x: Floats, replicas: int) -> Part:
        use = self.uses[u]
        shares = [(each.name, float(x[k])) for k, each in enumerate(self.classes) if x[k]]
        option = self.stages[use.stage].options[use.option_index]
        return Part(option.at(replicas), replicas, tuple(shares), use.wait_s)


def is_latency(cap: Cap) -> bool:
    """True if a cap counts seconds, which stages take one after the other."""
    return cap.quantity == "latency_s" or cap.quantity.startswith(LATENCY_OF)


def _class_of(cap: Cap) -> str:
    return cap.quantity.removeprefix(LATENCY_OF) if cap.quantity != "latency_s" else EVERY_CLASS


class Layout:
    """Where the variables of a program are: z (U,), n (U,), x (U, K).

    ``levels`` choose the delay of a stage and class, ``cutoffs`` how two stages divide an SLA
    between them, and ``parts`` a site's share of the load by cutoff; ``cuts`` are how the GPUs of a
    pool are cut, and ``over`` is what the elastic caps are exceeded by.
    """

    def __init__(self, program: MixProgram) -> None:
        uses, classes = len(program.uses), len(program.classes)
        self.z = np.arange(uses)
        width = uses
        self.levels = {}
        for key, delays_s in program.levels_s.items():
            self.levels[key] = width + np.arange(len(delays_s))
            width += len(delays_s)
        self.cutoffs = {}
        for path, cutoffs_s in program.cutoffs_s.items():
            self.cutoffs[path] = width + np.arange(len(cutoffs_s))
            width += len(cutoffs_s)
        self.binaries = width
        self.n = width + np.arange(uses)
        width += uses
        self.cuts = []
        for pool in program.pools:
            self.cuts.append(width + np.arange(len(pool.partitions)))
            width += len(pool.partitions)
        self.integers = width
        self.x = (self.integers + np.arange(uses * classes)).reshape(uses, classes)
        width = self.integers + uses * classes
        self.parts = {}
        for path, chosen in self.cutoffs.items():
            if program.paths[path][1]:
                self.parts[path] = width + np.arange(len(chosen))
                width += len(chosen)
        self.over = width + np.arange(len(program.elastic))
        self.width = width + len(program.elastic)


class _Rows:
    """The rows of a program under construction."""

    def __init__(self, mix: MixProgram) -> None:
        self._mix, self._at = mix, Layout(mix)
        self._rows: list[Ints] = []
        self._columns: list[Ints] = []
        self._values: list[Floats] = []
        self._low: list[float] = []
        self._high: list[float] = []
        self._upper = np.ones(self._at.width)
        self._upper[self._at.n] = [use.most for use in mix.uses]
        self._upper[self._at.over] = np.inf
        self._upper[self._at.x] = np.where(mix.serves, mix.shares, 0.0)

    def split(self) -> None:
        """(1'), and the least shares of (3')."""
        mix, at = self._mix, self._at
        for s in range(len(mix.stages)):
            mine = np.flatnonzero(mix.stage_of == s)
            for k, share in enumerate(mix.shares):
                self._add(at.x[mine, k], np.ones(len(mine)), share, share)
        for u, use in enumerate(mix.uses):
            if use.least_share == 1.0:  # all or nothing
                self._upper[at.z[u]] = float(mix.serves[u].all())
                for k, share in enumerate(mix.shares):
                    self._add([at.x[u, k], at.z[u]], [1.0, -share], 0.0, 0.0)
            for k in np.flatnonzero(mix.serves[u]).tolist():
                self._add([at.x[u, k], at.z[u]], [1.0, -mix.shares[k]], -np.inf, 0.0)
            if 0 < use.least_share < 1:
                ones = [1.0] * len(mix.classes)
                # A right side of -1e-9 instead made HiGHS 1.16 miss optima without a word.
                least = use.least_share * (1 - SHARE_RTOL)
                self._add([*at.x[u], at.z[u]], [*ones, -least], 0.0, np.inf)

    def replicas(self, enforced: Callable[[str], bool]) -> None:
        """(2'), with one use an option."""
        mix, at = self._mix, self._at
        settings = mix.problem.settings
        for u, use in enumerate(mix.uses):
            # The fewest replicas that carry a load are whole but for rounding.
            need = mix.per_share(u) * (1 - ROUNDING_RTOL)
            self._add([*at.x[u], at.n[u]], [*need, -1.0], -np.inf, 0.0)
            fixed = mix.problem.rules[use.stage].replicas
            enough = use.most if fixed else max(use.least, int(np.ceil(need.max())))
            most = float(min(use.most, enough))
            self._upper[at.n[u]] = most
            self._add([at.n[u], at.z[u]], [1.0, -most], -np.inf, 0.0)
            self._add([at.n[u], at.z[u]], [1.0, -float(use.least)], 0.0, np.inf)
        for s, stage in enumerate(mix.stages):
            mine = np.flatnonzero(mix.stage_of == s)
            fixed = mix.problem.rules[s].replicas
            if fixed is not None and enforced(f"replicas:{stage.name}"):
                self._add(at.n[mine], np.ones(len(mine)), fixed, fixed)
                self._add(at.z[mine], np.ones(len(mine)), -np.inf, 1.0)
            elif fixed is None and enforced(f"scaling_cap:{stage.name}"):
                cap = settings.scaling_cap
                column, unit = self._over("scaling_cap", cap)
                columns, values = [*at.n[mine], *column], [*np.ones(len(mine)), *unit]
                self._add(columns, values, -np.inf, cap)
            for index in {mix.uses[u].option_index for u in mine}:
                same = [u for u in mine if mix.uses[u].option_index == index]
                if len(same) > 1:
                    self._add(at.z[same], np.ones(len(same)), -np.inf, 1.0)

    def delays(self, cap: Cap, delays_s: Floats) -> None:
        """(3'), in units of the SLA; a stage alone has nothing to add up."""
        mix, at = self._mix, self._at
        over = self._over(cap.name, 1.0)
        if len(mix.stages) == 1 and not over[0]:
            return  # what is late has gone
        k = [each.name for each in mix.classes].index(_class_of(cap))
        for p, (_, site) in enumerate(mix.paths):
            if mix.paths[p][0] == k and p in mix.cutoffs_s:
                self._cut_off(p, delays_s)
            if mix.paths[p][0] != k or (0, p) not in mix.levels_s:
                continue
            total: tuple[list[int], list[float]] = ([], [])
            for s in range(len(mix.stages)):
                levels_s, chosen = mix.levels_s[s, p], at.levels[s, p]
                self._add(chosen, np.ones(len(chosen)), 1.0, 1.0)
                there = (mix.stage_of == s) & mix.serves[:, k] & mix.at_site(site)
                mine = np.flatnonzero(there)
                for j, level_s in enumerate(levels_s[:-1], start=1):
                    slower = at.x[mine[delays_s[mine, k] > level_s], k]
                    values = [1.0] * len(slower) + [-mix.shares[k]] * (len(chosen) - j)
                    self._add([*slower, *chosen[j:]], values, -np.inf, 0.0)
                total[0].extend(chosen.tolist())
                total[1].extend((levels_s / cap.limit).tolist())
            self._add([*total[0], *over[0]], [*total[1], *over[1]], -np.inf, 1 + CAP_ROOM)

    def _cut_off(self, p: int, delays_s: Floats) -> None:
        """(3') of two stages: the first takes no longer than a cutoff, the second what is left.

        At a site each cutoff has its part of the site's load, all but one of them none: what is
        slower than a cutoff gets no more than the parts of longer ones.
        """
        mix, at = self._mix, self._at
        k, site = mix.paths[p]
        chosen, share = at.cutoffs[p], mix.shares[k]
        there = mix.serves[:, k] & mix.at_site(site)
        first, second = (np.flatnonzero(there & (mix.stage_of == s)) for s in (0, 1))
        self._add(chosen, np.ones(len(chosen)), 1.0, 1.0)
        load, unit = chosen, -share
        if p in at.parts:
            load, unit = at.parts[p], -1.0
            for part, one in zip(load, chosen, strict=True):
                self._add([part, one], [1.0, -share], -np.inf, 0.0)
            values = [1.0] * len(load) + [-1.0] * len(first)
            self._add([*load, *at.x[first, k]], values, 0.0, 0.0)
        for j, limits_s in enumerate(mix.limits_s(p)):
            rest = (load[j + 1 :], load[:j])
            for mine, longest_s, others in zip((first, second), limits_s, rest, strict=True):
                slower = at.x[mine[delays_s[mine, k] > longest_s], k]
                if len(slower):
                    values = [1.0] * len(slower) + [unit] * len(others)
                    self._add([*slower, *others], values, -np.inf, 0.0)

    def places(self) -> None:
        """Each site serves the same share of the load in every stage."""
        mix, at = self._mix, self._at
        for k, site in mix.paths:
            if not site:
                continue
            there = mix.at_site(site)
            first, *others = (at.x[(mix.stage_of == s) & there, k] for s in range(len(mix.stages)))
            for other in others:
                values = [1.0] * len(first) + [-1.0] * len(other)
                self._add([*first, *other], values, 0.0, 0.0)

    def cap(self, cap: Cap, amounts: tuple[Floats, Floats, Floats]) -> None:
        """(4')."""
        at, limit = self._at, cap.limit
        g, f, c = amounts
        columns = np.concatenate([at.n, at.x.ravel(), at.z])
        values = np.concatenate([g, np.where(self._mix.serves, f, 0.0).ravel(), c])
        largest = float(np.abs(values).max(initial=0.0)) or 1.0
        over = self._over(cap.name, abs(limit) or 1.0)
        columns, values = np.append(columns, over[0]), np.append(values, over[1])
        room = CAP_ROOM * abs(limit)
        scale = SCALE / largest
        self._add(columns, values * scale, -np.inf, (limit + room) * scale)

    def pool(self, index: int, pool: GpuPool) -> None:
        """(6') of :mod:`.pools`."""
        at, mix = self._at, self._mix
        cuts = at.cuts[index]
        self._upper[cuts] = pool.gpus
        for name in pool.slices:
            used = [float(held(pool, name, use.option)) for use in mix.uses]
            made = [-float(part.count(name)) for part in pool.partitions]
            self._add([*at.n, *cuts], [*used, *made], -np.inf, 0.0)
        column, unit = self._over(f"gpus:{pool.name}", float(pool.gpus) or 1.0)
        if column:
            self._upper[cuts] = _MOST_GPUS
        values = [*np.ones(len(cuts)), *unit]
        self._add([*cuts, *column], values, -np.inf, float(pool.gpus))

    def _over(self, name: str, unit: float) -> tuple[list[int], list[float]]:
        """Column and coefficient of what an elastic cap is exceeded by; of others nothing."""
        if name not in self._mix.elastic:
            return [], []
        return [int(self._at.over[self._mix.elastic.index(name)])], [-unit]

    def program(self, objective: tuple[Floats, Floats, Floats] | None) -> LinearProgram:
        """All of them, with an objective."""
        at = self._at
        cost = np.zeros(at.width)
        if objective is None:
            cost[at.over] = -1.0
        else:
            cost[at.n], cost[at.x], cost[at.z] = objective
        largest = float(np.abs(cost).max())
        scale = SCALE / largest if largest > 0 else 1.0
        empty = np.zeros(0, dtype=np.intp)
        return LinearProgram(
            cost=cost * scale,
            rows=np.concatenate(self._rows),
            columns=np.concatenate(self._columns),
            values=np.concatenate(self._values),
            row_low=np.array(self._low),
            row_high=np.array(self._high),
            binaries=at.binaries,
            integers=at.integers,
            upper=self._upper,
            stage=empty,
            candidate=empty,
            scale=scale,
            constant=0.0,
        )

    def _add(self, columns: npt.ArrayLike, values: npt.ArrayLike, low: float, high: float) -> None:
        columns = np.asarray(columns, dtype=np.intp)
        self._rows.append(np.full(len(columns), len(self._low)))
        self._columns.append(columns)
        self._values.append(np.asarray(values, dtype=np.float64))
        self._low.append(low)
        self._high.append(high)


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
