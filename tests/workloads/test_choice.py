import os
from pathlib import Path

import pytest

from ipa_energy.config import SHAPES as CONFIG_SHAPES
from ipa_energy.config import PipelineConfig, load_config
from ipa_energy.errors import ConfigError, UnavailableError
from ipa_energy.workloads import SHAPES, named_workload, workload_from

PIPELINE = """
pipeline_name: video
nodes: [{node_name: yolo}, {node_name: resnet-human}]
task_name: [crop, classification]
alpha: 2
beta: 1
gamma: 0.000001
"""
SHARED = Path(os.environ.get("IPA_ENERGY_SHARED_DATA", Path(__file__).parents[3] / "shared/data"))


def loaded(folder: Path, workload: str, override: str | None = None) -> PipelineConfig:
    path = folder / "pipeline.yaml"
    path.write_text(PIPELINE + workload)
    return load_config(path, {"workload": override})


def test_the_configs_shapes_are_those_that_can_be_made() -> None:
    assert set(CONFIG_SHAPES) == set(SHAPES)


def test_static(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        "workload_type: static\nworkload_config: {loads_to_test: 7, load_duration: 3}\n",
    )
    assert workload_from(config).counts.tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    ("workload", "seed", "duration_s"),
    [
        ("workload_type: fluctuating\n", 0, 1200),
        ("workload_type: fluctuating\nseed: 4\n", 4, 1200),
        ("workload_type: fluctuating\nseed: 4\nworkload_config: {seed: 9}\n", 9, 1200),
        ("workload_type: fluctuating\nworkload_config: {duration_s: 60}\n", 0, 60),
    ],
)
def test_shapes_take_the_pipelines_seed_unless_they_have_one(
    tmp_path: Path, workload: str, seed: int, duration_s: int
) -> None:
    made = workload_from(loaded(tmp_path, workload))
    expected = named_workload("fluctuating", seed=seed, duration_s=duration_s)
    assert made.counts.tolist() == expected.counts.tolist()


def test_csv_beside_the_yaml(tmp_path: Path) -> None:
    (tmp_path / "load.csv").write_text("requests\n16\n9\n")
    config = loaded(
        tmp_path, "workload_type: csv\nworkload_config: {path: load.csv, damping_factor: 8}\n"
    )
    assert workload_from(config).counts.tolist() == [2, 1]


TWITTER = """
workload_type: twitter
workload_config:
  - {start: '1', end: '3', damping_factor: 8}
  - {start: '0', end: '1', damping_factor: null}
"""


def test_twitter_reads_the_checkout(tmp_path: Path) -> None:
    folder = tmp_path / "load_tester/barazmoon/twitter"
    folder.mkdir(parents=True)
    (folder / "workload.txt").write_text("30 16 9 5")
    config = loaded(tmp_path, TWITTER)
    assert workload_from(config, tmp_path).counts.tolist() == [2, 1, 30]


def test_twitter_without_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="--ipa-home"):
        workload_from(loaded(tmp_path, TWITTER))


def test_an_override_by_name_replaces_the_yamls_workload(tmp_path: Path) -> None:
    workload = workload_from(loaded(tmp_path, TWITTER, override="steady-high"))
    assert workload.counts.tolist() == named_workload("steady-high").counts.tolist()


def test_an_override_by_file_is_damped_as_the_yaml_says(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("second,requests\n5,80\n6,15\n")
    workload = workload_from(loaded(tmp_path, TWITTER, override=str(path)))
    assert workload.counts.tolist() == [10, 1]


def test_an_override_that_is_neither_lists_the_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"spiky: there is no such trace.*or a name: bursty"):
        workload_from(loaded(tmp_path, TWITTER, override="spiky"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the folder of real traces and IPA's YAMLs")
def test_ipas_bursty_window_from_csv() -> None:
    trace = SHARED / "traces/twitter-bursty-1301160-1302360.csv"
    config = load_config(SHARED / "ipa-configs/final-video-1.yaml", {"workload": str(trace)})
    workload = workload_from(config)
    assert workload.requests == 14437
    assert (workload.duration_s, workload.counts.min(), workload.peak_rps) == (1200, 3, 34)
    assert workload.mean_rps == pytest.approx(12.03, abs=0.01)
