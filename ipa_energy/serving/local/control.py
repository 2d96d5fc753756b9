"""What the adapter and a plane say to each other, and the socket that they say it over.

::

    adapter ──{"ask": "want", "with": …}──▶ plane          four bytes of length, then JSON
            ◀──{"answer": …} or {"error": …}──

One question at a time, one answer each. What a question takes and gives is declared in
:data:`.plane.ASKS`; whatever comes in is checked against that and nothing in it is evaluated, so
that a socket which others found a way to write to is no way into either process. The socket lies in
the run folder, ours alone to use: an adapter that was killed finds the pipeline there when it is
back.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ipa_energy.arrays import Floats
from ipa_energy.errors import (
    ConfigError,
    GiveUpError,
    IpaEnergyError,
    MeterUnavailableError,
    ServingError,
    TryAgainError,
    UnavailableError,
)

SOCKET_FILE = "plane.sock"

MAX_FRAME_BYTES = 2**30
LENGTH = struct.Struct(">I")

_ERRORS: Mapping[str, type[IpaEnergyError]] = {
    kind.__name__: kind
    for kind in (
        *(GiveUpError, TryAgainError, ServingError, MeterUnavailableError, UnavailableError),
        *(ConfigError, IpaEnergyError),
    )
}


@cache
def _of(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def dumped(kind: Any, value: object) -> Any:
    """A value of a declared kind as JSON can hold it; NaN and infinity stay what they are."""
    return _of(kind).dump_python(value, mode="python")


def loaded(kind: Any, data: object) -> Any:
    """What :func:`dumped` gave, checked.

    Raises:
        GiveUpError: it is none of that kind.
    """
    try:
        return _of(kind).validate_python(data)
    except ValidationError as error:
        found = error.errors()[0]
        raise GiveUpError(
            f"the other end of the control socket says what is none of its messages: {found['msg']}"
        ) from error


def frame(message: Mapping[str, Any]) -> bytes:
    """A message on the wire."""
    data = json.dumps(message, separators=(",", ":")).encode()
    return LENGTH.pack(len(data)) + data


def parsed(data: bytes) -> Mapping[str, Any]:
    """The message of a frame, without its length.

    Raises:
        GiveUpError: it is none.
    """
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise GiveUpError("the other end of the control socket does not speak JSON") from error
    if not isinstance(message, dict):
        raise GiveUpError("a message over the control socket is no object")
    return message


async def next_message(reader: asyncio.StreamReader) -> Mapping[str, Any]:
    """The next message that comes.

    Raises:
        GiveUpError: it is none.
        asyncio.IncompleteReadError: the other end has hung up.
    """
    size = LENGTH.unpack(await reader.readexactly(LENGTH.size))[0]
    if size > MAX_FRAME_BYTES:
        raise GiveUpError(f"a message of {size} bytes")
    return parsed(await reader.readexactly(size))


def error_in(error: IpaEnergyError) -> dict[str, str]:
    """An error as a message."""
    kind = next(c.__name__ for c in type(error).__mro__ if c.__name__ in _ERRORS)
    return {"error": str(error), "kind": kind}


def raise_error_in(message: Mapping[str, Any]) -> None:
    """Raise the error that a message tells, if it does."""
    if "error" in message:
        raise _ERRORS.get(str(message.get("kind")), GiveUpError)(str(message["error"]))


def packed(table: Floats) -> str:
    """Many numbers as one text, which costs less than one text each."""
    return base64.b64encode(np.ascontiguousarray(table, dtype="<f8").tobytes()).decode()


def unpacked(text: str, columns: int) -> Floats:
    """The table that :func:`packed` made a text of."""
    numbers = np.frombuffer(base64.b64decode(text), dtype="<f8")
    return numbers.astype(np.float64).reshape(-1, columns)


@contextmanager
def _short(folder: Path) -> Iterator[str]:
    """A name for the socket in a folder of any name: the kernel takes 108 characters at most."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_FILE}"
    finally:
        os.close(descriptor)


def connected(folder: Path) -> socket.socket | None:
    """A connection to who serves the run in a folder; None if nobody does."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(folder) as name:
            made.connect(name)
    except OSError:
        made.close()
        return None
    return made


def listening(folder: Path) -> socket.socket | None:
    """A socket in a folder for whoever comes back; None if the disk takes none.

    Raises:
        GiveUpError: somebody listens there.
    """
    other = connected(folder)
    if other is not None:
        other.close()
        raise GiveUpError(
            f"{folder}: the run is being served by another process; fix: another --out, or stop it"
        )
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(made.fileno(), 0o600)  # before it has a name, so that there is no moment without
        (folder / SOCKET_FILE).unlink(missing_ok=True)
        with _short(folder) as name:
            made.bind(name)
        made.listen(4)
    except OSError as error:
        made.close()
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise GiveUpError(f"{folder}: cannot make a socket: {error.strerror}") from error
        return None
    return made


def clear_away(folder: Path) -> None:
    """Take the socket in a folder away, unless somebody else listens there by now."""
    other = connected(folder)
    if other is not None:
        other.close()
        return
    with suppress(OSError):
        (folder / SOCKET_FILE).unlink(missing_ok=True)


def is_ours(peer: socket.socket) -> bool:
    """True if the other end runs under our user, or the superuser's."""
    data = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    user = struct.unpack("3i", data)[1]
    return user in (0, os.geteuid())


class Line:
    """The adapter's end: asks and waits for the answer."""

    def __init__(self, made: socket.socket) -> None:
        self._socket = made

    def ask(self, message: Mapping[str, Any], timeout_s: float | None) -> Mapping[str, Any]:
        """The answer to a message.

        Raises:
            GiveUpError: there is none, in time or at all; or what the other end raised.
        """
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(frame(message))
            answer = parsed(self._read(LENGTH.unpack(self._read(LENGTH.size))[0]))
        except TimeoutError as error:
            raise GiveUpError(
                f"the process that serves the pipeline has not answered in {timeout_s:g} s"
            ) from error
        except (EOFError, OSError) as error:
            raise GiveUpError(
                "the process that serves the pipeline has died, and what it had under way with it;"
                " fix: go on with --resume"
            ) from error
        raise_error_in(answer)
        return answer

    def tell(self, message: Mapping[str, Any]) -> None:
        """Say something that needs no answer; nothing happens if nobody listens any more."""
        with suppress(OSError):
            self._socket.settimeout(1.0)
            self._socket.sendall(frame(message))

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _read(self, count: int) -> bytes:
        if count > MAX_FRAME_BYTES:
            raise EOFError
        data = bytearray()
        while len(data) < count:
            part = self._socket.recv(min(count - len(data), 2**20))
            if not part:
                raise EOFError
            data += part
        return bytes(data)
