"""Makes the manifest of a folder of patches, and refuses patches that could not be undone."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ipa_energy.errors import ConfigError
from ipa_energy.files import whole_file
from ipa_energy.plugin.blob import git_blob_hash, line_end, split_lines, without_end
from ipa_energy.plugin.hunk import FilePatch, Hunk, parse_patch
from ipa_energy.plugin.manifest import MANIFEST, MANIFEST_TYPE, FileEntry, HunkEntry, Manifest
from ipa_energy.plugin.placement import put_in, take_out, unique_surroundings
from ipa_energy.plugin.python_source import syntax_error


def build_manifest(folder: Path, checkout: Path, repository: str) -> Manifest:
    """Check every ``*.patch`` of ``folder`` against ``checkout``, and write the manifest there.

    Args:
        folder: where the patches are.
        checkout: root of a git checkout whose targets are as its HEAD has them.
        repository: where that checkout comes from.

    Raises:
        ConfigError: a patch does not fit or cannot be undone, or a target is not pristine.
    """
    paths = sorted(folder.glob("*.patch"))
    if not paths:
        raise ConfigError("no *.patch in it", where=folder)
    entries = [_entry(path, checkout) for path in paths]
    targets = [entry.path for entry in entries]
    for path in targets:
        if targets.count(path) > 1:
            raise ConfigError(f"two patches for {path}", where=folder, fix="make it one file")
    commit = _git(checkout, "rev-parse", "HEAD")
    manifest = Manifest(1, repository, commit, tuple(entries))
    document = MANIFEST_TYPE.dump_json(MANIFEST_TYPE.validate_python(manifest), indent=2)
    with whole_file(folder / MANIFEST) as file:
        file.write(document.decode() + "\n")
    return manifest


def _entry(path: Path, checkout: Path) -> FileEntry:
    patch = parse_patch(path.read_bytes(), path)
    target = checkout / patch.path
    try:
        data = target.read_bytes()
    except OSError as error:
        raise ConfigError(f"{patch.path}: {error.strerror}", where=path) from error
    blob = git_blob_hash(data)
    if blob != _git(checkout, "rev-parse", f"HEAD:{patch.path}"):
        raise ConfigError("not as the commit has it", where=target, fix="take a pristine checkout")
    lines = split_lines(data)
    around = [_surroundings(path, lines, hunk) for hunk in patch.hunks]
    made = put_in(lines, patch.hunks, [hunk.after_line for hunk in patch.hunks])
    _refuse_irreversible(path, lines, made, patch)
    if patch.path.endswith(".py") and (wrong := syntax_error(made)) is not None:
        raise ConfigError(f"{patch.path} would no longer be Python: {wrong}", where=path)
    return FileEntry(patch.path, path.name, blob, git_blob_hash(made), tuple(around))


def _surroundings(path: Path, lines: list[bytes], hunk: Hunk) -> HunkEntry:
    if hunk.after_line > len(lines):
        raise ConfigError(
            f"hunk {hunk.number} goes after line {hunk.after_line} of {len(lines)}", where=path
        )
    if hunk.after_line == len(lines) and lines and not line_end(lines[-1]):
        raise ConfigError(
            f"hunk {hunk.number} goes after a last line without an end, which would change it",
            where=path,
            fix="insert before that line",
        )
    around = unique_surroundings(lines, hunk.after_line)
    if around is None:
        raise ConfigError(f"the place of hunk {hunk.number} looks like another", where=path)
    return HunkEntry(around.context_lines, around.before, around.after)


def _refuse_irreversible(path: Path, lines: list[bytes], made: bytes, patch: FilePatch) -> None:
    present = {without_end(line) for line in lines}
    for hunk in patch.hunks:
        for line in hunk.lines:
            if line in present:
                raise ConfigError(
                    f"hunk {hunk.number} adds a line that the target has already",
                    where=path,
                    fix="make it different, so that it can be known as ours: put it in one line "
                    "with another one",
                )
    back, misfits = take_out(split_lines(made), patch.hunks)
    if misfits or back != b"".join(lines):
        raise ConfigError("taking its lines out again does not restore the target", where=path)


def _git(checkout: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), *words], capture_output=True, text=True, check=True
        )
    except FileNotFoundError as error:
        raise ConfigError("git is not installed", fix="install it") from error
    except subprocess.CalledProcessError as error:
        raise ConfigError(error.stderr.strip(), where=checkout) from error
    return done.stdout.strip()
