"""The runs behind the yardstick: one pipeline over one trace at many weights, nothing written.

Without energy the objective is alpha·accuracy less what cores and other resources cost, so the
plans depend on the ratio of alpha to those prices alone: the sweep goes over alpha, where there is
a price, and over beta where the YAML has none; each with more room for bursts as well, so that some
answer all requests in time. IPA's baselines join it, those that switch variants at several alphas.
With energy it goes over ``energy_weight`` at a few alphas. Every run has the seeds of the others,
so that differences are of weights and not of arrivals.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

import ipa_energy
from ipa_energy.as_json import as_json
from ipa_energy.comparing import RunMetrics, metrics
from ipa_energy.comparing.hull import Outcome, Saving, saving_of
from ipa_energy.config import PipelineConfig, dump_config
from ipa_energy.errors import ConfigError, InfeasibleError, IpaEnergyError, in_words
from ipa_energy.experiment import Experiment, run_experiment
from ipa_energy.files import write_json
from ipa_energy.planning.planner import Planner
from ipa_energy.planning.policies import apply_baseline, program_for
from ipa_energy.records import Stage
from ipa_energy.registries import PREDICTORS, QUANTITIES, SOLVERS
from ipa_energy.workloads import Workload

logger = logging.getLogger(__name__)

ALPHA_FACTORS = tuple(2.0 ** (step / 2) for step in range(-7, 5))
"""Of the YAML's alpha: from 1/11 to 4."""

CORE_OF_ACCURACY = 1 / 80
"""What a core costs in accuracy where a YAML has no price: that of configs/video.yaml."""

MARGINS = (0.0, 15.0, 30.0)
"""Percent added to the YAML's ``predictor_margin``: more replicas, fewer late requests. Without
this knob a run with energy that happens to be late less often would be compared with nothing."""

SEEDS = 3
"""Of the yardstick: the range over them says how much of a saving is luck of arrivals."""

FEW_ALPHA_FACTORS = (0.125, 0.5, 1.0, 2.0)
FIXED_VARIANT = ("fa2-low", "fa2-high")
SWITCHING = ("rim-low", "rim-high")

ENERGY_STEPS = tuple(2.0 ** (step / 2) for step in range(-8, 9))
"""Of the weight at which the whole range of joules weighs as much as that of accuracies."""


@dataclass(frozen=True, slots=True)
class Weighting:
    """One setting of the sweep.

    Attributes:
        label: for people.
        changes: key of the YAML → value.
        policy: one of IPA's baselines laid over it; None: none.
        energy_weight: of the objective.
    """

    label: str
    changes: Mapping[str, Any]
    policy: str | None = None
    energy_weight: float = 0.0


def without_energy(planner: Planner) -> list[Weighting]:
    """Every setting that the yardstick tries for a pipeline, none with energy in it.

    Where the YAML prices resources (boards, GPUs), other prices are weights too: in proportion to
    what a unit idles at, and to the cores that come with it.
    """
    config = planner.config
    off: dict[str, Any] = {"energy_weight": 0.0, "energy_sla_joules": None}
    found = []
    for name, prices in _other_prices(planner).items():
        for factor in ALPHA_FACTORS[::2]:
            changes, label = _priced(config, factor)
            found.append(Weighting(f"{label}, {name}", {**off, **changes, "prices": prices}))
    for margin in MARGINS:
        for factor in ALPHA_FACTORS:
            changes, label = _priced(config, factor)
            margin_percent = config.predictor_margin + margin
            label += f", predictor_margin {margin_percent:g}" if margin else ""
            changes = {**off, **changes, "predictor_margin": margin_percent}
            found.append(Weighting(label, changes))
    found += [Weighting(policy, off, policy) for policy in FIXED_VARIANT]
    for policy in SWITCHING:
        for factor in FEW_ALPHA_FACTORS:
            alpha = config.alpha * factor
            found.append(Weighting(f"{policy}, alpha {alpha:.4g}", {**off, "alpha": alpha}, policy))
    return found


def _other_prices(planner: Planner) -> dict[str, dict[str, float]]:
    """Prices of the resources that the YAML prices, with the mean of its own; name → prices."""
    own = planner.config.prices or {}
    options = [option for stage in planner.stages for option in stage.options]
    found = {}
    for name, figure in (("prices by idle watts", "idle_power_w"), ("by cores", "cpu_cores")):
        prices = {}
        for resource in own:
            units = [(getattr(o, figure) / o.units(resource)) for o in options if o.units(resource)]
            prices[resource] = float(np.mean(units)) if units else math.nan
        total = sum(prices.values())
        if math.isfinite(total) and total > 0 and len(set(prices.values())) > 1:
            scale = sum(own.values()) / total
            found[name] = {resource: scale * price for resource, price in prices.items()}
    return found


