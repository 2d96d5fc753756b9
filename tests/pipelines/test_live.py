"""Real networks served live for a few seconds, by the shipped configurations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from installed import require_installed

from ipa_energy.cli import main
from ipa_energy.runlog import read_run

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("config", "needs"),
    [
        pytest.param(
            "video-live", ("torch", "torchvision", "ultralytics"), marks=pytest.mark.video
        ),
        ("audio-live", ("torch", "transformers")),
    ],
)
def test_every_request_is_answered_by_a_real_network(
    config: str, needs: tuple[str, ...], tmp_path: Path
) -> None:
    require_installed("grpc", "mlserver", *needs)
    load = tmp_path / "load.csv"
    load.write_text("second,requests\n0,1\n1,1\n2,1\n3,1\n")
    words = ["run", str(ROOT / f"configs/{config}.yaml"), "--backend", "local", "--overcommit"]
    told = ["--workload", str(load), "--set", "drop_limit=100", "--quiet"]
    assert main([*words, *told, "--out", str(tmp_path / "run")]) == 0
    run = read_run(tmp_path / "run")
    assert len(run.requests) == 4
    assert np.isfinite(run.requests.done_s).all()
    assert (run.requests.dropped_at == -1).all()
    assert (run.info.meter, run.info.quality) == ("cpu-time", "estimated")
