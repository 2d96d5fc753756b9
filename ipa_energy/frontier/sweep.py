"""The runs behind the yardstick: one pipeline over one trace at many weights, nothing written.

Every run has the seeds of the others, so that differences are of weights and not of arrivals. What
was swept is kept in a file under everything that it depends on, the program's own source included.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import ipa_energy
from ipa_energy.as_json import as_json
from ipa_energy.carbon.run_carbon import RunCarbon
from ipa_energy.comparing import RunMetrics, metrics
from ipa_energy.comparing.hull import Outcome, Saving, saving_of
from ipa_energy.config import PipelineConfig, dump_config
from ipa_energy.errors import InfeasibleError, IpaEnergyError, in_words
from ipa_energy.experiment import Experiment, run_experiment
from ipa_energy.files import write_json
from ipa_energy.frontier.courses import Course, Rehearser, alike, outcome, served
from ipa_energy.frontier.weightings import (
    CONSTANT,
    LEAST_JOULES,
    Weighting,
    carbon_rivals,
    reconfigured,
    reweighted,
    without_energy,
)
from ipa_energy.optimizer.plan import SHARE_RTOL
from ipa_energy.optimizer.problem import combine_accuracy
from ipa_energy.planning.carbon_budget import DAY_S
from ipa_energy.planning.planner import planner_of
from ipa_energy.records import Stage
from ipa_energy.registries import CONTROLLERS, POLICIES, PREDICTORS, QUANTITIES, SOLVERS
from ipa_energy.runner import initial_configuration
from ipa_energy.workloads import Workload

logger = logging.getLogger(__name__)

SEEDS = 3
"""Of the yardstick: the range over them says how much of a saving is luck of arrivals."""


FORESEEN = ("interval", "ipa", "inferline", "horizon")
"""Controllers that decide by the load alone, so that their courses hold for every seed; that of the
horizon as if nothing waited, which is a hair off. Others see replicas that start, or who knows."""


def _registered_here() -> bool:
    """True if something that a pipeline may name was registered while the program runs."""
    registered = (SOLVERS, PREDICTORS, QUANTITIES, CONTROLLERS, POLICIES)
    return any(not isinstance(one.target, str) for names in registered for one in names.values())


def run_outcome(experiment: Experiment, weighting: Weighting, seed: int) -> Outcome | None:
    """What a setting comes to over the trace, by a whole run; None if no load of it has a plan.

    :func:`sweep` finds the same faster, where decisions depend on nothing that was served.
    """
    planner = reweighted(experiment.planner, weighting)
    config = planner.config.model_copy(update={"seed": seed})
    try:
        run = run_experiment(replace(experiment, planner=replace(planner, config=config)))
    except InfeasibleError:
        return None
    return _outcome(metrics(run), weighting, seed)


def _outcome(found: RunMetrics, weighting: Weighting, seed: int) -> Outcome:
    grams = found.grams_per_million_requests
    return Outcome(
        label=weighting.label,
        accuracy=found.accuracy_mean,
        joules_per_request=found.joules_per_request,
        sla_attainment=found.sla_attainment,
        energy_weight=weighting.energy_weight,
        seed=seed,
        grams_per_request=None if math.isnan(grams) else grams / 1e6,
    )


class _Worker:
    """What a process does for a sweep."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._rehearser = Rehearser(experiment)

    def courses(self, group: Sequence[Weighting]) -> list[Course | None]:
        """What settings with equal programs decide."""
        return self._rehearser.courses(group)

    def served(self, task: tuple[Course, int]) -> tuple[float, float, float | None]:
        """What a course comes to with a seed."""
        return served(self._experiment, *task)

    def whole_run(self, task: tuple[Weighting, int]) -> Outcome | None:
        """Decided and simulated in one."""
        return run_outcome(self._experiment, *task)


_of_process: list[_Worker] = []


