"""A folder for results that nobody asked to keep, gone at the end.

It lies where the system puts temporary files, a place that the user did not name. So what goes
wrong there is said with that place and with ``TMPDIR``, which moves it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ipa_energy.errors import ConfigError


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """A new folder, removed with all that is in it.

    Args:
        purpose: what it is for, as in "the yardsticks are simulated".

    Raises:
        ConfigError: it cannot be made, or something cannot be written in it.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="ipa-energy-")
    except OSError as error:
        raise _no_room(purpose, error.strerror or str(error)) from error
    with folder as name:
        try:
            yield Path(name)
        except ConfigError as error:
            if error.where is None or not Path(error.where).is_relative_to(name):
                raise
            raise _no_room(purpose, error.what) from error


def _no_room(purpose: str, why: str) -> ConfigError:
    return ConfigError(
        f"{why} (there {purpose}, in a temporary folder)",
        where=tempfile.gettempdir(),
        fix="free some space there, or set TMPDIR to a folder with room",
    )
