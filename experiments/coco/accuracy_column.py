"""An accuracy that was measured, into a copy of a profile; where it is from, into its meta file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ipa_energy.errors import ConfigError
from ipa_energy.profile_table.profile_csv import meta_path, read_profile, write_profile


def with_accuracy(
    profile: Path,
    out: Path,
    *,
    stage: str,
    variant: str,
    accuracy: float,
    source: Mapping[str, Any],
) -> None:
    """Write ``profile`` to ``out`` with another accuracy of one variant.

    Args:
        profile: the profile; it may be ``out`` itself, to put in one variant after another.
        out: where to.
        stage: of the variant.
        variant: whose accuracy it is.
        accuracy: as a ratio.
        source: what is said of it under ``accuracies`` in the meta file.

    Raises:
        ConfigError: the profile has no such variant, or ``out`` is some other file.
    """
    if out.exists() and not (profile.exists() and out.samefile(profile)):
        raise ConfigError("it exists already", where=out, fix="choose another --profile-out")
    rows = read_profile(profile)
    if not any((row.stage, row.variant) == (stage, variant) for row in rows):
        variants = dict.fromkeys(row.variant for row in rows if row.stage == stage)
        raise ConfigError(
            f"no variant {variant} of stage {stage}", where=profile, allowed=", ".join(variants)
        )
    meta = _meta(meta_path(profile))
    measured = {
        **meta.get("accuracies", {}),
        f"{stage}/{variant}": {"accuracy": accuracy, **source},
    }
    write_profile(
        out,
        [
            replace(row, accuracy=accuracy) if (row.stage, row.variant) == (stage, variant) else row
            for row in rows
        ],
    )
    text = json.dumps({**meta, "accuracies": measured}, indent=2)
    meta_path(out).write_text(text + "\n", encoding="utf-8")


def _meta(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}", where=path) from error
    if not isinstance(meta, dict):
        raise ConfigError("no mapping", where=path, allowed="a profile's meta file")
    return meta
