"""The same pipeline in several places: decisions against brute force, runs by hand, refusals."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from option_maker import make_option
from scipy.optimize import linprog
from seeds import seeds
from small_pipeline import write_small_pipeline

from ipa_energy.comparing import compare, metrics
from ipa_energy.comparing.saving_tables import by_site, carbon_table
from ipa_energy.config.carbon import SiteConfig
from ipa_energy.errors import ConfigError
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.optimizer.plan import Plan
from ipa_energy.optimizer.problem import Problem, Program
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.optimizer.settings import Settings
from ipa_energy.optimizer.solve import solve
from ipa_energy.planning.planner import load_planner
from ipa_energy.planning.sites import at_sites, capacity_of
from ipa_energy.records import Stage
from ipa_energy.report.compare_page import carbon_figures, drawn_runs
from ipa_energy.report.figure import Line
from ipa_energy.report.page import setting_text

LOAD_RPS = 10.0


def problem(
    stages: list[Stage], sites: dict[str, SiteConfig], rates: dict[str, float], **settings: object
) -> Problem:
    known = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0, "mix": True, "scaling_cap": 20}
    known |= {"batching_cap": 1, "weights": {"grams_per_request": 1e6}} | settings
    known["capacity"] = capacity_of(sites)
    program = Program(at_sites(stages, sites), Settings(**known))  # type: ignore[arg-type]
    return program.at(Moment.at(LOAD_RPS, **{f"g_per_kwh@{at}": g for at, g in rates.items()}))


def shares_of(plan: Plan) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in plan.stages[0].parts:
        site = part.option.allocation.site
        found[site] = found.get(site, 0.0) + part.share
    return found


def made_up(seed: int) -> Problem:
    """Two sites; a stage of three variants, or two stages of two and of one."""
    rng = np.random.default_rng(seed)
    names = (("a", "b", "c"),) if seed % 2 else (("a", "b"), ("c",))
    stages = [
        Stage(
            f"s{index}",
            f"n{index}",
            tuple(
                make_option(
                    name,
                    latency_s=float(rng.choice([0.1, 0.2, 0.3])),
                    throughput_rps=float(rng.uniform(5.5, 9)),
                    accuracy=float(rng.uniform(0.3, 0.9)),
                    dynamic_energy_j=float(rng.uniform(1, 5)),
                    idle_power_w=float(rng.uniform(0, 8)),
                )
                for name in variants
            ),
        )
        for index, variants in enumerate(names)
    ]
    sites = {
        "A": SiteConfig(capacity={"core": float(rng.choice([1, 2, 3]))}),
        "B": SiteConfig(network_delay_s=float(rng.choice([0.0, 0.15]))),
    }
    rates = {"A": float(rng.uniform(20, 200)), "B": float(rng.uniform(150, 600))}
    floor = float(rng.uniform(0.4, 0.6)) * len(names)
    sla_s = float(rng.choice([0.35, 0.5]))
    return problem(stages, sites, rates, alpha=100.0, accuracy_floor=floor, latency_sla_s=sla_s)


def referee(one: Problem) -> float | None:
    """The best objective over every number of replicas up to 2; the rest is a linear program."""
    settings, signals = one.settings, one.moment.signals
    uses = [(s, o) for s, each in enumerate(one.stages) for o in each.stage.options]
    emitted = {site: signals[f"g_per_kwh@{site}"] / 3.6e6 * 1e6 for site in ("A", "B")}
    best = None
    for counts in itertools.product(range(3), repeat=len(uses)):
        running = [(s, o, n) for (s, o), n in zip(uses, counts, strict=True) if n]
        late = 0.0
        for site in ("A", "B"):
            there = [(s, o) for s, o, _ in running if o.allocation.site == site]
            slowest = [max((o.latency_s for s, o in there if s == at), default=0.0)
                       for at in range(len(one.stages))]  # fmt: skip
            late = max(late, sum(slowest))
        cores = sum(n * o.cpu_cores for _, o, n in running if o.allocation.site == "A")
        if late > settings.latency_sla_s + 1e-9 or cores > settings.capacity["core@A"]:  # type: ignore[operator]
            continue
        worth = np.array([settings.alpha * o.accuracy - emitted[o.allocation.site]
                          * o.dynamic_energy_j for _, o, _ in running])  # fmt: skip
        fixed = sum(n * o.idle_power_w / LOAD_RPS * emitted[o.allocation.site]
                    for _, o, n in running)  # fmt: skip
        equal = [[float(s == at) for s, _, _ in running] for at in range(len(one.stages))]
        right = [1.0] * len(one.stages)
        if len(one.stages) == 2:
            equal.append([(1.0 if s else -1.0) * (o.allocation.site == "A") for s, o, _ in running])
            right.append(0.0)
        found = linprog(
            -worth,
            A_ub=[[-o.accuracy for _, o, _ in running]],
            b_ub=[-settings.accuracy_floor],  # type: ignore[operator]
            A_eq=equal,
            b_eq=right,
            bounds=[(0, min(1.0, n * o.throughput_rps / LOAD_RPS)) for _, o, n in running],
        ) if running else None  # fmt: skip
        if found is not None and found.status == 0:
            best = max(-np.inf if best is None else best, -found.fun - fixed)
    return best


def test_decisions_equal_brute_force() -> None:
    feasible = split = 0
    for seed in seeds(6):
        one = made_up(seed)
        best, result = referee(one), solve(one, "highs", limit_s=60)
        assert bool(result.plans) == (best is not None), seed
        if best is not None:
            assert result.best.objective == pytest.approx(best, rel=1e-6), seed
            assert result.best.certificate.holds
            feasible += 1
            split += len(shares_of(result.best)) > 1
    assert feasible > 2
    assert split > 0


ONE = Stage("s", "n", (make_option(dynamic_energy_j=3.6, idle_power_w=0.0),))
"""A request takes 3.6 J; a core serves 10 a second."""


def test_the_clean_place_takes_what_it_can_and_grams_are_by_hand() -> None:
    rates = {"GB": 300.0, "NL": 100.0}
    one = problem([ONE], {"GB": SiteConfig(), "NL": SiteConfig()}, rates)
    assert shares_of(solve(one, "highs").best) == {"NL": 1.0}
    small = {"GB": SiteConfig(), "NL": SiteConfig(capacity={"core": 0.5})}
    half = make_option(cpu_cores=0.5, throughput_rps=6.0, dynamic_energy_j=3.6, idle_power_w=0)
    plan = solve(problem([Stage("s", "n", (half,))], small, rates), "highs").best
    assert shares_of(plan) == pytest.approx({"NL": 0.6, "GB": 0.4})
    assert plan.amounts["grams_per_request"] == pytest.approx(1e-6 * (0.6 * 100 + 0.4 * 300))
    # Two stages need two half cores at NL: no request goes elsewhere for the second.
    two = [Stage("s", "n", (half,)), Stage("t", "m", (half,))]
    assert shares_of(solve(problem(two, small, rates), "highs").best) == {"GB": 1.0}


def test_a_request_is_served_where_it_came_in() -> None:
    """Both of NL's cores for the heavy stage would save more, if the light one could be in GB."""
    heavy = make_option(throughput_rps=5.0, dynamic_energy_j=3.6, idle_power_w=0.0)
    light = make_option(throughput_rps=20.0, dynamic_energy_j=0.36, idle_power_w=0.0)
    stages = [Stage("s", "n", (heavy,)), Stage("t", "m", (light,))]
    sites = {"GB": SiteConfig(), "NL": SiteConfig(capacity={"core": 2})}
    plan = solve(problem(stages, sites, {"GB": 300.0, "NL": 100.0}), "highs").best
    assert shares_of(plan) == pytest.approx({"NL": 0.5, "GB": 0.5})
    assert plan.amounts["grams_per_request"] == pytest.approx(1.1e-6 * (0.5 * 100 + 0.5 * 300))


