"""What a YAML says to a patched IPA."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from ipa_energy.config.carbon import CarbonConfig
from ipa_energy.errors import ConfigError
from ipa_energy.plugin import hooks
from ipa_energy.plugin.hooks.pipeline_energy import KEYS, EnergySettings, settings_from

IPA = {"alpha": 2, "optimization_method": "gurobi", "some_key_of_ipa": 3}


def test_a_yaml_without_our_keys_says_nothing() -> None:
    assert settings_from(IPA) is None


@pytest.mark.parametrize("method", ["ipa-energy", "pareto", "highs"])
def test_one_of_our_methods_alone_is_enough(method: str) -> None:
    assert settings_from({**IPA, "optimization_method": method}) == EnergySettings()


def test_every_key_is_taken() -> None:
    given = {
        "energy_weight": 2,
        "energy_metric": "watts",
        "energy_risk": "upper",
        "energy_sla_joules": 1.5,
        "energy_estimate": "cpu-time",
        "carbon": {"intensity": 250, "weight": 300, "sla_grams": 0.5},
        "strict_latency": True,
        "latency_sla_s": 3,
        "requests_per_input": [1, 1],
    }
    assert set(given) == set(KEYS)
    assert settings_from({**IPA, **given}) == EnergySettings(
        energy_weight=2.0,
        energy_metric="watts",
        energy_risk="upper",
        energy_sla_joules=1.5,
        energy_estimate="cpu-time",
        carbon=CarbonConfig(intensity=250, weight=300, sla_grams=0.5),
        weights={"grams_per_request": 300.0},
        caps={"grams_per_request": 0.5},
        strict_latency=True,
        latency_sla_s=3.0,
        requests_per_input=(1.0, 1.0),
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"energy_wieght": 1}, "did you mean energy_weight?"),
        ({"strict_latencies": True}, "did you mean strict_latency?"),
        ({"energy_foo": 1}, "key energy_foo is not known to a patched IPA"),
        ({"energy_weight": "2"}, "write the number without quotes"),
        ({"energy_weight": -1}, "allowed: a finite number ≥ 0"),
        ({"energy_sla_joules": 0}, "energy_sla_joules is 0"),
        ({"energy_metric": "joules"}, "joules_per_request | watts"),
        ({"energy_risk": "high"}, "mean | upper"),
        ({"carbon": {"intensity": -1}}, "carbon.intensity is -1"),
        ({"carbons": {}}, "did you mean carbon?"),
        (
            {"carbon": {"intensity": 1, "budget_grams_per_day": 9}},
            "kept by ipa-energy run alone",
        ),
        ({"requests_per_input": [1, 2]}, "set optimization_method: ipa-energy"),
    ],
)
def test_mistakes_are_told(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_from({**IPA, **keys})
    assert message in str(caught.value)


def test_several_requests_a_stage_are_for_our_solver() -> None:
    found = settings_from({"optimization_method": "ipa-energy", "requests_per_input": [1, 2]})
    assert found is not None
    assert found.requests_per_input == (1.0, 2.0)


def test_configure_ends_the_program_with_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        hooks.configure(object(), {"energy_weight": "much"})
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("ipa-energy: ")
    assert told.count("\n") == 1


def test_importing_the_hooks_imports_nothing_heavy() -> None:
    heavy = "('numpy', 'pandas', 'pydantic', 'gurobipy', 'scipy')"
    code = f"import sys, ipa_energy.plugin.hooks; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
