"""What the fields of an object are: which are known, of what type, which lists have keys.

The built-in types come from the models of the official client, those of a custom resource from the
schema of its definition. Which lists are merged by a key stands in neither, so it stands here, for
the types that this project writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

KEYED = {
    ("V1PodSpec", "containers"): ("name",),
    ("V1PodSpec", "initContainers"): ("name",),
    ("V1PodSpec", "volumes"): ("name",),
    ("V1PodSpec", "imagePullSecrets"): ("name",),
    ("V1PodSpec", "topologySpreadConstraints"): ("topologyKey", "whenUnsatisfiable"),
    ("V1Container", "env"): ("name",),
    ("V1Container", "ports"): ("containerPort", "protocol"),
    ("V1Container", "volumeMounts"): ("mountPath",),
    ("V1ServiceSpec", "ports"): ("port", "protocol"),
    ("V1PodStatus", "podIPs"): ("ip",),
    ("V1ObjectMeta", "ownerReferences"): ("uid",),
    ("V1ObjectMeta", "managedFields"): (),
}
"""Lists that are merged by key: (model, field) → the fields that make the key."""

SETS = {("V1ObjectMeta", "finalizers")}
ATOMIC_MODELS = {"V1LabelSelector", "V1NodeSelector", "V1ObjectReference", "V1ObjectFieldSelector"}
ATOMIC_FIELDS = {("V1ServiceSpec", "selector"), ("V1PodSpec", "nodeSelector")}
KEY_DEFAULTS = {"protocol": "TCP"}
QUANTITIES = {"limits", "requests", "capacity", "allocatable", "hard", "used"}
INT_OR_STRING = {"maxSurge", "maxUnavailable", "minAvailable", "targetPort", "port"}
GO_SCALARS = {
    "str": "string",
    "int": "int32",
    "bool": "bool",
    "float": "float64",
    "datetime": "time",
}


@dataclass(frozen=True)
class FieldType:
    """The type of a value.

    Attributes:
        kind: "struct", "map", "list" or "scalar"; "any" takes whatever comes.
        name: of a struct, as the client calls it (``V1PodSpec``); of a scalar, as Go does; ""
            for a type of a custom resource.
        keys: the fields by which a list is merged; none: it is replaced as a whole.
        is_set: a list whose elements are their own keys.
        is_atomic: one owner for all of it.
    """

    kind: str
    name: str = ""
    keys: tuple[str, ...] = ()
    is_set: bool = False
    is_atomic: bool = False
    element_spec: str = ""
    schema: Mapping[str, Any] | None = None

    @cached_property
    def fields(self) -> dict[str, FieldType]:
        """Fields of a struct by their JSON names."""
        if self.schema is not None:
            return {
                name: _of_schema(each) for name, each in self.schema.get("properties", {}).items()
            }
        model = _model(self.name)
        return {
            model.attribute_map[name]: _of_spec(spec, self.name, model.attribute_map[name])
            for name, spec in model.openapi_types.items()
        }

    @cached_property
    def element(self) -> FieldType:
        """What a list or a map is made of."""
        if self.schema is None:
            return _of_spec(self.element_spec, "", self.name)
        inside = self.schema.get("items") or self.schema.get("additionalProperties") or {}
        return _of_schema(inside if isinstance(inside, dict) else {})

    def child(self, name: str) -> FieldType | None:
        """Type of a field or of a map's value; None: there is no such field."""
        if self.kind == "struct":
            return self.fields.get(name)
        return self.element if self.kind == "map" else ANY

    @property
    def go_name(self) -> str:
        """Name of a struct in the server's messages."""
        return re.sub(r"^V\d+", "", self.name)


ANY = FieldType("any")


def _model(name: str) -> Any:
    from kubernetes.client import models

    return getattr(models, name)


@cache
def built_in(model: str) -> FieldType:
    """The type of a built-in object, e.g. ``V1Deployment``."""
    return FieldType("struct", model, is_atomic=model in ATOMIC_MODELS)


def custom(schema: Mapping[str, Any]) -> FieldType:
    """The type of a custom resource from its ``openAPIV3Schema``."""
    inside = dict(schema.get("properties", {}))
    root = FieldType("struct", schema={**schema, "properties": inside})
    fields = {
        "apiVersion": _scalar("string"),
        "kind": _scalar("string"),
        "metadata": built_in("V1ObjectMeta"),
        **{name: _of_schema(each) for name, each in inside.items()},
    }
    root.__dict__["fields"] = fields  # what the cached property would have worked out, and more
    return root


def _scalar(name: str, **more: Any) -> FieldType:
    return FieldType("scalar", name, **more)


@cache
def _of_spec(spec: str, model: str, name: str) -> FieldType:
    """Type of the field ``name`` of a model, from the client's notation."""
    place = (model, name)
    if match := re.fullmatch(r"[Ll]ist\[(.*)\]", spec):
        keys = KEYED.get(place, ("type",) if name == "conditions" else ())
        is_set = place in SETS
        return FieldType(
            "list",
            name,
            keys=keys,
            is_set=is_set,
            is_atomic=not keys and not is_set,
            element_spec=match[1],
        )
    if match := re.fullmatch(r"[Dd]ict[\[(]str, *(.*)[\])]", spec):
        inside = "quantity" if name in QUANTITIES else match[1]
        return FieldType("map", name, is_atomic=place in ATOMIC_FIELDS, element_spec=inside)
    if spec in ("quantity", "datetime", *GO_SCALARS):
        return _scalar("int64" if name in INT64 else GO_SCALARS.get(spec, spec))
    if spec == "object" and name in INT_OR_STRING:
        return _scalar("intstr")
    return ANY if spec in ("object", "bytes") else built_in(spec)


