"""What a number looks like in a YAML file: as in YAML 1.2, whatever PyYAML takes for one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ipa_energy.config import load_config
from ipa_energy.config.source import LONGEST_TEXT, dump_yaml, read_value, read_yaml
from ipa_energy.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("10", 10), ("-3", -3), ("+3", 3), ("0x1f", 31), ("1.5", 1.5), ("-.5", -0.5),
        ("1.", 1.0), ("1e3", 1000.0), ("1e-6", 1e-6), ("1.5e3", 1500.0), ("2.5E+2", 250.0),
        (".inf", math.inf), ("-.inf", -math.inf), ("0.1", 0.1), ("00.5", 0.5),
    ],
)  # fmt: skip
def test_numbers(text: str, value: float) -> None:
    found = read_value(text, "--set")
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text", ["1:30", "-1:30", "1:30.5", "190:20:30", "1_000", "1_0.5", "010", "0b11", "١٠"]
)
def test_texts_that_yaml_1_1_takes_for_other_numbers(text: str) -> None:
    assert read_value(text, "--set") == text


@pytest.mark.parametrize("text", ["1:30", "1_0", "010"])
def test_a_weight_of_such_a_form_is_refused(small_pipeline: Path, text: str) -> None:
    yaml = small_pipeline.read_text()
    small_pipeline.write_text(yaml.replace("alpha: 20", f"alpha: {text}"))
    with pytest.raises(ConfigError, match=rf"alpha.*{text}"):
        load_config(small_pipeline)


def test_a_dump_reads_back_equal(tmp_path: Path) -> None:
    data = {
        "texts": ["1:30", "1_000", "010", "0b11", "1e-6", "10", ".inf", "0o7", "no", "1.5"],
        "numbers": [0, 10, -3, 1.5, 1e-6, 1e300, math.inf, 0.1, 123456789012345678],
    }
    path = tmp_path / "dump.yaml"
    path.write_text(dump_yaml(data))
    assert read_yaml(path).data == data


@pytest.mark.parametrize(
    ("key", "kind"), [("? [a, b]\n: 1", "a list"), ("? {a: b}\n: 1", "a mapping"), ("~: 1", "null")]
)
def test_a_key_that_is_no_text_is_called_what_it_is(tmp_path: Path, key: str, kind: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(f"{key}\nalpha: 1\n")
    (problem,) = read_yaml(path).problems
    assert f"file.yaml:1: a key is {kind}; allowed: text as key" in str(problem)


def test_a_file_that_would_take_minutes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("alpha: 1\n" + "# words\n" * (LONGEST_TEXT // 8 + 1))
    with pytest.raises(ConfigError, match="4 million characters; allowed: a YAML of at most 4"):
        read_yaml(path)
