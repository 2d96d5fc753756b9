"""What the tests of pages share."""

from __future__ import annotations

import pytest

from ipa_energy.report import page


@pytest.fixture
def without_stills(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without a picture of each figure, which takes nine tenths of the time."""
    monkeypatch.setattr(page, "_still", lambda figure: "data:image/png;base64,")
