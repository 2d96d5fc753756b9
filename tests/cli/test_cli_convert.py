"""``ipa-energy convert`` in both directions: output, JSON, exit status, messages."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import pytest

from ipa_energy.cli import convert
from ipa_energy.cli.options import Verbs
from ipa_energy.errors import ConfigError
from ipa_energy.profile_table.profile_csv import read_profile


def call(*words: str | Path) -> int:
    """The verb alone, as the command line would call it."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true")
    parser = argparse.ArgumentParser(exit_on_error=False)
    convert.add_to(Verbs(parser.add_subparsers(), common))
    args = parser.parse_args(["convert", *map(str, words)])
    status: int = args.verb_function(args)
    return status


@pytest.fixture
def profile(small_pipeline: Path) -> Path:
    return small_pipeline.parent / "profile.csv"


@pytest.fixture
def nodes(profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The small pipeline's profile as IPA's folders 71 and 72."""
    folder = tmp_path / "nodes"
    status = call(
        *("--profile", profile, "--to-ipa", folder, "--pipeline", "small"),
        *("--node", "finder", "namer", "--series", "71", "72"),
    )
    assert status == 0
    out = capsys.readouterr().out
    assert "profiling_load: 20, profiling_series: [71, 72], model_name: ['finder', 'namer']" in out
    return folder


def from_ipa(nodes: Path, out: Path, *more: str) -> int:
    return call(
        *("--from-ipa", nodes / "series" / "71", nodes / "series" / "72"),
        *("--stage", "find", "name", "--accuracies", nodes / "accuracies.yaml", "--out", out),
        *more,
    )


def test_there_and_back(
    profile: Path, nodes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "back.csv"
    assert from_ipa(nodes, out) == 0
    assert "find: 24 entries (24 estimated)" in capsys.readouterr().out
    for before, after in zip(read_profile(profile), read_profile(out), strict=True):
        assert (after.option_key, after.meter, after.trials) == (before.option_key, "cpu-time", 3)
        for name in ("latency_avg_s", "latency_p99_s", "joules_per_request", "energy_ci95_j"):
            assert math.isclose(getattr(before, name), getattr(after, name), rel_tol=1e-9)


def test_json_of_both_directions(
    profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "nodes", tmp_path / "back.csv"
    call("--profile", profile, "--to-ipa", folder, "--stage", "name", "--load", "5", "--json")
    written: Any = json.loads(capsys.readouterr().out)
    assert written["profiling_load"] == 5
    assert written["series"] == [{"stage": "name", "node": "name", "series": 1, "experiments": 16}]
    call(
        *("--from-ipa", folder / "series" / "1", "--stage", "name", "--out", out, "--json"),
        *("--accuracies", folder / "accuracies.yaml", "--pipeline", "profile"),
    )
    read: Any = json.loads(capsys.readouterr().out)
    assert read["profile"] == str(out)
    assert read["series"][0]["rows"] == 16
    assert read["series"][0]["skipped"] == {}


def test_pipeline_name_is_that_of_the_meta_file(profile: Path, tmp_path: Path) -> None:
    profile.with_suffix(".meta.json").write_text('{"pipeline": "video"}')
    call("--profile", profile, "--to-ipa", tmp_path / "nodes", "--json")
    assert (tmp_path / "nodes" / "accuracies.yaml").read_text().startswith("video:\n  find:\n")


def test_estimate_takes_the_power_model(nodes: Path, tmp_path: Path) -> None:
    """One old experiment: 10 CPU seconds in 10 s for one request at 2 J a CPU second."""
    folder = nodes / "series" / "71"
    document = json.loads((folder / "1.json").read_text())
    for key in ("joules_per_request", "dynamic_joules_per_request", "idle_power_w"):
        del document[key]
    document |= {"cpu_usage_count": [0, 10], "time_cpu_usage_count": [0, 10]}
    document |= {"start_time_experiment": 0, "end_time_experiment": 10}
    document["responses"] = [document["responses"][0][:1]]
    (folder / "1.json").write_text(json.dumps(document))
    model = tmp_path / "power.json"
    model.write_text('{"idle_w": 4, "max_w": 12, "cores": 4, "source": "made up"}')
    out = tmp_path / "estimated.csv"
    assert from_ipa(nodes, out, "--estimate-energy", "--power-model", str(model)) == 0
    row = read_profile(out)[0]
    assert (row.dynamic_energy_j, row.idle_power_w) == pytest.approx((20.0, 1.0))
    assert (row.meter, row.quality) == ("cpu-time", "estimated")
    meta = json.loads(out.with_suffix(".meta.json").read_text())
    assert meta["estimate"]["uncertainty"].startswith("±50%")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--from-ipa a --stage s --accuracies y", "--from-ipa needs --out"),
        ("--from-ipa a --accuracies y --out o.csv", "--from-ipa needs --stage"),
        ("--from-ipa a", "needs --stage and --accuracies and --out too"),
        ("--from-ipa a", "fix: add --stage NAME, one a folder, in their order --accuracies"),
        ("--from-ipa a --stage s --accuracies y --out o.csv --series 1", "--series means nothing"),
        ("--from-ipa a b --stage s --accuracies y --out o.csv", "2 folders for the stages s"),
        ("--from-ipa a --stage s --accuracies y --out o.csv --power-model p", "--estimate-energy"),
        ("--from-ipa a --stage s --accuracies y --out o.csv", "no key_config_mapper.csv"),
        ("--to-ipa d", "--to-ipa needs --profile"),
        ("--to-ipa d --profile P --estimate-energy", "--estimate-energy means nothing"),
        ("--to-ipa d --profile P --load 1.5", "an integer"),
        ("--to-ipa d --profile P --load 0", "an integer"),
        ("--to-ipa d --profile P --series 1", "1 values for the stages find, name"),
        ("--to-ipa d --profile P --stage find find", "none twice"),
        ("--to-ipa d --profile P --stage other", "no rows on a CPU for stage other"),
        ("--to-ipa d --profile P --hardware h200", "no rows on a CPU for stage find"),
        ("--to-ipa d --profile nowhere.csv", "no such file"),
        ("--to-ipa d --profile P --series -1 2", "--series: -1; allowed: an integer from 0"),
        ("--to-ipa d --profile P --node a/b c", "--node: 'a/b'; allowed: a name without a slash"),
    ],
)
def test_bad_use_is_refused_and_writes_nothing(
    profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, message: str
) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    monkeypatch.chdir(place)
    with pytest.raises(ConfigError, match=message):
        call(*(str(profile) if word == "P" else word for word in words.split()))
    assert not list(place.iterdir())


def test_nothing_is_overwritten(profile: Path, nodes: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        call("--profile", profile, "--to-ipa", nodes)
    with pytest.raises(ConfigError, match="exists already"):
        from_ipa(nodes, profile)


def test_another_series_of_the_same_profile_goes_beside_the_first(
    profile: Path, nodes: Path
) -> None:
    accuracies = (nodes / "accuracies.yaml").read_bytes()
    words = ("--profile", profile, "--to-ipa", nodes, "--series", "3", "4")
    assert call(*words, "--pipeline", "small") == 0
    assert (nodes / "accuracies.yaml").read_bytes() == accuracies
    assert {path.name for path in (nodes / "series").iterdir()} == {"71", "72", "3", "4"}


def test_other_accuracies_are_no_matter_of_the_series(profile: Path, nodes: Path) -> None:
    words = ("--profile", profile, "--to-ipa", nodes, "--series", "3", "4")
    with pytest.raises(
        ConfigError, match=r"accuracies\.yaml: .*other accuracies; fix: .*whatever the series"
    ):
        call(*words, "--pipeline", "another")
    assert {path.name for path in (nodes / "series").iterdir()} == {"71", "72"}