def _start(
    config: PipelineConfig,
    stages: tuple[Stage, ...],
    profile: Path,
    carbon: RunCarbon | None,
    workload: Workload,
) -> None:
    """Make a process's experiment anew: programs hold functions, which no process can send."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal's go to all: the parent answers
        signal.signal(number, signal.SIG_IGN)
    with _without_warnings():
        planner = planner_of(config, stages, profile, carbon)
    _of_process.append(_Worker(Experiment(planner, workload)))


def _in_process(call: tuple[str, Any]) -> Any:
    name, task = call
    with _without_warnings():  # each of many settings would give its own
        return getattr(_of_process[0], name)(task)


@contextmanager
def _without_warnings() -> Iterator[None]:
    ours = logging.getLogger("ipa_energy")
    level = ours.level
    ours.setLevel(logging.ERROR)
    try:
        yield
    finally:
        ours.setLevel(level)


class _Processes:
    """Answers tasks in order, in processes of its own or in this one."""

    def __init__(self, experiment: Experiment, count: int) -> None:
        self._pool = None
        if count > 1 and not _registered_here():  # a new process would not know them
            planner = experiment.planner
            parts = (planner.config, planner.stages, planner.profile_path, planner.carbon)
            self._pool = ProcessPoolExecutor(
                count, get_context("spawn"), _start, (*parts, experiment.workload)
            )
        self._here = _Worker(experiment)

    def __enter__(self) -> _Processes:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def answers(self, name: str, tasks: Sequence[Any]) -> Iterator[Any]:
        """What :class:`_Worker`'s method says to each task."""
        if self._pool is not None:
            yield from self._pool.map(_in_process, [(name, task) for task in tasks])
            return
        for task in tasks:
            with _without_warnings():
                answer = getattr(self._here, name)(task)
            yield answer


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
        weightings: from :mod:`.weightings`.
        seeds: of the runs.
        workers: processes; default one a core.
        ran: called once a run, for a progress bar.
    """
    runs = [(weighting, seed) for seed in seeds for weighting in weightings]
    foreseen = {id(one) for one in weightings if _is_foreseen(experiment, one)}
    whole = [(one, seed) for one, seed in runs if id(one) not in foreseen]
    count = min(workers or len(os.sched_getaffinity(0)), len(runs))
    with _Processes(experiment, count) as processes:
        found = _foreseen(processes, [run for run in runs if id(run[0]) in foreseen], ran)
        for (one, seed), came in zip(whole, processes.answers("whole_run", whole), strict=True):
            found[id(one), seed] = came
            ran()
    answers = [found.get((id(one), seed)) for one, seed in runs]
    return [answer for answer in answers if answer is not None]


def _is_foreseen(experiment: Experiment, weighting: Weighting) -> bool:
    """True if what a setting decides depends on nothing that is served."""
    if weighting.static_room is not None:
        return True
    config = reconfigured(experiment.planner, weighting)
    # What was emitted so far prices the next gram of a budget.
    has_budget = config.carbon is not None and config.carbon.budget_grams_per_day is not None
    return config.controller in FORESEEN and not has_budget and not weighting.is_whole


def _foreseen(
    processes: _Processes, runs: Sequence[tuple[Weighting, int]], ran: Callable[[], object]
) -> dict[tuple[int, int], Outcome | None]:
    """(id of the setting, seed) → outcome; each setting decides once, each course serves once."""
    groups = alike(list({id(one): one for one, _ in runs}.values()))
    courses: dict[int, Course | None] = {}
    for group, decided in zip(groups, processes.answers("courses", groups), strict=True):
        courses |= {id(one): course for one, course in zip(group, decided, strict=True)}
    shares = Counter((courses[id(one)], seed) for one, seed in runs)
    distinct = [(course, seed) for course, seed in shares if course is not None]
    came_to = {}
    for task, found in zip(distinct, processes.answers("served", distinct), strict=True):
        came_to[task] = found
        for _ in range(shares[task]):
            ran()
    return {
        (id(one), seed): outcome(one, course, seed, came_to[course, seed])
        for one, seed in runs
        if (course := courses[id(one)]) is not None
    }


def least_accuracy(experiment: Experiment) -> float:
    """What a run has in the mean at least that keeps the pipeline's floor; −inf without one.

    Every plan keeps it; where there is none, what ran goes on. Before its first decision every run
    has what the YAML begins with.
    """
    planner = experiment.planner
    floor = planner.config.accuracy_floor
    if floor is None:
        return -math.inf
    first = [running.option.accuracy for running in initial_configuration(planner)]
    begins = combine_accuracy(first, planner.config.accuracy_method)
    share = min(1.0, planner.config.adaptation_interval / len(experiment.workload.counts))
    return (floor - share * max(0.0, floor - begins)) * (1 - SHARE_RTOL)


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
        settings = len(without_energy(self.experiment.planner))
        settings += sum(len(group) for group in self.rivals.values())
        return count - self._is_simulated + count * settings

    @property
    def _is_simulated(self) -> bool:
        """Whether the run's own joules are those that simulations of others have, too."""
        return self.figures.backend == "simulate"

    @property
    def requests(self) -> int:
        """How many requests these runs have."""
        return self.runs * self.figures.requests

    @property
    def rivals(self) -> dict[str, list[Weighting]]:
        """Who a run with carbon in its objective is held against in grams, by name."""
        mine = self.figures
        return carbon_rivals(
            self.experiment.planner,
            joules_per_request=mine.joules_per_request,
            grams_per_joule=mine.grams / mine.energy_j,
            requests_per_day=mine.served / mine.duration_s * DAY_S,
        )

    def conduct(
        self,
        *,
        cache: Path | None = None,
        workers: int | None = None,
        ran: Callable[[], object] = lambda: None,
    ) -> Saving:
        """Hold the run against the sweep without energy, and so simulations of it with other seeds.

        Of a run that was served live all are simulations of it: joules of its meter and joules of
        the profile differ by what the two meters do.

        Args:
            cache: folder of the sweeps' cache; None: the user's.
            workers: processes; default one a core.
            ran: called after each run of the sweep, for a progress bar.
        """
        planner = self.experiment.planner
        own = Weighting(self.figures.name, {}, None, planner.config.energy_weight, is_whole=True)

        def swept(settings: Sequence[Weighting], seeds: Sequence[int]) -> list[Outcome]:
            return cached_sweep(
                self.experiment, settings, seeds, folder=cache, workers=workers, ran=ran
            )

        first, *others = self.seeds
        if self._is_simulated:
            mine = [_outcome(self.figures, own, first), *swept([own], others)]
        else:
            told = (
                "%s was served live: what energy saves is told by simulations of it and of others"
            )
            logger.warning(told, self.figures.name)
            mine = swept([own], self.seeds)
        without = swept(without_energy(planner), self.seeds)
        least = least_accuracy(self.experiment)
        saving = saving_of(mine, without, least_accuracy=least)
        rivals = self.rivals
        if not rivals:
            return saving
        found = swept([one for group in rivals.values() for one in group], self.seeds)
        came_to = {
            name: [one for one in found if one.label in {each.label for each in group}]
            for name, group in rivals.items()
        }
        return replace(saving, grams=_in_grams(mine, without, came_to, least))


