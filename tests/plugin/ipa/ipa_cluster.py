"""IPA's parts that talk to a cluster, on a cluster that is not there.

Pods, Prometheus and load tests answer from scripts; every line of IPA and of ours runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from ipa_driver import configured

from ipa_energy.plugin.hooks import profiler
from ipa_energy.testing import FakeMeter


def adapt(config: Mapping[str, Any], loads: list[list[int]]) -> dict[str, Any]:
    """IPA's cluster adapter through ``loads``, one list of requests per second a decision."""
    adapter_module: Any = importlib.import_module("optimizer.adapter")
    left = list(loads)
    checks_left: list[bool] = []
    applied: list[Any] = []
    current = {
        node["node_name"]: {"cpu": 1, "replicas": 1, "batch": "1", "variant": variant}
        for node, variant in zip(config["nodes"], config["initial_active_model"], strict=True)
    }

    def monitor(self: Any, monitoring_duration: int = 1) -> list[int]:
        if monitoring_duration >= 1000:
            return loads[-1]
        checks_left[:] = [True]  # before a plan is applied IPA looks once more
        return left.pop(0)

    def is_up(node_name: str) -> bool:
        return bool(left) or (bool(checks_left) and checks_left.pop())

    def apply(self: Any, chosen: dict[str, Any]) -> list[bool]:
        applied.append(chosen)
        for name, node in chosen.items():
            # As a cluster gives it back: the batch is an environment variable.
            current[name] = {**node, "batch": str(node["batch"])}
        return [True for _ in chosen]

    adapter_module.time = MagicMock()
    adapter_module.tqdm = MagicMock(tqdm=lambda seconds: seconds)
    adapter_module.check_node_loaded = lambda node_name: True
    adapter_module.is_terminating = lambda node_name: False
    adapter_module.check_node_up = is_up
    adapter_module.get_pod_name = lambda node_name: ["router-0"]
    adapter_module.get_cpu_model_name = lambda: "a processor"
    adapter_module.Monitoring.rps_monitor = monitor
    adapter_module.Adapter.extract_current_config = lambda self: {
        name: dict(node) for name, node in current.items()
    }
    adapter_module.Adapter.change_pipeline_config = apply
    pipeline = configured(config)
    adapter = adapter_module.Adapter(
        pipeline_name=config["pipeline_name"],
        pipeline=pipeline,
        node_names=[node["node_name"] for node in config["nodes"]],
        from_storage=[False, False],
        predictor_margin=0,
        **{
            key: config[key]
            for key in (
                "adaptation_interval",
                "optimization_method",
                "allocation_mode",
                "only_measured_profiles",
                "scaling_cap",
                "batching_cap",
                "alpha",
                "beta",
                "gamma",
                "num_state_limit",
                "monitoring_duration",
                "predictor_type",
                "baseline_mode",
            )
        },
    )
    adapter.start_adaptation()
    return {"log": adapter.monitoring.adaptation_report, "applied": applied}


def profile_node(config: Mapping[str, Any], meter: bool = True) -> str:
    """IPA's profiler over one variant, with a scripted meter of the machine; the series folder.

    The machine draws 40 W empty, 42 W with the pods waiting, 62 W under load.
    """
    path = Path.cwd() / "experiments" / "profiling" / "single-node" / "model_iter.py"
    clock = Clock()
    operations = importlib.import_module("experiments.utils.pipeline_operations")

    def load_test(
        pipeline_name: str, data_type: str, model: str, workload: list[int], **_: Any
    ) -> tuple[float, float, list[list[dict[str, Any]]]]:
        start_s = clock.now_s
        clock.watts, before = 62.0, clock.watts
        clock.sleep(float(len(workload)))
        clock.watts = before
        seconds = [
            [_request(start_s + second + index / count, model) for index in range(count)]
            for second, count in enumerate(workload)
        ]
        return start_s, clock.now_s, seconds

    def setup_node(cpu_request: str, replica: int, **_: Any) -> None:
        clock.watts = 42.0

    def remove_pipeline(pipeline_name: str) -> None:
        clock.watts = 40.0

    for name, stand_in in (
        ("load_test", load_test),
        ("setup_node", setup_node),
        ("remove_pipeline", remove_pipeline),
        ("check_load_test", lambda **_: None),
        ("load_data", lambda **_: []),
        ("get_pod_name", lambda node_name: [f"{node_name}-0"]),
    ):
        setattr(operations, name, stand_in)
    prometheus = importlib.import_module("experiments.utils.prometheus")
    for name in dir(prometheus.PromClient):
        if name.startswith("get_"):
            value = ([20.0], [1.0]) if name == "get_request_per_second" else ([], [])
            setattr(prometheus.PromClient, name, lambda self, value=value, **_: value)
    if meter:
        profiler._open = lambda *_: profiler.Profiling(  # type: ignore[assignment]
            FakeMeter(clock.joules, clock=clock),
            None,
            cores=4,
            idle_s=10.0,
            sleep=clock.sleep,
        )
    spec = importlib.util.spec_from_file_location("model_iter", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.time = MagicMock()
    folder = Path(module.NODE_PROFILING_RESULTS_PATH) / "series" / str(config["series"])
    folder.mkdir(parents=True)
    module.experiments(
        pipeline_name=config["pipeline_name"],
        node_name=config["node_name"],
        config=config,
        node_path="",
        data_type="image",
    )
    return str(folder)


def _request(sent_s: float, node: str) -> dict[str, Any]:
    times = {"arrival": sent_s, "serving": sent_s + 0.05}
    request = {"sending": sent_s, "arrival": sent_s + 0.06}
    return {"times": {"request": request, "models": {node: times}}, "outputs": []}


class Clock:
    """Seconds that pass when slept, and the joules of the watts meanwhile."""

    def __init__(self) -> None:
        self.now_s, self.watts, self.total_j = 0.0, 40.0, 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds
        self.total_j += seconds * self.watts

    def joules(self, _elapsed_s: float) -> float:
        """Joules so far."""
        return self.total_j
