"""The body of a request to the stand-in API server, as JSON or YAML."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from ipa_energy.testing.cluster import api_errors as errors
from ipa_energy.testing.cluster.api_errors import ApiError
from ipa_energy.testing.cluster.api_types import Resource
from ipa_energy.testing.cluster.api_write_rules import APPLY

JSON, YAML = "application/json", "application/yaml"
SERVED = (JSON, YAML, "application/vnd.kubernetes.protobuf")


def read_body(
    sent: bytes, content_type: str, resource: Resource | None = None, *, is_strict: bool = False
) -> Any:
    """What a body says.

    Args:
        sent: the body.
        content_type: what it is said to be.
        resource: what it is to be an object of; None: it is none, but a patch or an option.
        is_strict: a field that is there twice is refused.

    Raises:
        ApiError: 400 or 415.
    """
    if resource is not None and content_type not in (JSON, YAML):
        raise unsupported(SERVED)
    text = sent.decode()
    try:
        if content_type in (APPLY, YAML) and not text.lstrip().startswith(("{", "[")):
            return yaml.load(text, Loader=_Yaml)
        return _json(text, resource if is_strict else None)
    except (ValueError, yaml.YAMLError) as error:
        what = resource.kind if resource else "object"
        raise errors.bad_request(
            f"the object provided is unrecognized (must be of type {what}): couldn't get "
            "version/kind; json parse error: invalid character "
            f"'{text[1:2]}' looking for beginning of object key string ({text[:30]})"
        ) from error


def _json(text: str, strict: Resource | None) -> Any:
    twice: list[str] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in found]
        twice.extend(name for name in set(names) if names.count(name) > 1)
        return dict(found)

    made = json.loads(text, object_pairs_hook=pairs)
    if twice and strict is not None:
        raise errors.bad_request(
            f'{strict.kind} in version "{strict.version}" cannot be handled as a '
            f'{strict.kind}: strict decoding error: duplicate field "spec.{twice[0]}"'
        )
    return made


def unsupported(known: tuple[str, ...]) -> ApiError:
    """415: of another type than these."""
    text = (
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(known)
    )
    return ApiError(415, "UnsupportedMediaType", text)


class _Yaml(yaml.SafeLoader):
    """Also reads the bare word y as true, as the server does."""


_Yaml.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:y|Y|n|N)$"), list("yYnN"))
_Yaml.add_constructor(
    "tag:yaml.org,2002:bool",
    lambda loader, node: str(node.value).lower() in ("y", "yes", "true", "on"),
)
