"""Whether bytes are a Python file."""

from __future__ import annotations

import warnings


def syntax_error(data: bytes) -> str | None:
    """What keeps ``data`` from being compiled, with its line; None if nothing does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(data, "<target>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except ValueError as error:
        return str(error)
    return None