def _priced(config: PipelineConfig, factor: float) -> tuple[dict[str, float | None], str]:
    """A ratio of accuracy to cost, and how it is called."""
    if config.alpha > 0 and (config.beta > 0 or config.prices):
        alpha = config.alpha * factor
        return {"alpha": alpha}, f"alpha {alpha:.4g}"
    alpha = config.alpha or 1.0
    beta = alpha * CORE_OF_ACCURACY / factor
    return {"alpha": alpha, "beta": beta}, f"beta {beta:.4g}"


def with_energy(config: PipelineConfig, planner: Planner) -> list[Weighting]:
    """Settings with energy: ``energy_weight`` over its whole range, at a few alphas.

    Raises:
        ConfigError: accuracy has no weight to hold joules against, or the profile has no joules.
    """
    if config.alpha == 0:
        raise ConfigError(
            "alpha is 0: no accuracy is weighed against joules", allowed="alpha above 0"
        )
    if not any(option.has_energy for stage in planner.stages for option in stage.options):
        raise ConfigError(
            "the profile has no joules",
            where=planner.profile_path,
            fix="profile the pipeline with ipa-energy profile",
        )
    natural = config.alpha * _accuracy_range(planner) / _joules_range(planner)
    found = []
    for factor in FEW_ALPHA_FACTORS:
        alpha = config.alpha * factor
        for step in ENERGY_STEPS:
            weight = natural * factor * step
            label = f"alpha {alpha:.4g}, energy_weight {weight:.4g}"
            found.append(Weighting(label, {"alpha": alpha, "energy_weight": weight}, None, weight))
    return found


def _accuracy_range(planner: Planner) -> float:
    ranges = []
    for stage in planner.stages:
        values = [option.accuracy for option in stage.options]
        ranges.append(max(values) - min(values))
    return max(ranges) or 1.0


def _joules_range(planner: Planner) -> float:
    total = 0.0
    for stage in planner.stages:
        values = [option.dynamic_energy_j for option in stage.options if option.has_energy]
        total += max(values, default=0.0) - min(values, default=0.0)
    return total or 1.0


def reweighted(experiment: Experiment, weighting: Weighting, seed: int) -> Experiment:
    """The same pipeline over the same trace at other weights and with another seed."""
    planner = experiment.planner
    config = planner.config.model_copy(update={**weighting.changes, "seed": seed})
    if weighting.policy is not None:
        config = apply_baseline(config, weighting.policy, planner.stages)
    program = program_for(config, planner.stages)
    return Experiment(
        Planner(config, planner.stages, program, planner.profile_path), experiment.workload
    )


def run_outcome(experiment: Experiment, weighting: Weighting, seed: int) -> Outcome | None:
    """What a setting comes to over the trace; None if none of its loads has a plan."""
    try:
        run = run_experiment(reweighted(experiment, weighting, seed))
    except InfeasibleError:
        return None
    return _outcome(metrics(run), weighting, seed)


def _outcome(found: RunMetrics, weighting: Weighting, seed: int) -> Outcome:
    return Outcome(
        label=weighting.label,
        accuracy=found.accuracy_mean,
        joules_per_request=found.joules_per_request,
        sla_attainment=found.sla_attainment,
        energy_weight=weighting.energy_weight,
        seed=seed,
    )


@dataclass(frozen=True, slots=True)
class SavingStudy:
    """What is simulated to say what the energy in a run's objective saves: :func:`saving_study`.

    Attributes:
        experiment: what the run was made from.
        figures: of the run itself.
        seeds: of the simulations, the run's own first.
    """

    experiment: Experiment
    figures: RunMetrics
    seeds: Sequence[int]

    @property
    def runs(self) -> int:
        """How many runs :meth:`conduct` simulates if nothing is kept."""
        count = len(self.seeds)
        return count - 1 + count * len(without_energy(self.experiment.planner))

    def conduct(
        self,
        *,
        cache: Path | None = None,
        workers: int | None = None,
        ran: Callable[[], object] = lambda: None,
    ) -> Saving:
        """Hold the run against the sweep without energy, and so simulations of it with other seeds.

        Args:
            cache: folder of the sweeps' cache; None: the user's.
            workers: processes; default one a core.
            ran: called after each run of the sweep, for a progress bar.
        """
        planner = self.experiment.planner
        own = Weighting(self.figures.name, {}, None, planner.config.energy_weight)

        def swept(settings: Sequence[Weighting], seeds: Sequence[int]) -> list[Outcome]:
            return cached_sweep(
                self.experiment, settings, seeds, folder=cache, workers=workers, ran=ran
            )

        first, *others = self.seeds
        mine = [_outcome(self.figures, own, first), *swept([own], others)]
        return saving_of(mine, swept(without_energy(planner), self.seeds))


def saving_study(
    experiment: Experiment | None, figures: RunMetrics, *, seeds: int = SEEDS
) -> SavingStudy | None:
    """What to simulate for a run's saving at equal accuracy and SLA attainment.

    Args:
        experiment: what the run was made from (:func:`ipa_energy.experiment.experiment_of`).
        figures: of the run.
        seeds: how many, from the run's own on.

    Returns:
        None if the run's objective has no energy, it decided nothing or is not finished (the first
        seconds of a trace are not the trace), its joules are unknown, or its folder does not hold
        what it was made from.
    """
    if experiment is None or not experiment.planner.program.settings.needs_energy:
        return None
    if figures.status != "complete" or not figures.decisions:
        return None
    if math.isnan(figures.joules_per_request):
        return None
    first = experiment.planner.config.seed
    return SavingStudy(experiment, figures, range(first, first + seeds))


