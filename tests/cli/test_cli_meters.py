"""``ipa-energy meters``: the documented shape, and what a reader is told."""

import json

import pytest

from ipa_energy.cli import main

STATES = {"measured", "dead", "denied", "absent", "estimated"}


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory):
    """A powercap folder without zones."""
    return str(tmp_path_factory.mktemp("powercap"))


def test_json_has_the_documented_shape(nowhere, capsys):
    assert main(["meters", "--json", "--powercap", nowhere]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert set(found) == {"meters", "auto"}
    by_name = {meter["name"]: meter for meter in found["meters"]}
    assert {"rapl", "perf", "nvml", "cpu-time"} <= set(by_name)
    for meter in found["meters"]:
        assert set(meter) >= {
            "name", "state", "reason", "domains", "update_period_s", "min_window_s",
        }  # fmt: skip
        assert meter["state"] in STATES
        assert meter["reason"]
        if meter["state"] not in ("measured", "estimated"):
            assert (meter["domains"], meter["min_window_s"]) == ([], None)
    assert by_name["rapl"]["state"] == "absent"
    assert by_name["cpu-time"]["state"] == "estimated"
    assert all(part in by_name for part in found["auto"].split("+"))


def test_text_gives_state_reason_fix_and_choice(nowhere, capsys):
    assert main(["meters", "--powercap", nowhere]) == 0
    out = capsys.readouterr().out
    assert "cpu-time" in out
    assert "estimated" in out
    assert f"rapl: no package zone under {nowhere}" in out
    assert "fix: modprobe intel_rapl_msr" in out
    assert "auto: " in out


def test_a_bad_prometheus_address_is_bad_input(nowhere, capsys):
    assert main(["meters", "--powercap", nowhere, "--prometheus", "gopher://x"]) == 2
    assert "error:" in capsys.readouterr().err
