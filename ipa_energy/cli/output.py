"""Text tables and JSON on stdout, and what happens to an answer that cannot be written down."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ipa_energy.errors import EXIT_DONE, ConfigError

if TYPE_CHECKING:
    from ipa_energy.report.page import Page


class LastingStream:
    """Standard error whose reader may go away, or whose disk may be full.

    What is said then is lost; what is being done is not.

    Args:
        stream: the real one, which has every other attribute.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or lose it."""
        try:
            return self._stream.write(text)
        except OSError:
            self._lose()
            return len(text)

    def flush(self) -> None:
        """Flush, or lose it."""
        try:
            self._stream.flush()
        except OSError:
            self._lose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self) -> None:
        with suppress(OSError, ValueError):  # a stream of a test has no descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def write_beside(write: Callable[[], object]) -> int:
    """Write files of an answer that is printed as well, whatever becomes of them.

    Returns:
        The exit status.
    """
    try:
        write()
    except ConfigError as error:
        print(f"ipa-energy: error: {error}; the answer itself is printed", file=sys.stderr)
        return error.exit_status
    return EXIT_DONE


@contextmanager
def filtered(passes: logging.Filter | Callable[[logging.LogRecord], bool]) -> Iterator[None]:
    """Every message that is logged meanwhile goes through a filter."""
    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(passes)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(passes)


def say_where(status: int, **places: Path | None) -> None:
    """Say where what was asked for was written, if it was."""
    for label, path in places.items():
        if path is not None and status == EXIT_DONE:
            print(f"{label.replace('_', ' ')}: {path}")


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON object on stdout; a NaN in it is a defect and raises."""
    print(json.dumps(document, allow_nan=False, indent=2))


def terminal_width() -> int | None:
    """Characters of a line where standard output is a terminal; None elsewhere: no limit."""
    try:
        is_terminal = sys.stdout.isatty()
    except ValueError:  # closed
        return None
    return shutil.get_terminal_size().columns if is_terminal else None


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Texts in columns, as wide as the terminal at most."""
    from ipa_energy.tables import columns, table_text

    return table_text(columns(header, rows), width=terminal_width())


def write_as_asked(page: Page, args: argparse.Namespace) -> None:
    """A page as ``--html`` and its figures as ``--png``, whichever was given."""
    from ipa_energy.report.image import write_images
    from ipa_energy.report.page import write_page

    if args.html is not None:
        write_page(page, args.html)
    if args.png is not None:
        write_images(page.figures, args.png)