INT64 = {"terminationGracePeriodSeconds", "observedGeneration", "generation"}


def _of_schema(schema: Mapping[str, Any]) -> FieldType:
    """Type of a value of a custom resource."""
    if schema.get("x-kubernetes-preserve-unknown-fields") or schema.get(
        "x-kubernetes-int-or-string"
    ):
        return FieldType("any", schema=schema)
    match schema.get("type"):
        case "object" if "properties" in schema:
            return FieldType("struct", schema=schema)
        case "object":
            return FieldType("map", schema=schema)
        case "array":
            keys = tuple(schema.get("x-kubernetes-list-map-keys", ()))
            return FieldType("list", keys=keys, is_atomic=not keys, schema=schema)
        case str(name):
            return _scalar(name, schema=schema)
        case _:
            return ANY


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object that the server has."""

    group: str
    version: str
    plural: str
    kind: str
    short: tuple[str, ...] = ()
    namespaced: bool = True
    subresources: tuple[str, ...] = ()
    type: FieldType = ANY
    custom: bool = False
    generation: bool = False

    @property
    def api_version(self) -> str:
        """As objects have it: ``apps/v1``, ``v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def long_name(self) -> str:
        """As messages about one object have it: ``deployments.apps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def long_kind(self) -> str:
        """As messages about invalid objects have it: ``Deployment.apps``."""
        return f"{self.kind}.{self.group}" if self.group else self.kind


@dataclass(frozen=True, slots=True)
class Target:
    """What a path leads to."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


BUILT_IN = """
v1 namespaces Namespace ns - status
v1 nodes Node no - status
v1 pods Pod po namespaced status,resize,binding generation
v1 services Service svc namespaced status
v1 configmaps ConfigMap cm namespaced
v1 secrets Secret - namespaced
v1 serviceaccounts ServiceAccount sa namespaced
v1 events CoreV1Event ev namespaced
v1 resourcequotas ResourceQuota quota namespaced status
apps/v1 deployments Deployment deploy namespaced status,scale generation
apps/v1 replicasets ReplicaSet rs namespaced status,scale generation
discovery.k8s.io/v1 endpointslices EndpointSlice - namespaced - generation
policy/v1 poddisruptionbudgets PodDisruptionBudget pdb namespaced status generation
networking.k8s.io/v1 networkpolicies NetworkPolicy netpol namespaced - generation
rbac.authorization.k8s.io/v1 roles Role - namespaced
rbac.authorization.k8s.io/v1 rolebindings RoleBinding - namespaced
rbac.authorization.k8s.io/v1 clusterroles ClusterRole - -
rbac.authorization.k8s.io/v1 clusterrolebindings ClusterRoleBinding - -
coordination.k8s.io/v1 leases Lease - namespaced
apiextensions.k8s.io/v1 customresourcedefinitions CustomResourceDefinition crd - status generation
"""


def built_in_resources() -> dict[tuple[str, str, str], Resource]:
    """The resources that are there without a definition, by group, version and plural."""
    made = {}
    for line in BUILT_IN.strip().splitlines():
        api_version, plural, kind, short, scope, *rest = [*line.split(), "", ""]
        group, _, version = api_version.rpartition("/")
        resource = Resource(
            group=group,
            version=version,
            plural=plural,
            kind=kind.removeprefix("CoreV1"),
            short=() if short == "-" else (short,),
            namespaced=scope == "namespaced",
            subresources=tuple(each for each in rest[0].split(",") if each not in ("", "-")),
            type=ANY if kind == "CoreV1Event" else built_in(f"V1{kind}"),
            generation="generation" in rest,
        )
        made[group, version, plural] = resource
    return made


def defined(definition: Mapping[str, Any]) -> Resource:
    """The resource that a CustomResourceDefinition defines."""
    spec, names = definition["spec"], definition["spec"]["names"]
    version = next(each for each in spec["versions"] if each.get("storage"))
    schema = version.get("schema", {}).get("openAPIV3Schema", {})
    return Resource(
        group=spec["group"],
        version=version["name"],
        plural=names["plural"],
        kind=names["kind"],
        short=tuple(names.get("shortNames", ())),
        namespaced=spec["scope"] == "Namespaced",
        subresources=tuple(version.get("subresources", {})),
        type=custom(schema),
        custom=True,
        generation=True,
    )


def established(definition: dict[str, Any], now: str) -> dict[str, Any]:
    """The status of a definition whose kind is there."""
    conditions = [
        {
            "type": kind,
            "status": "True",
            "lastTransitionTime": now,
            "reason": reason,
            "message": why,
        }
        for kind, reason, why in (
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        )
    ]
    names = definition["spec"]["names"]
    return {**definition["status"], "conditions": conditions, "acceptedNames": names}
