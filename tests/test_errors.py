"""Messages say what people know: no Python, and no path twice."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

import ipa_energy
from ipa_energy.cli import main
from ipa_energy.errors import ConfigError, in_words
from ipa_energy.runlog import read_run
from ipa_energy.testing import write_fake_run


def told(action: object, *kinds: type[Exception]) -> str:
    with pytest.raises(kinds) as caught:
        action()  # type: ignore[operator]
    return in_words(caught.value)


def test_reasons_in_words() -> None:
    assert told(lambda: Path("/no/such").read_text(), OSError) == "no such file or directory"
    assert told(lambda: {}["stages"], KeyError) == "it has no stages"
    assert told(lambda: json.loads("{\n,"), ValueError) == "it is not JSON: line 2, column 1"
    assert told(b"\xff".decode, ValueError) == "byte 0xff is not UTF-8"
    assert told(lambda: json.loads("[]")["a"], TypeError) == "its values are of other kinds"
    assert in_words(ValueError("neither")) == "neither"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("run.json", "[]", "run.json: not a run.json (its values are of other kinds)"),
        ("run.json", "{}", "run.json: not a run.json (it has no stages)"),
        ("0.yaml", None, "0.yaml: cannot be read (no such file or directory)"),
        ("adaptation_log.json", "{", "cannot be read (it is not JSON: line 1, column 2)"),
    ],
)
def test_damaged_files_are_told_without_python(
    tmp_path: Path, name: str, content: str | None, says: str
) -> None:
    path = write_fake_run(tmp_path / "run", seconds=20)
    (path / name).unlink()
    if content is not None:
        (path / name).write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_run(path)
    assert str(caught.value) == f"{path / name}: " + says.removeprefix(f"{name}: ")


def test_no_message_says_its_place_twice() -> None:
    """``ConfigError("prices names core", where="prices")`` reads "prices: prices names core"."""
    package = Path(ipa_energy.__file__).parent
    twice = []
    for path in package.rglob("*.py"):
        text = path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)) if "ConfigError(" in text else ():
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ConfigError"):
                continue
            begin = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else None
            what = ast.unparse(begin or node.args[0]).strip("'\"f")
            place = [ast.unparse(key.value) for key in node.keywords if key.arg == "where"]
            if place and place[0].startswith("'") and re.match(place[0].strip("'") + r"\b", what):
                twice.append(f"{path.name}:{node.lineno}: {what}")
    assert twice == []


def test_control_characters_of_a_message_reach_no_terminal_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(tmp_path / "a\x1b[31mb")]) == 2
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "a\\x1b[31mb: no such folder" in err
