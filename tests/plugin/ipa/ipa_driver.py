"""Runs one task inside IPA, in a process of its own: ``ipa_driver.py HOME TASK ARGUMENTS ANSWER``.

IPA's modules have names that any project may have (``optimizer``, ``experiments``), keep state, and
differ between a patched and an unpatched checkout, so no two checkouts share a process.
``ARGUMENTS`` and ``ANSWER`` are JSON files.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import json
import logging
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import ipa_stubs
import numpy as np
import yaml


def simulate(name: str) -> None:
    """IPA's simulation runner on a config in its ``data/configs/final``."""
    runner = importlib.import_module("experiments.runner.simulation_runner")
    runner.main.callback(config_name=name, type_of="adaptation")


class PipelineSeenError(Exception):
    """Carries the pipeline that a runner was about to work with."""


RUNNERS = {
    "runner/simulation_runner.py": ("SimAdapter", {"type_of": "adaptation"}),
    "runner/simulation_runner_testing_groubi.py": ("SimAdapter", {"type_of": "adaptation"}),
    "runner/adaptation_runner.py": ("Adapter", {"type_of": "adaptation"}),
    "pipeline-simulation/static_search_space.py": ("Optimizer", {}),
}
"""Each of IPA's runners: what it gives its pipeline to, and its further options."""


def runners(name: str) -> dict[str, float | None]:
    """Runner → the energy weight on the pipeline it works with; None if there is none."""
    found = {}
    for path, (taker, options) in RUNNERS.items():
        place = Path.cwd() / "experiments" / path
        spec = importlib.util.spec_from_file_location(place.stem, place)
        assert spec is not None
        assert spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)

        def take(pipeline: Any, **_: Any) -> None:
            raise PipelineSeenError(pipeline)

        setattr(module, taker, take)
        try:
            module.main.callback(config_name=name, **options)
        except PipelineSeenError as seen:
            energy = getattr(seen.args[0], "ipa_energy", None)
            found[path] = None if energy is None else energy.settings.energy_weight
    return found


def pipeline_of(config: Mapping[str, Any]) -> Any:
    """A pipeline as IPA's runners make it."""
    operations = importlib.import_module("experiments.utils.simulation_operations")
    constants = importlib.import_module("experiments.utils.constants")
    accuracies = yaml.safe_load(Path(constants.ACCURACIES_PATH).read_text())
    keep = config.get("variants")
    stages = accuracies[config["pipeline_name"]]
    if keep is not None:
        stages = {
            stage: {name: value for name, value in variants.items() if name in keep}
            for stage, variants in stages.items()
        }
    pipeline = operations.generate_simulated_pipeline(
        number_tasks=config["number_tasks"],
        profiling_series=config["profiling_series"],
        model_names=config["model_name"],
        task_names=config["task_name"],
        initial_active_model=config["initial_active_model"],
        allocation_mode=config["allocation_mode"],
        initial_cpu_allocation=config["initial_cpu_allocation"],
        initial_replica=config["initial_replica"],
        initial_batch=config["initial_batch"],
        threshold=config["threshold"],
        sla_factor=config["sla_factor"],
        accuracy_method=config["accuracy_method"],
        normalize_accuracy=config["normalize_accuracy"],
        pipeline_accuracies=stages,
        only_measured_profiles=config["only_measured_profiles"],
        profiling_load=config["profiling_load"],
        reference_latency=config["reference_latency"],
        reference_throughput=config["reference_throughput"],
        latency_margin=config["latency_margin"],
        throughput_margin=config["throughput_margin"],
    )
    for task in pipeline.inference_graph:
        for model in task.available_model_profiles:
            model.name = config.get("rename", {}).get(model.name, model.name)
    return pipeline


def optimizer_of(pipeline: Any, config: Mapping[str, Any], **more: Any) -> Any:
    """IPA's optimizer on a pipeline."""
    optimizer = importlib.import_module("optimizer.optimizer")
    return optimizer.Optimizer(pipeline=pipeline, **(optimizer_settings(config) | more))


def optimizer_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What IPA's optimizer is made with."""
    return {
        "allocation_mode": config["allocation_mode"],
        "complete_profile": False,
        "only_measured_profiles": config["only_measured_profiles"],
        "random_sample": False,
        "baseline_mode": config["baseline_mode"],
    }


def optimize(optimizer: Any, config: Mapping[str, Any], method: str, load: int) -> Any:
    """One decision; answers IPA's table of states."""
    return optimizer.optimize(
        optimization_method=method,
        scaling_cap=config["scaling_cap"],
        batching_cap=config["batching_cap"],
        alpha=config["alpha"],
        beta=config["beta"],
        gamma=config["gamma"],
        arrival_rate=load,
        num_state_limit=config["num_state_limit"],
    )


def configured(config: Mapping[str, Any], fresh: Any = None) -> Any:
    """A pipeline with a config's energy keys on it, as the patched runners make it."""
    hooks = importlib.import_module("ipa_energy.plugin.hooks")
    pipeline = copy.deepcopy(fresh) if fresh is not None else pipeline_of(config)
    hooks.configure(pipeline, config)
    return pipeline


