"""What kinds of objects the stand-in API server has, in the words of its discovery."""

from __future__ import annotations

from collections.abc import Mapping

from .api_store import Object
from .api_types import Resource

VERSION = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.0-stand-in",
    "platform": "python",
}

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")

Resources = Mapping[tuple[str, str, str], Resource]


def discovery(resources: Resources, path: str, address: str) -> Object | None:
    """What there is, as clients ask for it; None: the path is none of discovery."""
    groups = sorted({key[:2] for key in resources if key[0]})
    listed = [_group(group, version) for group, version in groups]
    found: Object | None = None
    match path.strip("/").split("/"):
        case ["version"]:
            found = VERSION
        case ["api"]:
            here = {"clientCIDR": "0.0.0.0/0", "serverAddress": address}
            found = {
                "kind": "APIVersions",
                "versions": ["v1"],
                "serverAddressByClientCIDRs": [here],
            }
        case ["apis"]:
            found = {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        case ["apis", group] if any(group == each for each, _ in groups):
            group_found = next(each for each in listed if each["name"] == group)
            found = {"kind": "APIGroup", "apiVersion": "v1", **group_found}
        case ["api", "v1"]:
            found = _resources_of(resources, "", "v1")
        case ["apis", group, version] if (group, version) in groups:
            found = _resources_of(resources, group, version)
    return found


def _resources_of(resources: Resources, group: str, version: str) -> Object:
    listed: list[Object] = []
    for (its_group, its_version, _), each in sorted(resources.items()):
        if (its_group, its_version) != (group, version):
            continue
        entry: Object = {
            "name": each.plural,
            "singularName": each.kind.lower(),
            "namespaced": each.namespaced,
            "kind": each.kind,
            "verbs": _verbs(each),
        }
        if each.short:
            entry["shortNames"] = list(each.short)
        if each.kind in ("Pod", "Service", "Deployment", "ReplicaSet"):
            entry["categories"] = ["all"]
        listed.append(entry)
        listed += [_subresource(each, name) for name in sorted(each.subresources)]
    head = {"kind": "APIResourceList", "groupVersion": f"{group}/{version}".lstrip("/")}
    return {**head, **({"apiVersion": "v1"} if group else {}), "resources": listed}


def _verbs(resource: Resource) -> list[str]:
    if resource.custom:
        return ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]
    return [verb for verb in ALL_VERBS if (resource.kind, verb) != ("Namespace", ALL_VERBS[2])]


def _group(group: str, version: str) -> Object:
    entry = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [entry], "preferredVersion": entry}


def _subresource(resource: Resource, name: str) -> Object:
    entry: Object = {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": {"scale": "Scale", "binding": "Binding"}.get(name, resource.kind),
        "verbs": ["create"] if name == "binding" else ["get", "patch", "update"],
    }
    if name == "scale":
        entry |= {"group": "autoscaling", "version": "v1"}
    return entry
