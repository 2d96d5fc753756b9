"""A profile as IPA's profiling folders: figures that come back, and that IPA itself reads."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipa_energy.errors import ConfigError
from ipa_energy.profile_table.ipa_export import SeriesTarget, export_profile, responses_for
from ipa_energy.profile_table.ipa_import import ImportChoice, import_profile
from ipa_energy.profile_table.ipa_results import model_latencies
from ipa_energy.profile_table.ipa_tables import MAPPER_FILE
from ipa_energy.profile_table.profile_csv import meta_path, read_profile
from ipa_energy.profile_table.profile_row import ProfileRow


@given(avg_s=st.floats(1e-4, 100), ratio=st.floats(1, 97), pace_rps=st.floats(1, 1000))
def test_synthesised_requests_have_the_mean_and_the_p99(
    avg_s: float, ratio: float, pace_rps: float
) -> None:
    seconds = responses_for(avg_s, avg_s * ratio, pace_rps, "yolo")
    latencies_s, lost = model_latencies(seconds, "yolo", "here")
    assert lost == 0
    assert np.average(latencies_s) == pytest.approx(avg_s, rel=1e-7)
    assert np.percentile(latencies_s, 99) == pytest.approx(avg_s * ratio, rel=1e-7)


def test_latencies_that_nothing_can_have_are_refused() -> None:
    with pytest.raises(ConfigError, match="98 times the mean"):
        responses_for(0.01, 1.0, 1.0, "yolo")


def rows_of_two_stages() -> list[ProfileRow]:
    """Random figures; some rows without energy, some of several replicas."""
    rng = random.Random(7)
    rows = []
    for stage, variants in (("crop", ("n", "s")), ("name", ("r18",))):
        for index, variant in enumerate(variants):
            for cores, batch, replicas in ((1.0, 1, 1), (0.5, 4, 1), (2.0, 4, 3), (2.0, 4, 1)):
                avg_s, joules = rng.uniform(0.01, 2), rng.random() < 0.7
                energy = (rng.random(), rng.random()) if joules else (math.nan, math.nan)
                load_rps = rng.uniform(0.3, 40)
                rows.append(
                    ProfileRow(
                        stage=stage,
                        variant=variant,
                        hardware="xeon",
                        cpu_cores=cores,
                        gpu_share=0.0,
                        batch=batch,
                        replicas=replicas,
                        load_rps=load_rps,
                        latency_avg_s=avg_s,
                        latency_p99_s=avg_s * rng.uniform(1, 3),
                        throughput_rps=rng.uniform(0.3, 40),
                        accuracy=0.457 + 0.111 * index,
                        dynamic_energy_j=energy[0],
                        idle_power_w=energy[1],
                        joules_per_request=energy[0] + replicas * energy[1] / load_rps,
                        energy_ci95_j=energy[0] / 10 if rng.random() < 0.5 else math.nan,
                        trials=0 if batch == 1 and joules else rng.randint(1, 5),
                        meter=("fit(rapl)" if batch == 1 else "rapl") if joules else "",
                        quality=("estimated" if batch == 1 else "measured") if joules else None,
                    )
                )
    return rows


TARGETS = (
    SeriesTarget(stage="crop", node="yolo", series=71),
    SeriesTarget(stage="name", node="resnet-human", series=72),
)


def test_round_trip_keeps_the_figures(tmp_path: Path) -> None:
    rows = rows_of_two_stages()
    written = export_profile(rows, tmp_path / "nodes", TARGETS, pipeline="video", load=20)
    assert written == {"crop": 8, "name": 4}
    folders = [tmp_path / "nodes" / "series" / number for number in ("71", "72")]
    choice = ImportChoice(accuracies=tmp_path / "nodes" / "accuracies.yaml")
    found = import_profile(folders, ["crop", "name"], choice, tmp_path / "back.csv")
    assert [(series.skipped, series.remarks) for series in found] == [({}, {})] * 2
    back = read_profile(tmp_path / "back.csv")
    assert len(back) == len(rows)
    for before, after in zip(rows, back, strict=True):
        for name in (field.name for field in dataclasses.fields(ProfileRow)):
            value = getattr(before, name)
            if name.startswith("latency"):
                value = pytest.approx(value, rel=1e-9)
            elif isinstance(value, float):
                value = pytest.approx(value, rel=1e-12, nan_ok=True)
            assert getattr(after, name) == value, name
    meta = json.loads(meta_path(tmp_path / "back.csv").read_text())
    assert [series["series"] for series in meta["series"]] == ["71", "72"]
    assert str(tmp_path) not in json.dumps(meta)


def test_energy_is_in_the_documented_lists(tmp_path: Path) -> None:
    rows = [row for row in rows_of_two_stages() if row.stage == "crop"]
    export_profile(rows, tmp_path, TARGETS[:1], pipeline="video", load=20)
    for number, row in enumerate(rows, 1):
        document = json.loads((tmp_path / f"series/71/{number}.json").read_text())
        if row.has_energy:
            assert document["joules_per_request"] == [row.joules_per_request]
            assert document["dynamic_joules_per_request"] == [row.dynamic_energy_j]
            assert document["idle_power_w"] == [row.idle_power_w]
        else:
            assert not {"joules_per_request", "idle_power_w"} & set(document)


def test_rows_on_a_gpu_stay_out_and_two_machines_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [row for row in rows_of_two_stages() if row.stage == "crop"]
    on_gpu = dataclasses.replace(rows[0], gpu_share=1.0, hardware="h200")
    with caplog.at_level(logging.WARNING):
        written = export_profile([*rows, on_gpu], tmp_path, TARGETS[:1], pipeline="v", load=20)
    assert written == {"crop": 8}
    assert "1 rows on a GPU" in caplog.text
    elsewhere = dataclasses.replace(rows[0], hardware="epyc")
    both = [*rows, elsewhere]
    with pytest.raises(ConfigError, match="profiled on epyc, xeon"):
        export_profile(both, tmp_path / "b", TARGETS[:1], pipeline="v", load=20)
    assert not (tmp_path / "b").exists()
    options: dict[str, Any] = {"pipeline": "v", "load": 20, "hardware": "epyc"}
    assert export_profile(both, tmp_path / "b", TARGETS[:1], **options) == {"crop": 1}
    with pytest.raises(ConfigError, match="exists already"):
        export_profile(both, tmp_path / "b", TARGETS[:1], **options)


# ------------------------------------------------------------------ IPA itself

READ_BY_IPA = """
import json, sys, types
stub = types.ModuleType("optimizer")
for name in ("Model", "ResourceAllocation", "Profile", "Task", "Pipeline"):
    setattr(stub, name, object)
