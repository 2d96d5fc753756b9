"""Folders that come with the program beside its code: ``configs``, ``patches``, ``pipelines``.

In a checkout they stand at its top, where people read and edit them; a wheel carries them inside
the package, because nothing else of it may claim such names among the installed packages.
"""

from __future__ import annotations

from pathlib import Path

from ipa_energy.errors import IpaEnergyError

PACKAGE = Path(__file__).resolve().parent
SHIPPED = ("configs", "patches", "pipelines")


def shipped_folder(name: str, package: Path = PACKAGE) -> Path:
    """Where one of :data:`SHIPPED` is.

    Args:
        name: of the folder.
        package: where this package's modules are.

    Raises:
        IpaEnergyError: it is not there: the installation lacks a part.
    """
    inside = package / name
    if inside.is_dir():
        return inside
    # Only a checkout has pyproject.toml there; beside an installed package stand those of others.
    beside = package.parent / name
    if beside.is_dir() and (package.parent / "pyproject.toml").is_file():
        return beside
    raise IpaEnergyError(
        f"the folder {name} is neither in {package} nor in a checkout around it; "
        "fix: install ipa-energy again"
    )