def _in_grams(
    mine: Sequence[Outcome],
    without: Sequence[Outcome],
    rivals: Mapping[str, Sequence[Outcome]],
    least: float,
) -> Saving:
    """A run's saving in grams: against the best other weights, and against each rival alone."""

    def against(outcomes: Sequence[Outcome]) -> Saving:
        in_grams = [[one.in_grams for one in some] for some in (mine, outcomes)]
        return saving_of(*in_grams, least_accuracy=least)

    weights = [*without, *rivals[CONSTANT]]
    return replace(
        against(weights),
        rivals={
            LEAST_JOULES: saving_of(mine, weights, reads_grams=True, least_accuracy=least),
            **{name: against(found) for name, found in rivals.items()},
        },
    )


def saving_study(
    experiment: Experiment | None, figures: RunMetrics, *, seeds: int = SEEDS
) -> SavingStudy | None:
    """What to simulate for a run's saving at equal accuracy and SLA attainment.

    Args:
        experiment: what the run was made from (:func:`ipa_energy.experiment.experiment_of`).
        figures: of the run.
        seeds: how many, from the run's own on.

    Returns:
        None if the run's objective has no energy, it was in several places, it decided nothing or
        is not finished (the first seconds of a trace are not the trace), its joules are unknown, or
        its folder does not hold what it was made from.
    """
    if experiment is None or not experiment.planner.program.settings.needs_energy:
        return None
    if figures.sites or figures.status != "complete" or not figures.decisions:
        return None
    if math.isnan(figures.joules_per_request):
        return None
    first = experiment.planner.config.seed
    return SavingStudy(experiment, figures, range(first, first + seeds))


