"""Who may do what at the stand-in API server, by the token of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import api_errors as errors
from .api_errors import ApiError
from .api_store import Object
from .api_types import Target

ADMIN = "admin"
ANONYMOUS = "system:anonymous"


class Rights:
    """``admin`` may do everything, everybody else nothing; roles are kept and mean nothing.

    Args:
        tokens: bearer token → user; None: everybody is ``admin``.
    """

    def __init__(self, tokens: Mapping[str, str] | None) -> None:
        self._tokens = tokens

    def user(self, authorization: str) -> str:
        """Who sent a request.

        Raises:
            ApiError: 401: a token that nobody has.
        """
        if self._tokens is None:
            return ADMIN
        token = authorization.removeprefix("Bearer ")
        if not token:
            return ANONYMOUS
        if token not in self._tokens:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return self._tokens[token]

    def require(self, user: str, verb: str, target: Target) -> None:
        """Raise 403 unless the user may do it."""
        if user == ADMIN:
            return
        resource = target.resource
        path = "/".join(filter(None, (resource.plural, target.subresource)))
        # a namespace is asked about as if it were in itself
        namespace = target.namespace or (target.name if resource.kind == "Namespace" else "")
        place = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        named = f'{resource.long_name} "{target.name}"' if target.name else resource.long_name
        raise ApiError(
            403,
            "Forbidden",
            f'{named} is forbidden: User "{user}" cannot {verb} resource "{path}" in API group '
            f'"{resource.group}" {place}',
            errors.details(resource, target.name),
        )


def review(user: str, body: Mapping[str, Any], manager: str) -> Object:
    """A SelfSubjectAccessReview answered."""
    entry = {
        "manager": manager,
        "operation": "Update",
        "apiVersion": "authorization.k8s.io/v1",
    }
    return {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "metadata": {"managedFields": [entry]},
        "spec": body["spec"],
        "status": {"allowed": user == ADMIN},
    }