sys.modules["optimizer"] = stub  # it would import tensorflow, kubernetes and scikit-learn
from experiments.utils import simulation_operations as ipa
from experiments.utils.parser import Parser
ipa.NODE_PROFILING_RESULTS_PATH = sys.argv[1]
answers = {}
for series, node in ((71, "yolo"), (72, "resnet-human")):
    for latency in ("avg", "p99"):
        for throughput in ("max", "p99", "avg"):
            table = ipa.load_profile(series, node, latency, throughput, load=20)
            answers[f"{series} {latency} {throughput}"] = table.to_dict(orient="records")
    folder = f"{sys.argv[1]}/series/{series}"
    parser = Parser(folder, node, config_key_mapper="key_config_mapper.csv")
    answers[f"{series} columns"] = parser.result_processing().to_json(orient="records")
print(json.dumps(answers, default=int))
"""


def home() -> str:
    found = os.environ.get("IPA_HOME")
    if not found:
        pytest.skip("needs a checkout of IPA in IPA_HOME")
    return found


@pytest.mark.ipa
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize(
    ("value", "fails"),
    [
        ([1.5, None], False),
        ([], False),
        (None, False),
        (1.5, True),
        ("rapl", True),
        (["rapl"], True),
        ({"meter": "rapl"}, True),
    ],
)
def test_ipas_parser_takes_lists_of_numbers_and_nothing_else(
    tmp_path: Path, value: Any, fails: bool
) -> None:
    """Why meter and quality are in a file of their own."""
    path = Path(home()) / "experiments" / "utils" / "parser.py"
    spec = importlib.util.spec_from_file_location("ipa_parser", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    export_profile(rows_of_two_stages(), tmp_path, TARGETS[:1], pipeline="video", load=20)
    folder = tmp_path / "series" / "71"
    document = json.loads((folder / "1.json").read_text())
    (folder / "1.json").write_text(json.dumps({**document, "extra": value}))
    parser = module.Parser(folder, "yolo", config_key_mapper=MAPPER_FILE)
    if fails:
        with pytest.raises(TypeError):
            parser.result_processing()
    else:
        assert "extra_p99" in parser.result_processing()


@pytest.mark.ipa
def test_ipas_own_code_reads_the_same_figures(tmp_path: Path) -> None:
    checkout = home()
    rows = rows_of_two_stages()
    export_profile(rows, tmp_path, TARGETS, pipeline="video", load=20)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ_BY_IPA, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": checkout},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    for target in TARGETS:
        planned = [r for r in rows if r.stage == target.stage and r.replicas == 1]
        for latency in ("avg", "p99"):
            for throughput in ("max", "p99", "avg"):
                table = answers[f"{target.series} {latency} {throughput}"]
                assert len(table) == len(planned)
                for row, read_back in zip(planned, table, strict=True):
                    assert read_back["model_variant"] == row.variant
                    assert read_back["cpu_request"] == row.cpu_cores
                    assert read_back["max_batch_size"] == row.batch
                    expected_s = getattr(row, f"latency_{latency}_s")
                    assert read_back["latency"] == pytest.approx(expected_s, rel=1e-9)
                    assert read_back["throughput"] == pytest.approx(row.throughput_rps)
        for record in json.loads(answers[f"{target.series} columns"]):
            row = [r for r in rows if r.stage == target.stage][record["experiment_id"] - 1]
            joules = record.get("joules_per_request_avg")
            expected_j = row.joules_per_request if row.has_energy else None
            assert joules == (pytest.approx(expected_j) if expected_j is not None else None)
