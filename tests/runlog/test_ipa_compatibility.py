"""IPA reads our folders, and we read IPA's."""

from __future__ import annotations

import importlib.util
import json
import math
import os
from pathlib import Path
from types import ModuleType

import pytest

from ipa_energy.as_json import as_json
from ipa_energy.comparing import metrics
from ipa_energy.runlog import read_run
from ipa_energy.testing import NODES, fake_config, write_fake_run

IPA_NODE_KEYS = {"cpu", "replicas", "batch", "variant", "latency", "accuracy", "throughput"}

# IPA's parser leaves its files open.
ignores_open_files = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_run(tmp_path_factory.mktemp("runs") / "run", seconds=60, energy_weight=1.0)


def test_config_of_a_node_has_ipas_keys_and_no_other(folder: Path) -> None:
    log = json.loads((folder / "adaptation_log.json").read_text())
    assert list(log["timesteps"]) == ["0", "10", "20", "30", "40", "50"]
    for step in log["timesteps"].values():
        assert list(step["config"]) == list(NODES)
        for node in NODES:
            assert set(step["config"][node]) == IPA_NODE_KEYS
            energy = step["energy"][node]
            assert energy["energy_quality"] == "estimated"
            assert energy["joules_per_request"] > 0
            assert energy["power_w"] > 0
    decided = log["timesteps"]["20"]
    assert decided["energy_objective"] > 0
    penalties = ("resource_objective", "batch_objective", "energy_objective")
    assert decided["objective"] == pytest.approx(
        decided["accuracy_objective"] - sum(decided[key] for key in penalties)
    )
    assert decided["energy_joules"] == pytest.approx(
        decided["idle_joules"] + decided["dynamic_joules"]
    )


def write_ipa_folder(path: Path, *, with_joules: bool = False) -> Path:
    """A folder as IPA writes it: a null configuration, no energy, one lost request."""
    path.mkdir()
    node: dict[str, object] = {
        "cpu": 1,
        "replicas": 2,
        "batch": 4,
        "variant": "v",
        "latency": 0.1,
        "accuracy": 0.5,
        "throughput": 20.0,
    }
    if with_joules:
        node |= {"joules_per_request": 2.5, "power_w": 5.0, "energy_quality": "measured"}
    shared = {"monitored_load": [1, 2], "predicted_load": 3}
    scored = {
        "config": dict.fromkeys(NODES, node),
        "accuracy_objective": 1.0,
        "resource_objective": 0.2,
        "batch_objective": 0.0,
        "objective": 0.8,
        "time_interval": 10,
    }
    infeasible = {"config": None, "objective": None, "time_interval": 20}
    steps = {"1": {**scored, **shared}, "2": {**infeasible, **shared}}
    log = {"metadata": {"sla": 1.0, "recieved_load": [1]}, "timesteps": steps}
    pair = {"arrival": 100.0, "serving": 100.3}
    models = {"router": pair} | dict.fromkeys(NODES, pair)
    good = {"times": {"request": {"sending": 100.0, "arrival": 100.5}, "models": models}}
    responses = {
        "responses": [[good, good], [{"failed": "timeout"}]],
        "start_time_experiment": 100.0,
        "end_time_experiment": 130.0,
    }
    (path / "adaptation_log.json").write_text(json.dumps(log))
    (path / "0.json").write_text(json.dumps(responses))
    (path / "0.yaml").write_text(fake_config())
    return path


def test_ipas_own_folder_is_read_without_energy(tmp_path: Path) -> None:
    run = read_run(write_ipa_folder(tmp_path / "series"))
    assert run.status == "ipa"
    assert [len(step.stages) for step in run.steps] == [2, 0]
    assert [step.start_s for step in run.steps] == [10, 20]  # seconds, though keys count steps
    figures = metrics(run)
    assert (figures.requests, figures.served, figures.dropped) == (3, 2, 1)
    assert figures.latency_p50_s == pytest.approx(0.5)
    assert figures.sla_attainment == pytest.approx(2 / 3)
    assert figures.infeasible_steps == 1
    assert math.isnan(figures.energy_j)
    assert figures.quality is None
    assert figures.accuracy_objective_mean == 1.0
    assert as_json(figures)["joules_per_request"] is None


def test_joules_of_a_patched_ipa_are_read(tmp_path: Path) -> None:
    step = read_run(write_ipa_folder(tmp_path / "series", with_joules=True)).steps[0]
    assert step.stages[0].joules_per_request == 2.5
    assert step.stages[0].quality == "measured"


@pytest.fixture(scope="module")
def ipa_parser() -> ModuleType:
    home = os.environ.get("IPA_HOME")
    if not home:
        pytest.skip("needs a checkout of IPA in IPA_HOME")
    path = Path(home) / "experiments" / "utils" / "parser.py"
    spec = importlib.util.spec_from_file_location("ipa_parser", path)
    if spec is None or spec.loader is None:
        pytest.skip(f"no parser at {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.ipa
@ignores_open_files
@pytest.mark.parametrize("type_of", ["router_queue_pipeline", "router_pipeline", "pipeline"])
def test_ipas_parser_reads_every_step_and_request(
    folder: Path, ipa_parser: ModuleType, type_of: str
) -> None:
    parser = ipa_parser.AdaptationParser(series_path=folder, model_name=None, type_of=type_of)
    changes = parser.series_changes(parser.load_adaptation_log())
    assert len(changes["predicted_load"]) == 6
    for node in NODES:
        assert {len(values) for values in changes["nodes"][node].values()} == {6}
    figures = metrics(read_run(folder))
    table = parser.result_processing()
    assert int(table["timeout_count"].iloc[0]) == figures.dropped > 0
    assert int(table["duration"].iloc[0]) == 60
    lost, per_second = parser.per_second_result_processing()
    assert len(per_second) == len(lost) == 60
    assert sum(lost) == figures.dropped
    if type_of != "pipeline":
        assert table["e2e_avg"].iloc[0] == pytest.approx(figures.latency_mean_s, abs=1e-5)
        assert table["e2e_p99"].iloc[0] == pytest.approx(figures.latency_p99_s, abs=1e-5)


@pytest.mark.ipa
@ignores_open_files
def test_ipas_node_parser_reads_a_node_and_the_watts(folder: Path, ipa_parser: ModuleType) -> None:
    parser = ipa_parser.AdaptationParser(series_path=folder, model_name=NODES[1], type_of="node")
    table = parser.result_processing()
    assert int(table["timeout_count"].iloc[0]) == metrics(read_run(folder)).dropped
    assert table["power_w_avg"].iloc[0] > 0
