"""Requests in classes, from the trace to the comparison: times, joules, accuracy, SLAs by class."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from option_maker import make_option

from ipa_energy.comparing import compare, comparison_table, metrics
from ipa_energy.errors import ConfigError
from ipa_energy.experiment import load_experiment, run_experiment
from ipa_energy.planning.stages import mixture
from ipa_energy.records import Option, Part, RequestClass, Stage
from ipa_energy.registries import BACKENDS
from ipa_energy.runlog.reader import Run, read_run
from ipa_energy.serving.base import LiveOptions
from ipa_energy.serving.deployment import DeployedStage
from ipa_energy.serving.load import ClassesOfRequests, drawn_classes, shuffled_classes
from ipa_energy.serving.observed import (
    ClassWork,
    Spent,
    added,
    joules_by_class,
    option_name,
    served_work,
)
from ipa_energy.serving.simulated.backend import SimulatedBackend
from ipa_energy.workloads.trace_files import csv_workload

CLASSES = (RequestClass("easy", 0.5), RequestClass("hard", 0.5))


def option_of(variant: str, batch: int, easy: Sequence[float], hard: Sequence[float]) -> Option:
    """(seconds, joules, accuracy) of each class."""
    found = {}
    for name, (latency_s, joules, accuracy) in (("easy", easy), ("hard", hard)):
        found[name] = make_option(
            variant,
            batch,
            latency_s=latency_s,
            throughput_rps=batch / latency_s,
            dynamic_energy_j=joules,
            accuracy=accuracy,
        )
    return mixture(found, CLASSES)


def backend(options: Sequence[Option], runs: DeployedStage, kinds: str) -> SimulatedBackend:
    of_request = np.array([("e", "h").index(kind) for kind in kinds])
    classes = ClassesOfRequests(("easy", "hard"), of_request)
    stage = Stage("s", "node", tuple(options))
    return SimulatedBackend([stage], (runs,), seed=0, reconfiguration_s=0.0, classes=classes)


def test_each_class_takes_its_own_time_and_joules() -> None:
    """Ten requests a second apart: easy 0.1 s and 1 J, hard 0.4 s and 5 J, 2 W idle."""
    one = option_of("v", 1, (0.1, 1.0, 0.9), (0.4, 5.0, 0.5))
    served = backend([one], DeployedStage("s", one, 1), "eh" * 5).serve(np.arange(10.0), 10.0)
    took_s = np.round(served.requests.done_s - served.requests.sending_s, 9)
    assert took_s.tolist() == [0.1, 0.4] * 5
    assert served.requests.kind.tolist() == [0, 1] * 5
    assert served.dynamic_j.sum() == pytest.approx(5 * 1 + 5 * 5)
    easy, hard = served.work
    assert (easy.requests, hard.requests) == (5, 5)
    assert easy.idle_j == pytest.approx(5 * 0.1 * 2.0)
    assert hard.accuracy_sum == pytest.approx(5 * 0.5)
    # 20 J idle: a fifth of the time that the replica worked was for easy ones.
    shared = joules_by_class(served.work, served.idle_j + served.dynamic_j, ["easy", "hard"])
    assert shared == {"easy": pytest.approx(5 + 20 / 5), "hard": pytest.approx(25 + 20 * 4 / 5)}


def test_a_batch_of_both_takes_the_mean() -> None:
    pair = option_of("v", 2, (0.2, 1.0, 0.9), (0.6, 3.0, 0.5))
    served = backend([pair], DeployedStage("s", pair, 1), "eh").serve(np.zeros(2), 5.0)
    assert served.requests.done_s.tolist() == [pytest.approx(0.4)] * 2
    assert served.dynamic_j.sum() == pytest.approx(1.0 + 3.0)
    assert [part.idle_j for part in served.work] == [pytest.approx(0.2), pytest.approx(0.6)]


def test_each_class_goes_where_the_plan_sends_it() -> None:
    small = option_of("small", 1, (0.01, 1.0, 0.9), (0.01, 1.0, 0.4))
    large = option_of("large", 1, (0.05, 7.0, 0.9), (0.05, 7.0, 0.8))
    parts = (
        Part(small, 1, (("easy", 0.5), ("hard", 0.125))),
        Part(large, 1, (("hard", 0.375),)),
    )
    runs = DeployedStage("s", small, 2, parts=parts)
    made = backend([small, large], runs, "eh" * 400)
    served = made.serve(np.arange(400) / 10, 40.0)
    work = {part.request_class: part for part in served.work}
    assert work["easy"].dynamic_j == pytest.approx(200 * 1.0)
    assert work["hard"].dynamic_j == pytest.approx(50 * 1.0 + 150 * 7.0)
    assert work["hard"].accuracy_sum == pytest.approx(50 * 0.4 + 150 * 0.8)
    # What a class had nowhere to go to goes to the largest part that serves it.
    only = (Part(small, 1, (("easy", 0.5),)), Part(large, 1, (("easy", 0.0),)))
    made.deploy((DeployedStage("s", small, 2, parts=only),))
    rest = made.serve(40 + np.arange(400) / 10, 80.0)
    assert {part.request_class: part.requests for part in rest.work} == {"easy": 200, "hard": 200}


def test_no_class_comes_to_an_option_that_does_not_serve_it() -> None:
    """Through forty random changes, each two seconds before it is ready."""
    everything = option_of("all", 1, (0.05, 2.0, 0.9), (0.05, 2.0, 0.8))
    easy = make_option("easy only", latency_s=0.02, throughput_rps=50.0, dynamic_energy_j=1.0)
    easy = dataclasses.replace(easy, by_class=(("easy", easy),))
    stage = Stage("s", "node", (everything, easy))
    kinds = np.random.default_rng(5).integers(2, size=400)
    classes = ClassesOfRequests(("easy", "hard"), kinds)
    whole = DeployedStage("s", everything, 2)
    made = SimulatedBackend([stage], (whole,), seed=0, reconfiguration_s=2.0, classes=classes)
    rng = np.random.default_rng(1)
    work: list[ClassWork] = []
    for second in range(40):
        share = float(rng.uniform(0.1, 0.5))
        parts = (
            Part(easy, 1, (("easy", share),)),
            Part(everything, 2, (("easy", 0.5 - share), ("hard", 0.5))),
        )
        mixed = DeployedStage("s", everything, 3, parts=parts)
        made.deploy(((mixed, whole)[int(rng.integers(2))],))
        sent = second + np.arange(10) / 10
        work += made.serve(sent, second + 1.0).work
    work += made.finish().work
    total = {part.request_class: part for part in added(work)}
    assert total["hard"].requests == int(kinds.sum())
    assert total["hard"].dynamic_j == pytest.approx(2.0 * kinds.sum())
    assert total["easy"].dynamic_j < 2.0 * total["easy"].requests


def test_classes_of_a_trace_are_as_many_in_every_second_and_of_shares_as_many_in_the_mean() -> None:
    by_class = [np.array([3, 0, 5]), np.array([1, 2, 5])]
    kinds = shuffled_classes(by_class, seed=3)
    assert [kinds[:4].sum(), kinds[4:6].sum(), kinds[6:].sum()] == [1, 2, 5]
    assert kinds[6:].tolist() != [0] * 5 + [1] * 5
    counts = np.full(1000, 10)
    drawn = drawn_classes(counts, {"easy": 0.8, "hard": 0.2}, seed=0)
    assert drawn.mean() == pytest.approx(0.2, abs=0.015)
    assert drawn[:500].tolist() == drawn_classes(counts[:50], {"a": 0.8, "b": 0.2}, seed=0).tolist()


def test_a_trace_with_a_column_a_class(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("second,requests:easy,requests:hard\n0,4,1\n1,7,3\n")
    found = csv_workload(path, 2)
    assert {name: column.tolist() for name, column in found.by_class.items()} == {
        "easy": [2, 3],
        "hard": [0, 1],
    }
    assert found.counts.tolist() == [2, 4]
    for header in ("requests:easy,requests:easy", "requests,requests:hard", "second,requests:"):
        path.write_text(f"{header}\n1,1\n")
        with pytest.raises(ConfigError, match="column 'requests:CLASS' for each class"):
            csv_workload(path)
    path.write_text("requests:easy\n-1\n")
    with pytest.raises(ConfigError, match="requests:easy is '-1'"):
        csv_workload(path)


HEADER = (
    "stage,variant,hardware,cpu_cores,gpu_share,batch,replicas,load_rps,latency_avg_s,"
    "latency_p99_s,throughput_rps,accuracy,dynamic_energy_j,idle_power_w,joules_per_request,"
    "energy_ci95_j,trials,meter,quality,request_class\n"
)
ROWS = (
    ("small", "easy", 0.1, 0.9, 1.0),
    ("small", "hard", 0.1, 0.4, 1.0),
    ("large", "", 0.4, 0.9, 5.0),
)


def pipeline(folder: Path, *, rows: Sequence[tuple[str, str, float, float, float]] = ROWS) -> Path:
    """One stage: small is as good as large at easy requests, and bad at hard ones."""
    lines = [
        f"s,{variant},cpu,1,0,1,1,{1 / s},{s},{s},{1 / s},{a},{e},0.5,{e + s / 2},,1,fake,imported,"
        f"{name}\n"
        for variant, name, s, a, e in rows
    ]
    (folder / "profile.csv").write_text(HEADER + "".join(lines))
    trace = "".join(f"{4 + second % 2},1\n" for second in range(60))
    (folder / "trace.csv").write_text("requests:easy,requests:hard\n" + trace)
    path = folder / "pipeline.yaml"
    path.write_text(
        "pipeline_name: p\nnodes: [{node_name: s}]\nalpha: 0\nbeta: 0\nenergy_weight: 1\n"
        "accuracy_method: average\nprofile: profile.csv\nallocation_mode: variable\n"
        "latency_sla_s: 5\npredictor_type: max\n"
        "request_classes: {easy: 0.8182, hard: {share: 0.1818, latency_sla_s: 0.5}}\n"
        "mix: true\noptimization_method: highs\naccuracy_floor: 0.9\nmonitoring_duration: 1\n"
        "workload_type: csv\nworkload_config: {path: trace.csv}\n"
    )
    return path


def run_of(folder: Path, name: str, **overrides: object) -> Run:
    return run_experiment(load_experiment(pipeline(folder), overrides), folder / name)


@pytest.mark.slow
def test_a_run_tells_its_classes_apart_in_log_comparison_and_page(tmp_path: Path) -> None:
    mixed = run_of(tmp_path, "mixed")
    alone = run_of(tmp_path, "alone", mix=False)
    figures = [metrics(mixed), metrics(alone)]
    by_name = {each.name: each for each in figures[0].classes}
    assert {name: each.requests for name, each in by_name.items()} == {"easy": 270, "hard": 60}
    assert sum(each.energy_j for each in by_name.values()) == pytest.approx(figures[0].energy_j)
    # After the first decision easy ones are served small; large alone would serve both.
    late = mixed.requests.sending_s > 30
    took_s = (mixed.requests.done_s - mixed.requests.sending_s)[late & (mixed.requests.kind == 0)]
    assert np.median(took_s) == pytest.approx(0.1, abs=0.01)
    assert by_name["hard"].latency_sla_s == 0.5
    assert by_name["easy"].latency_sla_s == 5
    assert by_name["easy"].joules_per_request < figures[1].classes[0].joules_per_request
    hard = mixed.requests.kind == 1
    limit_s = np.where(hard, 0.5, 5.0)
    in_time = (mixed.requests.done_s - mixed.requests.sending_s <= limit_s).mean()
    assert figures[0].sla_attainment == pytest.approx(in_time)
    text = comparison_table(compare(figures))
    assert "By class of requests" in text
    assert "mixed: hard" in text
    entry = json.loads((tmp_path / "mixed" / "0.json").read_text())["responses"][0][0]
    assert entry["request_class"] in ("easy", "hard")
    assert "requests:hard" in (tmp_path / "mixed" / "workload.csv").read_text()
    from ipa_energy.report import write_html

    page = write_html(compare(figures), [mixed, alone], tmp_path / "page.html").read_text()
    assert "By class of requests" in page


def test_a_log_of_counts_has_the_same_classes(tmp_path: Path) -> None:
    times = metrics(run_of(tmp_path, "times"))
    counts = metrics(run_of(tmp_path, "counts", log_detail="counts"))
    for one, other in zip(times.classes, counts.classes, strict=True):
        assert (one.requests, one.served, one.energy_j) == (
            other.requests, other.served, pytest.approx(other.energy_j))  # fmt: skip
        assert one.sla_attainment == pytest.approx(other.sla_attainment)
        assert one.latency_p50_s == pytest.approx(other.latency_p50_s, rel=0.02)


def test_a_killed_run_with_classes_goes_on_to_the_same_figures(tmp_path: Path) -> None:
    whole = run_of(tmp_path, "whole")

    class KilledError(Exception):
        pass

    class Kills:
        def interval(self, interval: object) -> None:
            if interval.timestep_s == 30:  # type: ignore[attr-defined]
                raise KilledError

        def tick(self, *_: object) -> None: ...
        def clear(self) -> None: ...

    experiment = load_experiment(tmp_path / "pipeline.yaml")
    with pytest.raises(KilledError):
        run_experiment(experiment, tmp_path / "killed", view=Kills())
    part = metrics(read_run(tmp_path / "killed"))
    assert 0 < part.classes[0].requests < 270
    again = run_experiment(experiment, tmp_path / "killed", resume=True)
    assert metrics(again).classes == metrics(whole).classes
    rerun = run_experiment(load_experiment(tmp_path / "whole" / "0.yaml"))
    assert metrics(rerun).classes == metrics(whole).classes


@pytest.mark.slow
def test_live_requests_are_sent_dealt_out_and_logged_by_their_class(tmp_path: Path) -> None:
    pytest.importorskip("grpc")
    path = pipeline(tmp_path)
    (tmp_path / "trace.csv").write_text("requests:easy,requests:hard\n" + "8,2\n" * 14)
    changes = {"adaptation_interval": 2, "drop_limit": None, "scaling_cap": 6}
    run = run_experiment(
        load_experiment(path, changes),
        tmp_path / "live",
        backend="local-stub",
        live=LiveOptions(overcommits=True),
    )
    kinds = run.requests.kind[np.argsort(run.requests.request_id)]
    assert kinds.reshape(14, 10).sum(axis=1).tolist() == [2] * 14
    found = metrics(run)
    easy, hard = found.classes
    assert (easy.requests, hard.requests) == (112, 28)
    assert easy.energy_j + hard.energy_j == pytest.approx(found.energy_j, rel=1e-6)
    work = added(part for step in run.steps for part in step.work)
    assert {part.request_class: part.requests for part in work} == {"easy": 112, "hard": 28}
    # Once two options serve at once, no hard request comes to the one that is bad at them.
    ready_s = [each.ready_s for step in run.steps if step.live for each in step.live.changes]
    mixed = [step for step in run.steps if ready_s and step.start_s >= ready_s[0]]
    late = added(part for step in mixed for part in step.work)
    scores = {part.request_class: part.accuracy_sum / part.requests for part in late}
    assert scores["hard"] == pytest.approx(0.9)
    sla_s = np.where(run.requests.kind == 1, 0.5, 5.0)
    in_time = run.requests.done_s - run.requests.sending_s <= sla_s + 5e-4
    assert hard.sla_attainment == pytest.approx(in_time[run.requests.kind == 1].mean())
    assert "live: hard" in comparison_table(compare([found]))


def test_joules_of_replicas_are_shared_out_as_the_profile_has_the_classes() -> None:
    one = option_of("v", 1, (0.1, 1.0, 0.9), (0.4, 5.0, 0.5))
    name = option_name(one)
    spent = [Spent("s", name, "a", 3.0, 20.0, 1.0), Spent("s", name, "b", 2.0, 10.0, 1.0)]
    served = [[(name, "easy", 10), (name, "hard", 4), (name, "of another client", 3)]]
    served[0][:1] = [(name, "easy", 6), (name, "easy", 4)]  # in two reports
    easy, hard = served_work([Stage("s", "node", (one,))], served, spent, ("easy", "hard"))
    assert (easy.dynamic_j, hard.dynamic_j) == (pytest.approx(10.0), pytest.approx(20.0))
    assert (easy.idle_j, hard.idle_j) == (pytest.approx(5 / 2.6), pytest.approx(5 * 1.6 / 2.6))
    assert hard.accuracy_sum == pytest.approx(4 * 0.5)


def test_what_no_plan_counts_with_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pipeline(tmp_path)
    alike = dataclasses.replace(BACKENDS["local-stub"], by_class=False)
    monkeypatch.setitem(BACKENDS, "local-stub", alike)
    with pytest.raises(ConfigError, match=r"fix: set request_classes: \{easy: 0.8182, hard"):
        load_experiment(path, {"request_classes": {"easy": 1.0}})
    with pytest.raises(ConfigError, match="does not send requests of a class"):
        run_experiment(load_experiment(path, {"mix": False}), backend="local-stub")
    some = pipeline(tmp_path, rows=[ROWS[0], ROWS[2]])
    begins = {"initial_active_model": ["small"]}
    with pytest.raises(ConfigError, match="begins with small 1c b1 x1, which is not profiled for"):
        run_experiment(load_experiment(some, begins))
    assert run_experiment(load_experiment(some)).status == "complete"  # it begins with large


def test_a_share_that_is_off_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_experiment(pipeline(tmp_path), {"request_classes": {"easy": 0.5, "hard": 0.5}})
    assert "plans count with easy: 0.5, hard: 0.5" in caplog.text
