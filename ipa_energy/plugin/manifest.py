"""A folder of patches and its manifest: which IPA they are for, and each target before and after.

The manifest holds hashes only, no text of IPA: git's blob hash of every target before and after,
and per hunk the hash of its surroundings (see ``placement``). It is made anew from a pristine
checkout and the patch files beside it by ``python -m ipa_energy.plugin.manifest --ipa-home DIR``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config

from ipa_energy.errors import ConfigError, IpaEnergyError, UnavailableError
from ipa_energy.plugin.hunk import Hunk, parse_patch
from ipa_energy.plugin.placement import Surroundings

MANIFEST = "manifest.json"
FOLDER = "ipa-e1f08dd"
REPOSITORY = "https://github.com/reconfigurable-ml-pipeline/ipa"


def _inside(path: str) -> str:
    """A relative path with slashes that cannot lead out of the checkout."""
    parts = path.split("/")
    if not path or "\\" in path or "\0" in path or {"", ".", ".."} & set(parts):
        raise ValueError("not a plain relative path")
    return path


def _file_name(name: str) -> str:
    if name != PurePosixPath(_inside(name)).name:
        raise ValueError("not the name of a file in the same folder")
    return name


RelativePath = Annotated[str, AfterValidator(_inside)]
Sha1 = Annotated[str, Field(pattern="^[0-9a-f]{40}$")]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_CLOSED = ConfigDict(extra="forbid")


@with_config(_CLOSED)
@dataclass(frozen=True, slots=True)
class HunkEntry:
    """Surroundings of one hunk as the file has them."""

    context_lines: Annotated[int, Field(ge=1)]
    before: Sha256
    after: Sha256


@with_config(_CLOSED)
@dataclass(frozen=True, slots=True)
class FileEntry:
    """One target: its path in the checkout, its patch, and git's blob hash of it."""

    path: RelativePath
    patch: Annotated[str, AfterValidator(_file_name)]
    blob_before: Sha1
    blob_after: Sha1
    hunks: tuple[HunkEntry, ...]


@with_config(_CLOSED)
@dataclass(frozen=True, slots=True)
class Manifest:
    """The file as a whole."""

    format: Literal[1]
    repository: str
    commit: Sha1
    files: Annotated[tuple[FileEntry, ...], Field(min_length=1)]


MANIFEST_TYPE = TypeAdapter(Manifest)


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be done to one file; ``surroundings`` has one entry a hunk."""

    path: str
    blob_before: str
    blob_after: str
    hunks: tuple[Hunk, ...]
    surroundings: tuple[Surroundings, ...]


@dataclass(frozen=True, slots=True)
class PatchSet:
    """Every target of one commit of one repository."""

    repository: str
    commit: str
    targets: tuple[Target, ...]

    @property
    def short_commit(self) -> str:
        """The commit as people write it."""
        return self.commit[:7]


def bundled_patches() -> Path:
    """The folder of patches for IPA that comes with this package.

    Raises:
        UnavailableError: this installation is without it.
    """
    package = Path(__file__).resolve().parents[1]
    # Inside the package once installed; beside it in a source tree.
    for folder in (package / "patches" / FOLDER, package.parent / "patches" / FOLDER):
        if (folder / MANIFEST).is_file():
            return folder
    raise UnavailableError(
        f"no patches/{FOLDER}/{MANIFEST} in this installation of ipa-energy; install it again, "
        "or name the folder with --patches DIR"
    )


def load_patch_set(folder: Path) -> PatchSet:
    """The patches in ``folder``.

    Raises:
        ConfigError: a file is missing, malformed, or does not fit the manifest.
    """
    path = folder / MANIFEST
    try:
        manifest = MANIFEST_TYPE.validate_json(_read(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{place}: {first['msg']}", where=path) from None
    paths = [entry.path for entry in manifest.files]
    if len(set(paths)) != len(paths):
        raise ConfigError("two entries for one file", where=path)
    targets = tuple(_target(folder, entry) for entry in manifest.files)
    return PatchSet(manifest.repository, manifest.commit, targets)


def _target(folder: Path, entry: FileEntry) -> Target:
    where = folder / entry.patch
    patch = parse_patch(_read(where), where)
    if patch.path != entry.path or len(patch.hunks) != len(entry.hunks):
        raise ConfigError(f"it is not the patch of {entry.path} that {MANIFEST} means", where=where)
    around = tuple(
        Surroundings(hunk.context_lines, hunk.before, hunk.after) for hunk in entry.hunks
    )
    return Target(entry.path, entry.blob_before, entry.blob_after, patch.hunks, around)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=path) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Write the manifest of a folder of patches; returns the exit status."""
    from ipa_energy.plugin.manifest_build import build_manifest

    parser = argparse.ArgumentParser(
        prog="python -m ipa_energy.plugin.manifest",
        description="Check the patches of a folder against a pristine checkout of IPA and write "
        f"their {MANIFEST}.",
    )
    parser.add_argument("--ipa-home", type=Path, required=True, metavar="DIR")
    source_tree = Path(__file__).resolve().parents[2]
    parser.add_argument(
        "--patches",
        type=Path,
        default=source_tree / "patches" / FOLDER,
        metavar="DIR",
        help=f"folder of the *.patch files (default: patches/{FOLDER} of the source tree)",
    )
    args = parser.parse_args(argv)
    try:
        manifest = build_manifest(args.patches, args.ipa_home, REPOSITORY)
    except IpaEnergyError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_status
    hunks = sum(len(entry.hunks) for entry in manifest.files)
    sys.stdout.write(f"{args.patches / MANIFEST}: {len(manifest.files)} files, {hunks} hunks\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