def _registered_here() -> bool:
    """True if something that a pipeline may name was registered while the program runs."""
    registered = (SOLVERS, PREDICTORS, QUANTITIES)
    return any(not isinstance(one.target, str) for names in registered for one in names.values())


_of_worker: list[Experiment] = []


def _start(
    config: PipelineConfig, stages: tuple[Stage, ...], profile: Path, workload: Workload
) -> None:
    """Make a worker's experiment anew: programs hold functions, which no process can send."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal's go to all: the parent answers
        signal.signal(number, signal.SIG_IGN)
    planner = Planner(config, stages, program_for(config, stages), profile)
    _of_worker.append(Experiment(planner, workload))
    logging.getLogger("ipa_energy").setLevel(logging.ERROR)


def _in_worker(task: tuple[Weighting, int]) -> Outcome | None:
    return run_outcome(_of_worker[0], *task)


def sweep(
    experiment: Experiment,
    weightings: Sequence[Weighting],
    seeds: Iterable[int],
    *,
    workers: int | None = None,
    ran: Callable[[], object] = lambda: None,
) -> list[Outcome]:
    """Every setting with every seed, in that order; those that no load has a plan for are left out.

    Args:
        experiment: pipeline and trace.
        weightings: from :func:`without_energy` or :func:`with_energy`.
        seeds: of the runs.
        workers: processes; default one a core.
        ran: called after each run, for a progress bar.
    """
    tasks = [(weighting, seed) for seed in seeds for weighting in weightings]
    count = min(workers or len(os.sched_getaffinity(0)), len(tasks))
    if _registered_here():  # a new process would not know them
        count = 1
    found: list[Outcome | None] = []
    if count <= 1:
        for task in tasks:
            found.append(run_outcome(experiment, *task))
            ran()
    else:
        planner = experiment.planner
        parts = (planner.config, planner.stages, planner.profile_path, experiment.workload)
        with ProcessPoolExecutor(count, get_context("spawn"), _start, parts) as pool:
            for outcome in pool.map(_in_worker, tasks):
                found.append(outcome)
                ran()
    return [outcome for outcome in found if outcome is not None]


def _kept(path: Path) -> list[Outcome] | None:
    """The outcomes of an earlier call; None if there is none, or its file was damaged since."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["sha256"] != _digest(data["outcomes"]):
            raise ValueError("its checksum is another")
        return [
            Outcome(**{**entry, "joules_per_request": _number(entry)}) for entry in data["outcomes"]
        ]
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError) as error:
        logger.info("%s: swept anew: %s", path, in_words(error))
        return None


def _digest(entries: object) -> str:
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def cached_sweep(
    experiment: Experiment,
    weightings: Sequence[Weighting],
    seeds: Sequence[int],
    *,
    folder: Path | None = None,
    workers: int | None = None,
    ran: Callable[[], object] = lambda: None,
) -> list[Outcome]:
    """:func:`sweep`, kept in a file by everything that it depends on.

    Args:
        experiment: as :func:`sweep` takes it, like those below.
        weightings: the settings.
        seeds: of the runs.
        workers: processes.
        ran: called after each run; not for those that were kept.
        folder: of the cache; None: ``$XDG_CACHE_HOME/ipa-energy``, else ``~/.cache/ipa-energy``. A
            cache that cannot be written is done without.
    """
    path = (folder or _cache_folder()) / f"sweep-{_key(experiment, weightings, seeds)}.json"
    kept = _kept(path)
    if kept is not None:
        return kept
    outcomes = sweep(experiment, weightings, seeds, workers=workers, ran=ran)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        entries = as_json([asdict(outcome) for outcome in outcomes])
        write_json(path, {"outcomes": entries, "sha256": _digest(entries)})
    except (OSError, IpaEnergyError) as error:
        logger.info("%s: the sweep is not kept: %s", path, error)
    return outcomes


def _number(entry: Mapping[str, Any]) -> float:
    joules = entry["joules_per_request"]
    return math.nan if joules is None else float(joules)


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ipa-energy"


def _key(experiment: Experiment, weightings: Sequence[Weighting], seeds: Sequence[int]) -> str:
    """Digest of the pipeline less its weights, its profile, the trace, the sweep, our version."""
    planner = experiment.planner
    digest = hashlib.sha256()
    for part in (
        ipa_energy.__version__.encode(),
        dump_config(planner.config).encode(),
        planner.profile_path.read_bytes(),
        experiment.workload.counts.tobytes(),
        json.dumps([asdict(weighting) for weighting in weightings], sort_keys=True).encode(),
        json.dumps(list(seeds)).encode(),
    ):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:20]
