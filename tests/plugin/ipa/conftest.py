"""Copies of the checkout of IPA in ``IPA_HOME``: one as it is, one with the patches in it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from ipa_checkout import Ipa, copy_checkout, patch_checkout


@pytest.fixture(scope="session")
def ipa_home() -> Path:
    """The user's checkout, only read."""
    home = os.environ.get("IPA_HOME")
    if not home:
        pytest.skip("needs a checkout of IPA in IPA_HOME")
    if importlib.util.find_spec("sklearn") is None:
        pytest.skip("IPA needs scikit-learn")
    return Path(home)


@pytest.fixture(scope="session")
def plain(ipa_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Ipa:
    """A copy as it is."""
    return Ipa(copy_checkout(ipa_home, tmp_path_factory.mktemp("plain") / "ipa"), [])


@pytest.fixture(scope="session")
def patched(ipa_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Ipa:
    """A copy with the patches in it."""
    home = copy_checkout(ipa_home, tmp_path_factory.mktemp("patched") / "ipa")
    patch_checkout(home)
    return Ipa(home, [])
