"""Files, folders and pipelines named on the command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ipa_energy.errors import ConfigError
from ipa_energy.shipped import find_config

if TYPE_CHECKING:
    from ipa_energy.planning.planner import Planner


def named_path(text: str) -> Path:
    """For ``type=`` of an option; the empty text, which ``Path`` takes for ``.``, is refused.

    Raises:
        argparse.ArgumentTypeError: it is empty.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty path; name a file or folder")
    return Path(text)


def named_server(text: str) -> str:
    """For ``type=`` of an option: the URL of a server; a password in it is not shown.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    from ipa_energy.config.fields import AN_HTTP_URL, HTTP_URL

    if re.fullmatch(HTTP_URL, text) is None:
        shown = text.rpartition("@")[2]
        raise argparse.ArgumentTypeError(f"{shown!r}; allowed: {AN_HTTP_URL}")
    return text


def named_pipeline(text: str) -> Path:
    """For ``type=`` of a pipeline: the path of its YAML, or the name of one that is shipped.

    Raises:
        argparse.ArgumentTypeError: it is empty, or a name that is not shipped.
    """
    try:
        return find_config(named_path(text))
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_pipeline(parser: argparse.ArgumentParser, *, several: str = "") -> None:
    """Add the pipeline that a verb works on; a list of them where several may be named.

    Args:
        parser: of the verb.
        several: what several are for, at the end of the help; "" where there is one.
    """
    parser.add_argument(
        "pipeline",
        type=named_pipeline,
        metavar="PIPELINE.yaml",
        help="a pipeline YAML, or the name of one that comes with the program, such as video"
        + several,
        nargs="+" if several else None,
    )


def inputs_of(pipeline: Path, planners: Iterable[Planner]) -> list[Path]:
    """The files that a pipeline was loaded from: YAML, profiles, traces."""
    found = [pipeline]
    for planner in planners:
        trace = getattr(planner.config.workload_config, "path", None)
        found += [planner.profile_path, *([Path(trace)] if trace else [])]
    return found