def test_the_delay_of_a_place_is_part_of_the_latency_there_alone() -> None:
    rates = {"GB": 300.0, "NL": 100.0}
    sites = {"GB": SiteConfig(), "NL": SiteConfig(network_delay_s=0.25)}
    near = problem([ONE], sites, rates, latency_sla_s=0.3)
    assert shares_of(solve(near, "highs").best) == {"GB": 1.0}
    far = solve(problem([ONE], sites, rates, latency_sla_s=0.4), "highs").best
    assert shares_of(far) == {"NL": 1.0}
    assert far.latency_s == pytest.approx(0.35)


SITES = {
    "mix": True,
    "optimization_method": "highs",
    "allocation_mode": "base",
    "batching_cap": 1,
    "beta": 0.0,
    "workload_type": "static",
    "workload_config": {"loads_to_test": 18, "load_duration": 60},
    "decision_limit_s": None,
    "carbon": {
        "intensity": 300,
        "weight": 1e6,
        "sites": {
            "GB": {"pue": 1.5},
            "NL": {"intensity": 100, "network_delay_s": 0.25, "capacity": {"core": 2}},
        },
    },
}


def test_a_run_serves_each_request_in_one_place_and_counts_its_grams(tmp_path: Path) -> None:
    experiment = load_experiment(write_small_pipeline(tmp_path), SITES)
    run = run_experiment(experiment, tmp_path / "run")
    both = [step for step in run.steps if "in GB" in step.label and "in NL" in step.label]
    assert both
    for step in run.steps:
        grams = sum(grams for _, grams in step.sites.values())
        assert step.grams == pytest.approx(grams, rel=1e-6)
        assert step.energy_j == pytest.approx(sum(j for j, _ in step.sites.values()), rel=1e-6)
        for site, factor in (("GB", 300 * 1.5), ("NL", 100)):
            joules, grams = step.sites[site]
            assert grams == pytest.approx(joules * factor / 3.6e6, abs=2e-9)
    totals = json.loads((tmp_path / "run" / "run.json").read_text())["totals"]
    assert totals["sites"]["NL"]["grams"] + totals["sites"]["GB"]["grams"] == pytest.approx(
        totals["grams"]
    )
    # Whoever was sent abroad took the delay on top of the wait and both services.
    latest = run.requests.sending_s[run.requests.sending_s > 30]
    took_s = (run.requests.started_s[:, 0] - run.requests.sending_s)[-len(latest) :]
    abroad = (took_s >= 0.25 - 1e-6).mean()
    shares = shares_of_step(run.steps[-1].label)
    assert abroad == pytest.approx(shares["NL"], abs=0.1)
    figures = metrics(run)
    assert 0 < figures.sites["NL"]["grams"] < figures.grams
    table = carbon_table(compare([figures]))
    assert table is not None
    assert f"NL {100 * figures.sites['NL']['joules'] / figures.energy_j:.0f} % of the joules" in (
        table.note
    )
    assert by_site([figures])[0] in table.note
    (figure,) = carbon_figures(drawn_runs(compare([figures]), [run]))
    intensity = np.asarray(next(mark for mark in figure.marks if isinstance(mark, Line)).y)
    assert 100 - 1e-3 <= np.nanmin(intensity) <= np.nanmax(intensity) <= 300 + 1e-3  # no PUE in it
    again = run_experiment(load_experiment(tmp_path / "run" / "0.yaml"), tmp_path / "again")
    assert [step.label for step in again.steps] == [step.label for step in run.steps]
    assert [step.grams for step in again.steps] == [step.grams for step in run.steps]


