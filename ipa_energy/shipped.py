"""Folders that come with the program beside its code: ``configs``, ``patches``, ``pipelines``.

In a checkout they stand at its top, where people read and edit them; a wheel carries them inside
the package, because nothing else of it may claim such names among the installed packages.
"""

from __future__ import annotations

from pathlib import Path

from ipa_energy.errors import ConfigError, IpaEnergyError

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


def shipped_configs() -> dict[str, Path]:
    """Name of each pipeline that comes with the program → its YAML."""
    paths = shipped_folder("configs").glob("*.yaml")
    return {path.stem: path for path in sorted(paths, key=lambda path: path.stem)}


def find_config(name: str | Path) -> Path:
    """The YAML of a pipeline: a path as it is, or the one shipped under a bare name.

    A file of that name here comes first.

    Raises:
        ConfigError: a bare name that is neither a file nor shipped.
    """
    path = Path(name)
    if path.is_file() or path.suffix or path.name != str(name):
        return path
    shipped = shipped_configs()
    if path.name not in shipped:
        raise ConfigError(
            f"no pipeline is called {name}",
            allowed=f"{', '.join(shipped)}, which come with ipa-energy, or the path of a YAML",
        )
    return shipped[path.name]