def kept_in_cache(folder: Path | None, name: str, make: Callable[[], Any]) -> Any:
    """What ``make`` gave at an earlier call with this name, or gives now; plain JSON.

    Made anew if there is no such file or it was damaged since; not kept where it cannot be written.

    Args:
        folder: of the cache; None: ``$XDG_CACHE_HOME/ipa-energy``, else ``~/.cache/ipa-energy``.
        name: of the file.
        make: what is asked if there is none.
    """
    path = (folder or _cache_folder()) / name
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["sha256"] != _digest(data["outcomes"]):
            raise ValueError("its checksum is another")
        return data["outcomes"]
    except FileNotFoundError:
        pass
    except (OSError, KeyError, TypeError, ValueError) as error:
        logger.info("%s: computed anew: %s", path, in_words(error))
    found = as_json(make())
    try:
        write_json(path, {"outcomes": found, "sha256": _digest(found)})
    except (OSError, IpaEnergyError) as error:
        logger.info("%s: not kept: %s", path, error)
    return found


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
        folder: of the cache, as :func:`kept_in_cache` takes it.
    """

    def swept() -> list[dict[str, Any]]:
        outcomes = sweep(experiment, weightings, seeds, workers=workers, ran=ran)
        return [asdict(outcome) for outcome in outcomes]

    name = f"sweep-{cache_key(experiment, weightings, seeds)}.json"
    return [
        Outcome(**{**entry, "joules_per_request": _number(entry)})
        for entry in kept_in_cache(folder, name, swept)
    ]


def _number(entry: Mapping[str, Any]) -> float:
    joules = entry["joules_per_request"]
    return math.nan if joules is None else float(joules)


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ipa-energy"


def cache_key(experiment: Experiment, weightings: Sequence[Weighting], seeds: Sequence[int]) -> str:
    """Digest of the pipeline, its profile, the trace, the sweep, and the program that answers."""
    planner = experiment.planner
    carbon = planner.config.carbon
    intensities = [] if carbon is None else sorted(carbon.files.items())
    digest = hashlib.sha256()
    for part in (
        ipa_energy.__version__.encode(),
        _source(),
        dump_config(planner.config).encode(),
        planner.profile_path.read_bytes(),
        experiment.workload.counts.tobytes(),
        b"".join(counts.tobytes() for counts in experiment.workload.by_class.values()),
        repr([asdict(weighting) for weighting in weightings]).encode(),
        json.dumps(list(seeds)).encode(),
        *(path.read_bytes() for _, path in intensities),
    ):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:20]


@cache
def _source() -> bytes:
    """Digest of the package's modules: another planner or simulator finds other figures."""
    folder = Path(ipa_energy.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.digest()
