"""A temporary folder whose troubles name it and TMPDIR."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from ipa_energy.errors import ConfigError, InfeasibleError
from ipa_energy.scratch import scratch_folder


def test_the_folder_is_gone_at_the_end() -> None:
    with scratch_folder("the test runs") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("x")
    assert not folder.exists()


def test_what_cannot_be_written_there_names_the_place_and_how_to_move_it() -> None:
    with pytest.raises(ConfigError) as caught, scratch_folder("the test runs") as folder:
        raise ConfigError("no space left on device", where=folder / "sub" / "log.json")
    message = str(caught.value)
    assert message.startswith(f"{tempfile.gettempdir()}: no space left on device")
    assert "the test runs" in message
    assert "TMPDIR" in message
    assert str(folder) not in message
    assert not folder.exists()


@pytest.mark.parametrize("error", [ConfigError("x", where="a.yaml"), InfeasibleError("y")])
def test_other_troubles_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, scratch_folder("the test runs"):
        raise error
    assert caught.value is error


def test_no_folder_at_all_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="TMPDIR"), scratch_folder("the test runs"):
        pass