def decide(config: Mapping[str, Any], cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each case, a partial config with a load and methods, the states each method answers."""
    made: dict[str, Any] = {}
    answers = []
    for case in cases:
        whole = {**config, **case}
        key = json.dumps([whole[name] for name in ("accuracy_method", "normalize_accuracy")])
        if key not in made:
            made[key] = pipeline_of(whole)
        answer = {}
        for method in case["methods"]:
            pipeline = configured(whole, made[key])
            states = optimize(optimizer_of(pipeline, whole), whole, method, case["load"])
            answer[method] = states.to_dict(orient="records")
        answers.append(answer | {"sla": made[key].sla})
    return answers


def times(
    config: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, Any]],
    loads: list[int],
    repeats: int,
    unpatched: str,
) -> dict[str, list[list[float]]]:
    """Seconds of each decision: name of the partial config → load → repeat.

    The configs take turns, so that a disturbance of the machine meets all of them. One named
    ``unpatched`` is decided by the optimizer of that other checkout, on the same models.
    """
    optimizers = {}
    for name, more in settings.items():
        whole = {**config, **more}
        if name == "unpatched":
            pipeline = pipeline_of(whole)
            for task in pipeline.inference_graph:
                for model in task.available_model_profiles:
                    del model.joules
            optimizer = other_optimizer(Path(unpatched)).Optimizer(
                pipeline=pipeline, **optimizer_settings(whole)
            )
        else:
            optimizer = optimizer_of(configured(whole), whole)
        optimizers[name] = (optimizer, whole)
    found: dict[str, list[list[float]]] = {name: [[] for _ in loads] for name in settings}
    names = list(optimizers)
    for repeat in range(repeats):
        for at, load in enumerate(loads):
            for name in names[:: 1 if repeat % 2 else -1]:
                optimizer, whole = optimizers[name]
                start = time.perf_counter()
                optimize(optimizer, whole, whole["optimization_method"], load)
                found[name][at].append(time.perf_counter() - start)
    return found


def other_optimizer(home: Path) -> Any:
    """The module ``optimizer.optimizer`` of another checkout, beside that of this one."""
    package = ModuleType("other_optimizer")
    package.__path__ = [str(home / "optimizer")]
    sys.modules["other_optimizer"] = package
    return importlib.import_module("other_optimizer.optimizer")


def profile(config: Mapping[str, Any]) -> dict[str, Any]:
    """What ``load_profile`` answers for the first stage, and what its models carry."""
    operations = importlib.import_module("experiments.utils.simulation_operations")
    table = operations.load_profile(
        series=config["profiling_series"][0],
        model_name=config["model_name"][0],
        load=config["profiling_load"],
        reference_latency=config["reference_latency"],
        reference_throughput=config["reference_throughput"],
    )
    pipeline = configured(config)
    models = copy.deepcopy(pipeline.inference_graph[0].available_model_profiles)
    carried = [
        {
            "variant": model.name,
            "cpu": float(model.resource_allocation.cpu),
            "batch": batch,
            "dynamic": energy.dynamic_energy_j,
            "idle": energy.idle_power_w,
            "quality": energy.provenance.quality,
            "meter": energy.provenance.meter,
        }
        for model in models
        if hasattr(model, "joules")
        for batch, energy in model.joules.entries.items()
    ]
    return {"columns": list(table.columns), "rows": table.to_dict("records"), "carried": carried}


def parse(series: str) -> dict[str, Any]:
    """What IPA's parser makes of an adaptation log."""
    parser = importlib.import_module("experiments.utils.parser")
    found = parser.AdaptationParser(
        series_path=series, model_name=None, type_of="router_queue_pipeline"
    )
    answer = {}
    for name in ("series_changes", "points_with_change"):
        try:
            answer[name] = getattr(found, name)(found.load_adaptation_log())
        except TypeError as error:
            answer[name] = {"error": str(error)}
    return answer


def brute_force(config: Mapping[str, Any], load: int, plain: bool = False) -> dict[str, Any]:
    """The brute force's answer beside Gurobi's, or the error it ends in."""
    pipeline = pipeline_of(config) if plain else configured(config)
    try:
        states = optimize(optimizer_of(pipeline, config), config, "brute-force", load)
    except TypeError as error:
        return {"error": str(error)}
    pipeline = configured(config)
    other = optimize(optimizer_of(pipeline, config), config, "ipa-energy", load)
    return {"states": states.to_dict("records"), "exact": other.to_dict("records")}


def all_states(config: Mapping[str, Any], load: int) -> list[dict[str, Any]]:
    """Every state that keeps the constraints."""
    pipeline = configured(config)
    return list(
        optimizer_of(pipeline, config)
        .all_states(
            check_constraints=True,
            scaling_cap=config["scaling_cap"],
            alpha=config["alpha"],
            beta=config["beta"],
            gamma=config["gamma"],
            arrival_rate=load,
        )
        .to_dict("records")
    )


def plain(value: Any) -> Any:
    """For JSON: NumPy's numbers as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(type(value))


def without_nan(value: Any) -> Any:
    """NaN as null, in depth."""
    if isinstance(value, dict):
        return {str(key): without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def main() -> None:
    """Run the task that the command line names."""
    home, task, arguments, answer = sys.argv[1:]
    ipa_stubs.install(Path(home))
    logging.getLogger().setLevel(logging.WARNING)
    logging.basicConfig = lambda **_: None  # type: ignore[assignment]  # IPA logs every step
    logging.getLogger().addHandler(logging.StreamHandler())
    tasks = {**globals(), **_further_tasks()}
    found = tasks[task](**json.loads(Path(arguments).read_text()))
    Path(answer).write_text(json.dumps(without_nan(found), default=plain))


def _further_tasks() -> dict[str, Any]:
    import ipa_cluster

    return {"adapt": ipa_cluster.adapt, "profile_node": ipa_cluster.profile_node}


if __name__ == "__main__":
    main()
