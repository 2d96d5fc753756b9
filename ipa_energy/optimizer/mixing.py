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

from ipa_energy.arrays import Floats, Ints, Mask
from ipa_energy.errors import ConfigError
from ipa_energy.optimizer.linear import LinearProgram, Solver
from ipa_energy.optimizer.mix_uses import uses_of
from ipa_energy.optimizer.plan import SHARE_RTOL
from ipa_energy.optimizer.pools import held
from ipa_energy.optimizer.problem import Problem
from ipa_energy.optimizer.quantities import (
    LATENCY_OF,
    amount_of,
    is_latency,
    over_all_options,
)
from ipa_energy.optimizer.settings import Cap
from ipa_energy.optimizer.stage_columns import StageColumns, StageRules, accuracy_scores
from ipa_energy.records import EVERY_CLASS, RequestClass, Stage
from ipa_energy.registries import SOLVERS

Solve = TypeVar("Solve", bound=Callable[..., Any])
Make = Callable[[LinearProgram], Solver]

CAP_ROOM = 0.2 * SHARE_RTOL
"""Relative, granted to caps: a mix on a cap must not be lost to rounding."""


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
        self.enforced, self.elastic = enforced, tuple(elastic)
        self.caps = tuple(cap for cap in problem.caps if enforced(cap.name))
        gpus = problem.settings.gpus
        self.pools = tuple(pool for pool in gpus if enforced(f"gpus:{pool.name}"))
        delays = [cap for cap in self.caps if is_latency(cap.quantity)]
        self._slas_s = {class_of(cap): cap.limit for cap in delays}

        def holds(name: str) -> bool:
            return enforced(name) and name.partition(":")[0] not in self.elastic

        self.uses = uses_of(problem, holds, bounded=bool(delays))
        self.shares = np.array([each.share for each in self.classes])
        self._options = [
            [use.option.of_class(each.name) for each in self.classes] for use in self.uses
        ]
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
            if not is_latency(cap.quantity):
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

    def per_share(self, u: int) -> Floats:
        """(K,) replicas that all requests of the stage would need."""
        use = self.uses[u]
        load_rps = self.stages[use.stage].requests_per_input * self.problem.moment.peak_rps
        return load_rps / np.array(
            [use.busiest * (option or use.option).throughput_rps for option in self._options[u]]
        )


def class_of(cap: Cap) -> str:
    """The class of requests whose latency a cap limits."""
    return cap.quantity.removeprefix(LATENCY_OF) if cap.quantity != "latency_s" else EVERY_CLASS