def test_sites_among_the_settings_are_told_in_words() -> None:
    said = {"zone": "", "pue": 1.5, "sites": {"NL": {"zone": None}}}
    assert setting_text(said) == "(pue 1.5, sites (NL (zone none)))"


def shares_of_step(label: str) -> dict[str, float]:
    """Of the first stage: ``find-s 1c in GB b1 x2 38% + …``."""
    found = {"GB": 0.0, "NL": 0.0}
    for part in label.split(" | ", maxsplit=1)[0].split(" + "):
        words = part.split()
        share = float(words[-1].rstrip("%")) / 100 if words[-1].endswith("%") else 1.0
        found[words[words.index("in") + 1]] += share
    return found


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mix": False}, "carbon.sites without mix: true"),
        ({"carbon": {**SITES["carbon"], "weight": 0, "budget_grams_per_day": 5}},  # type: ignore[dict-item]
         "carbon.sites with carbon.budget_grams_per_day"),
        ({"carbon": {**SITES["carbon"], "forecast": 200}},  # type: ignore[dict-item]
         "carbon.sites with carbon.forecast"),
        ({"serving": "ipa"}, "carbon.sites with serving"),
        ({"optimization_method": "pareto"}, "cannot mix"),
    ],
)  # fmt: skip
def test_what_sites_cannot_do_is_refused(
    keys: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = write_small_pipeline(tmp_path)
    with pytest.raises(ConfigError, match=message):
        planner = load_planner(path, {**SITES, **keys})
        run_experiment(load_experiment(path, {**SITES, **keys}))
        assert planner


def test_a_capacity_of_a_site_is_told_in_words() -> None:
    sites = {name: SiteConfig(capacity={"core": 0}) for name in ("here", "there")}
    conflict = solve(problem([ONE], sites, {"here": 300.0, "there": 100.0}), "highs").conflict
    assert conflict is not None
    assert str(conflict).startswith(
        "no plan can meet the capacity of core at site here and the capacity of core at site there"
        " together; needs a capacity of site "
    )
    assert "of at least 1 units of core" in str(conflict)
    assert conflict.constraints == ("capacity:core@here", "capacity:core@there")


def test_a_key_of_a_site_that_is_not_one_names_what_was_meant(tmp_path: Path) -> None:
    sites = {"there": {"delay": 0.1}}
    keys = {**SITES, "carbon": {"intensity": 300, "sites": sites}}
    with pytest.raises(ConfigError, match=r"sites.there.delay: did you mean network_delay_s\?"):
        load_planner(write_small_pipeline(tmp_path), keys)


def test_live_backends_serve_in_one_place(tmp_path: Path) -> None:
    experiment = load_experiment(write_small_pipeline(tmp_path), SITES)
    with pytest.raises(ConfigError, match="local-stub serves in one place"):
        run_experiment(experiment, tmp_path / "live", backend="local-stub")


def test_kinds_of_intensities_are_not_mixed_between_sites(tmp_path: Path) -> None:
    rows = [f"2024-01-01T{hour:02}:00Z,100" for hour in range(24)]
    path = tmp_path / "m.csv"
    path.write_text("\n".join(["time,value", *rows, ""]))
    files = {
        kind: {"path": str(path), "unit": "g/kWh", "kind": kind} for kind in ("average", "marginal")
    }
    sites = {"GB": {"intensity": files["average"]}, "NL": {"intensity": files["marginal"]}}
    keys = {**SITES, "carbon": {"intensity": 300, "weight": 1e6, "sites": sites}}
    with pytest.raises(ConfigError, match="this site's intensity is marginal"):
        load_planner(write_small_pipeline(tmp_path), keys)
