"""What can go wrong, sorted by what the caller can do about it.

::

    IpaEnergyError                 exit status
    ├── ConfigError                2   bad input: fix the file or the option and call again
    ├── InfeasibleError            3   no plan meets the constraints: relax one of them
    └── UnavailableError           4   something this needs is missing here
        ├── MeterUnavailableError      no such energy counter, or no right to read it
        ├── LicenceError               the solver's licence is missing or too small
        └── ServingError               a server did not start, or died
            ├── TryAgainError          it may work in a moment: the runner tries again
            └── GiveUpError            it never will: the run stops, finished intervals stay

A message names the thing, the value with its unit, where it was found, what is allowed, and the
fix. :class:`ConfigError` takes these as separate arguments so that none is forgotten.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

EXIT_DONE = 0
EXIT_BAD_INPUT = 2
EXIT_INFEASIBLE = 3
EXIT_UNAVAILABLE = 4


class IpaEnergyError(Exception):
    """Root of every error this package raises on purpose; ``exit_status`` is the CLI's answer."""

    exit_status: int = 1


class ConfigError(IpaEnergyError):
    """Bad input of any kind: YAML, CSV, trace, option of the command line.

    Args:
        what: what is wrong, with the offending value and its unit.
        where: file, or ``file:line``, or the name of an option; None if there is no such place.
        allowed: what would have been accepted.
        fix: what to do, when ``allowed`` does not say it already.
    """

    exit_status = EXIT_BAD_INPUT

    def __init__(
        self,
        what: str,
        *,
        where: str | Path | None = None,
        allowed: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.what, self.where, self.allowed, self.fix = what, where, allowed, fix
        message = f"{where}: {what}" if where is not None else what
        if allowed is not None:
            message += f"; allowed: {allowed}"
        if fix is not None:
            message += f"; fix: {fix}"
        super().__init__(message)


class InfeasibleError(IpaEnergyError):
    """No plan meets every constraint; the message carries the conflict and its relaxations."""

    exit_status = EXIT_INFEASIBLE


class UnavailableError(IpaEnergyError):
    """Something required is missing here: the message says what, and how to get it."""

    exit_status = EXIT_UNAVAILABLE


class MeterUnavailableError(UnavailableError):
    """An energy meter is absent, dead or denied."""


class LicenceError(UnavailableError):
    """A solver's licence is missing, expired, or too small for the program at hand."""


class ServingError(UnavailableError):
    """A serving backend cannot be reached, did not start, or died."""


class TryAgainError(ServingError):
    """A backend failed at something that may work in a moment: a conflict, a time-out, no room.

    The runner tries again a few times, a little later each time; what runs goes on meanwhile.
    """


class GiveUpError(ServingError):
    """A backend failed at something that trying again does not mend: no right, no such thing.

    The run stops, what it finished stays. Any other :class:`ServingError` counts as one.
    """


def in_words(error: Exception) -> str:
    """Why something cannot be read, for people: what the system or a parser says, not Python.

    The path is left out: messages name it themselves.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}"
    if isinstance(error, json.JSONDecodeError):
        return f"it is not JSON: line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte 0x{error.object[error.start]:02x} is not {error.encoding.upper()}"
    if isinstance(error, AttributeError | TypeError | IndexError):
        return "its values are of other kinds"
    return " ".join(str(error).split())


def require(module: str, *, what: str, extra: str, instead: str | None = None) -> None:
    """See that a library of an extra is installed, before work is done that needs it.

    Args:
        module: what is imported.
        what: what needs it, for the message.
        extra: of ``ipa-energy``, which brings it.
        instead: what works without it.

    Raises:
        UnavailableError: it is not installed.
    """
    if sys.modules.get(module) is None and importlib.util.find_spec(module) is None:
        raise UnavailableError(
            f"{what} needs {module}, which is not installed; fix: pip install {module}"
            f" (or ipa-energy with its extra: pip install 'ipa-energy[{extra}]')"
            + (f", or {instead}" if instead else "")
        )
