"""What the API server answers when it refuses: a ``Status`` object and its HTTP code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .api_types import Resource

FIELD_REASONS = {
    "Invalid value": "FieldValueInvalid",
    "Required value": "FieldValueRequired",
    "Forbidden": "FieldValueForbidden",
    "Unsupported value": "FieldValueNotSupported",
}


class ApiError(Exception):
    """A refusal.

    Attributes:
        code: HTTP code.
        status: the body, a ``Status`` object; a string where the server sends plain text.
        headers: beside the usual ones.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: dict[str, Any] | None = None,
        *,
        headers: dict[str, str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.headers = headers or {}
        self.status: dict[str, Any] | str = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata or {},
            "status": "Failure",
            "message": message,
            **({"reason": reason} if reason else {}),
            **({} if details is None else {"details": details}),
            "code": code,
        }


class PageNotFoundError(ApiError):
    """A path that leads nowhere: plain text."""

    def __init__(self) -> None:
        super().__init__(404, "", "404 page not found\n")
        self.status = "404 page not found\n"


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that is wrong with a field."""

    field: str
    what: str
    text: str = ""
    reason: str = ""

    @property
    def message(self) -> str:
        """E.g. ``Invalid value: -1: must be greater than or equal to 0``."""
        return f"{self.what}: {self.text}" if self.text else self.what

    def as_json(self) -> dict[str, str]:
        """As ``details.causes`` has it."""
        reason = self.reason or FIELD_REASONS[self.what]
        return {"reason": reason, "message": self.message, "field": self.field}


def details(resource: Resource, name: str = "", *, kind: str = "") -> dict[str, Any]:
    """What a refusal is about."""
    return {
        **({"name": name} if name else {}),
        **({"group": resource.group} if resource.group else {}),
        "kind": kind or resource.plural,
    }


def bad_request(message: str) -> ApiError:
    """400."""
    return ApiError(400, "BadRequest", message)


def not_found(resource: Resource, name: str) -> ApiError:
    """404 of an object."""
    what = f'{resource.long_name} "{name}" not found'
    return ApiError(404, "NotFound", what, details(resource, name))


def already_exists(resource: Resource, name: str) -> ApiError:
    """409 of a create."""
    what = f'{resource.long_name} "{name}" already exists'
    return ApiError(409, "AlreadyExists", what, details(resource, name))


def conflict(long_name: str, name: str, why: str, about: dict[str, Any]) -> ApiError:
    """409 of a write."""
    what = f'Operation cannot be fulfilled on {long_name} "{name}": {why}'
    return ApiError(409, "Conflict", what, about)


def stale(resource: Resource, name: str) -> ApiError:
    """409: somebody else has written meanwhile."""
    why = (
        "the object has been modified; "
        "please apply your changes to the latest version and try again"
    )
    return conflict(resource.long_name, name, why, details(resource, name))


def invalid(long_kind: str, name: str, causes: Sequence[Cause], about: dict[str, Any]) -> ApiError:
    """422 of fields."""
    texts = [f"{cause.field}: {cause.message}" for cause in causes]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    about = {**about, "causes": [cause.as_json() for cause in causes]}
    return ApiError(422, "Invalid", f'{long_kind} "{name}" is invalid: {text}', about)


def invalid_object(resource: Resource, name: str, causes: Sequence[Cause]) -> ApiError:
    """422 of an object."""
    about = details(resource, name, kind=resource.kind)
    return invalid(resource.long_kind, name, causes, about)


def invalid_options(kind: str, cause: Cause) -> ApiError:
    """422 of a request's query."""
    about = {"group": "meta.k8s.io", "kind": kind}
    return invalid(f"{kind}.meta.k8s.io", "", [cause], about)


def internal(message: str) -> ApiError:
    """500 without a reason."""
    return ApiError(500, "", message)
