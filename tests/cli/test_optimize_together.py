"""``optimize A.yaml B.yaml``: one decision for several pipelines on what they share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ipa_energy.cli import main

HEADER = (
    "stage,variant,hardware,cpu_cores,gpu_share,batch,replicas,load_rps,latency_avg_s,"
    "latency_p99_s,throughput_rps,accuracy,dynamic_energy_j,idle_power_w,joules_per_request,"
    "energy_ci95_j,trials,meter,quality,resource,resource_units\n"
)
ON_GPU = (("large", "gpu", 0.9), ("small", "mig-1g.10gb", 0.5))


def pipeline(folder: Path, name: str, rows: tuple[tuple[str, str, float], ...] = ON_GPU) -> str:
    """One stage that answers 10 requests a second; without a slice it holds two cores."""
    lines = [
        f"s,{variant},{'A100-80GB' if kind else 'cpu'},{0 if kind else 2},{int(kind == 'gpu')},1,1,"
        f"10,0.1,0.1,10,{accuracy},1,1,1.1,,1,fake,imported,"
        f"{kind if kind.startswith('mig') else ''},{1 if kind.startswith('mig') else ''}\n"
        for variant, kind, accuracy in rows
    ]
    (folder / f"{name}.csv").write_text(HEADER + "".join(lines))
    path = folder / f"{name}.yaml"
    path.write_text(
        f"pipeline_name: {name}\nnodes: [{{node_name: s}}]\nalpha: 10\nbeta: 0\n"
        f"profile: {name}.csv\nallocation_mode: variable\nlatency_sla_s: 5\n"
        "accuracy_method: average\nnormalize_accuracy: false\n"
    )
    return str(path)


def answer(capsys: pytest.CaptureFixture[str], *argv: str) -> dict:
    assert main(["optimize", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_fits_on_the_gpus_of_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One GPU is whole or cut: both small on one, both large on two; 25 rps take three replicas."""
    pair = [pipeline(tmp_path, "a"), pipeline(tmp_path, "b")]
    one = answer(capsys, *pair, "--load", "8", "--pool", "A100-80GB=1")
    assert [each["plan"]["stages"][0]["variant"] for each in one["pipelines"]] == ["small", "small"]
    assert one["objective"] == pytest.approx(10 * (0.5 + 0.5), rel=1e-3)
    assert sum(one["gpus"]["A100-80GB"].values()) == 1
    two = answer(capsys, *pair, "--load", "8", "--pool", "A100-80GB=2")
    assert two["gpus"] == {"A100-80GB": {"whole": 2}}
    loads = answer(capsys, *pair, "--load", "8", "--load", "25", "--pool", "A100-80GB=3")
    assert [each["load_rps"] for each in loads["pipelines"]] == [8, 25]
    assert [each["plan"]["stages"][0]["variant"] for each in loads["pipelines"]] == [
        "large",
        "small",
    ]
    assert main(["optimize", *pair, "--load", "8", "--pool", "A100-80GB=2"]) == 0
    text = capsys.readouterr().out
    assert "GPUs A100-80GB, for all of them: 2 as whole" in text
    assert "b at 8 rps: large" in text


def test_warnings_say_which_pipeline_they_are_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    both = [pipeline(tmp_path, name, (("v", "", 0.9),)) for name in "cd"]
    assert (
        main(["optimize", *both, "--load", "1", "--pool", "core=8", "--set", "prices={x: 1}"]) == 0
    )
    assert caplog.messages == [
        f"{path}: prices: nothing in the profile uses x; it has core" for path in both
    ]


def test_what_does_not_fit_is_told_with_what_is_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = [pipeline(tmp_path, name, (ON_GPU[0],)) for name in "ab"]
    assert main(["optimize", *large, "--load", "15", "--pool", "A100-80GB=3"]) == 3
    assert "needs 4 GPUs of A100-80GB instead of 3" in capsys.readouterr().err
    cores = [pipeline(tmp_path, name, (("v", "", 0.9),)) for name in "cd"]
    assert main(["optimize", *cores, "--load", "15", "--pool", "core=7"]) == 3
    assert "needs 8 units of core instead of 7" in capsys.readouterr().err
    assert main(["optimize", *cores, "--load", "15", "--pool", "core=8"]) == 0
    capsys.readouterr()
    late = [*cores, "--load", "15", "--latency-sla", "0.05", "--pool", "core=8"]
    assert main(["optimize", *late]) == 3
    assert "c has no plan of its own: no plan can meet latency_sla_s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--pool", "A100=2"], "nothing in the pipelines holds A100; allowed: gpu, mig-1g.10gb"),
        (["--pool", "A100-80GB"], "--pool: 'A100-80GB'; allowed: NAME=N with a number above 0"),
        (["--pool", "A100-80GB=1.5"], "allowed: a whole number of GPUs"),
        (["--load", "1", "--load", "2"], "3 loads for 2 pipelines"),
        (["--top", "2"], "allowed: 1 where pipelines share a pool"),
        (["--set", "mix=true"], "pipelines that mix options are not planned together"),
    ],
)
def test_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    pair = [pipeline(tmp_path, "a"), pipeline(tmp_path, "b")]
    assert main(["optimize", *pair, "--load", "8", *more]) == 2
    assert message in capsys.readouterr().err


def test_pools_of_the_yamls_are_shared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = [pipeline(tmp_path, "a"), pipeline(tmp_path, "b")]
    for path in pair:
        Path(path).write_text(Path(path).read_text() + "gpus: {A100-80GB: {count: 1}}\n")
    both = answer(capsys, *pair, "--load", "8")
    assert [each["plan"]["stages"][0]["variant"] for each in both["pipelines"]] == [
        "small",
        "small",
    ]
    cores = answer(capsys, *pair, "--load", "8", "--pool", "gpu=2")
    assert cores["pools"] == {"A100-80GB": 1}
    assert cores["objective"] == both["objective"]
    Path(pair[1]).write_text(Path(pair[1]).read_text().replace("count: 1", "count: 2"))
    assert main(["optimize", *pair, "--load", "8"]) == 2
    assert "say how many all share: --pool A100-80GB=N" in capsys.readouterr().err
    assert main(["optimize", pair[0], "--load", "8", "--pool", "core=2"]) == 2
    assert "it is for several pipelines" in capsys.readouterr().err
