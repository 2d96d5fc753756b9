"""Who may do what at the stand-in API server: tokens, roles and role bindings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ipa_energy.testing.cluster import api_errors as errors
from ipa_energy.testing.cluster.api_errors import ApiError
from ipa_energy.testing.cluster.api_store import Object, Store
from ipa_energy.testing.cluster.api_types import Resource, Target

ADMIN = "admin"
ANONYMOUS = "system:anonymous"


class Rights:
    """Decides by what the store's roles say.

    Args:
        store: where the roles are.
        resources: to find them.
        tokens: bearer token → user; None: everybody is ``admin``.
    """

    def __init__(
        self,
        store: Store,
        resources: Mapping[tuple[str, str, str], Resource],
        tokens: Mapping[str, str] | None,
    ) -> None:
        self._store = store
        self._roles, self._bindings = (
            resources["rbac.authorization.k8s.io", "v1", plural]
            for plural in ("roles", "rolebindings")
        )
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

    def why(self, user: str, verb: str, group: str, resource: str, namespace: str) -> str | None:
        """What allows it; None: nothing does."""
        if user == ADMIN:
            return "admin"
        for binding in self._store.all(self._bindings, namespace) if namespace else ():
            if not any(each.get("name") == user for each in binding.get("subjects", ())):
                continue
            role = self._store.get(self._roles, namespace, binding["roleRef"]["name"])
            for rule in (role or {}).get("rules", ()):
                if all(
                    wanted in rule.get(name, ()) or "*" in rule.get(name, ())
                    for name, wanted in (
                        ("apiGroups", group),
                        ("resources", resource),
                        ("verbs", verb),
                    )
                ):
                    return (
                        f'RBAC: allowed by RoleBinding "{binding["metadata"]["name"]}/{namespace}" '
                        f'of Role "{binding["roleRef"]["name"]}" to User "{user}"'
                    )
        return None

    def require(self, user: str, verb: str, target: Target) -> None:
        """Raise 403 unless the user may do it."""
        resource = target.resource
        path = "/".join(filter(None, (resource.plural, target.subresource)))
        # a namespace is asked about as if it were in itself
        namespace = target.namespace or (target.name if resource.kind == "Namespace" else "")
        if self.why(user, verb, resource.group, path, namespace) is not None:
            return
        place = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        named = f'{resource.long_name} "{target.name}"' if target.name else resource.long_name
        raise ApiError(
            403,
            "Forbidden",
            f'{named} is forbidden: User "{user}" cannot {verb} resource "{path}" in API group '
            f'"{resource.group}" {place}',
            errors.details(resource, target.name),
        )


def review(rights: Rights, user: str, body: Mapping[str, Any], manager: str) -> Object:
    """A SelfSubjectAccessReview answered."""
    asked = body["spec"].get("resourceAttributes", {})
    resource = "/".join(filter(None, (asked.get("resource"), asked.get("subresource"))))
    why = rights.why(
        user, asked.get("verb", ""), asked.get("group", ""), resource, asked.get("namespace", "")
    )
    status: Object = {"allowed": why is not None}
    if why and why != "admin":
        status["reason"] = why
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
        "status": status,
    }
