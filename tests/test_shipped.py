"""The folders that come with the program are found in a checkout and in an installed package."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipa_energy.errors import IpaEnergyError
from ipa_energy.shipped import SHIPPED, shipped_folder


@pytest.mark.parametrize("name", SHIPPED)
def test_this_checkout_has_them(name: str) -> None:
    assert shipped_folder(name).is_dir()


def test_an_installed_package_has_them_inside(tmp_path: Path) -> None:
    package = tmp_path / "ipa_energy"
    (package / "configs").mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    assert shipped_folder("configs", package) == package / "configs"


def test_a_folder_beside_an_installed_package_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    with pytest.raises(IpaEnergyError, match="configs"):
        shipped_folder("configs", tmp_path / "ipa_energy")
    (tmp_path / "pyproject.toml").touch()
    assert shipped_folder("configs", tmp_path / "ipa_energy") == tmp_path / "configs"
