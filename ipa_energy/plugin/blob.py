"""The bytes of one file: git's name for them, and their lines with whatever ends them."""

from __future__ import annotations

import hashlib


def git_blob_hash(data: bytes) -> str:
    """The 40 hex digits under which git stores ``data`` (``git hash-object``); needs no git."""
    digest = hashlib.sha1(b"blob %d\0" % len(data), usedforsecurity=False)
    digest.update(data)
    return digest.hexdigest()


def split_lines(data: bytes) -> list[bytes]:
    """The lines with their ends; joined they are ``data`` again. Lines end in LF, as for git."""
    lines = data.split(b"\n")
    last = lines.pop()
    ended = [line + b"\n" for line in lines]
    return [*ended, last] if last else ended


def line_end(line: bytes) -> bytes:
    r"""``\r\n``, ``\n``, or nothing for a last line without an end."""
    if line.endswith(b"\r\n"):
        return b"\r\n"
    return b"\n" if line.endswith(b"\n") else b""


def without_end(line: bytes) -> bytes:
    """The line's text alone."""
    return line[: len(line) - len(line_end(line))]
