"""Several mistakes of one file, told together.

A file with five wrong keys should take one round to mend, not five: readers collect a
:class:`~ipa_energy.errors.ConfigError` per mistake and raise them as one.
"""

from __future__ import annotations

import datetime
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ipa_energy.errors import ConfigError

MOST_SHOWN = 10
"""More mistakes than this are counted, not listed: the rest is likely the same one again."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def shown(value: object) -> str:
    """A value from a file as a message shows it: short, and telling text from numbers."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = _SHORT.repr(value)
    if isinstance(value, str):
        text = f"the text {text}"
    elif isinstance(value, dict):
        text = "a mapping"
    elif isinstance(value, list | tuple):
        text = f"a list of {len(value)}"
    elif isinstance(value, datetime.date):
        text = f"the date {value}"
    return text


def raise_all(problems: Sequence[ConfigError], where: str | Path) -> NoReturn:
    """Raise the one problem as it is, or all of them as one error with a line each.

    Raises:
        ConfigError: always; ``problems`` must not be empty.
    """
    if len(problems) == 1:
        raise problems[0]
    lines = [f"{len(problems)} problems", *(str(problem) for problem in problems[:MOST_SHOWN])]
    if len(problems) > MOST_SHOWN:
        lines.append(f"… and {len(problems) - MOST_SHOWN} more")
    raise ConfigError("\n  ".join(lines), where=where)
