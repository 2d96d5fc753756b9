"""The table of ML.ENERGY as rows of a profile, by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ipa_energy.errors import ConfigError
from ipa_energy.profile_table.mlenergy_table import (
    NEEDED,
    Cited,
    MlEnergyChoice,
    is_mlenergy_table,
    profile_rows,
    read_accuracies,
    read_entries,
)

LINE = {
    "task": "chat",
    "model_id": "maker/net",
    "gpu_model": "H100",
    "num_gpus": "2",
    "max_num_seqs": "8",
    "weight_precision": "fp8",
    "energy_per_request_joules": "500",
    "output_throughput_tokens_per_sec": "100",
    "avg_output_len": "50",
    "median_itl_ms": "20",
    "p99_itl_ms": "40",
}
CHOICE = MlEnergyChoice(
    task="chat", accuracies={"net": Cited(0.5)}, idle_power_w={"H100": Cited(100.0)}
)
WHERE = Path("table.csv")


def test_a_row_by_hand() -> None:
    """100 tokens a second of 50 are 2 requests; 2 × 100 W at rest are 100 J of each request."""
    (row,), left_out = profile_rows([LINE], CHOICE, WHERE)
    assert left_out == []
    assert (row.stage, row.variant, row.hardware) == ("chat", "net", "2xH100")
    assert (row.resource, row.resource_units, row.cpu_cores, row.gpu_share) == ("H100", 2, 0, 0)
    assert (row.batch, row.precision, row.accuracy) == (8, "fp8", 0.5)
    assert (row.throughput_rps, row.load_rps) == (2, 2)
    assert (row.latency_avg_s, row.latency_p99_s) == (1, 2)
    assert (row.joules_per_request, row.dynamic_energy_j, row.idle_power_w) == (500, 400, 200)
    assert math.isnan(row.energy_ci95_j)
    assert (row.trials, row.meter, row.quality) == (1, "zeus-nvml", "imported")


def test_one_gpu_is_called_by_its_name() -> None:
    (row,), _ = profile_rows([{**LINE, "num_gpus": "1"}], CHOICE, WHERE)
    assert (row.hardware, row.resource_units) == ("H100", 1)


def test_a_line_that_is_there_twice_is_two_trials() -> None:
    again = {**LINE, "energy_per_request_joules": "600"}
    (row,), _ = profile_rows([LINE, again], CHOICE, WHERE)
    assert (row.joules_per_request, row.trials) == (550, 2)
    assert row.energy_ci95_j == pytest.approx(12.7062 * 50, rel=1e-4)


def test_what_nobody_gave_is_left_out_by_name() -> None:
    other = {**LINE, "model_id": "maker/other"}
    bigger = {**LINE, "gpu_model": "B200"}
    rows, left_out = profile_rows([LINE, other, bigger], CHOICE, WHERE)
    assert len(rows) == 1
    assert left_out == ["no accuracy of maker/other", "no idle watts of B200"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"task": "other"}, "no task 'chat'; allowed: other"),
        ({"avg_output_len": ""}, "avg_output_len of maker/net.*only tasks of language models"),
        ({"energy_per_request_joules": "80"}, "drew 160 W on 2 H100, less than 200 W at rest"),
    ],
)
def test_refusals(line: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        profile_rows([{**LINE, **line}], CHOICE, WHERE)


def test_the_table_is_told_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(",".join((*NEEDED, "more")) + "\n")
    assert is_mlenergy_table(path)
    assert read_entries(path) == []
    path.write_text("TimeInSeconds,NV Pwr(W) (API)\n")
    assert not is_mlenergy_table(path)
    with pytest.raises(ConfigError, match="no column task, model_id"):
        read_entries(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,accuracy\na,0.5\n", "allowed: model, accuracy"),
        ("model,accuracy\na,62\n", "t.csv:2: accuracy of a is '62'; allowed: a ratio"),
        ("model,accuracy\na,0.5\na,0.6\n", "t.csv:3: model 'a'; allowed: a name, each once"),
    ],
)
def test_accuracies_that_are_none(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_accuracies(path)
