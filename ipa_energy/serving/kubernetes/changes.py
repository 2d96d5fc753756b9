"""From what is to what should be: the differences between a cluster and a plan, and their writes.

::

    look ──▶ Live ──┐
                    ├─ diff ──▶ actions ──▶ act
    desired(plan) ──┘

Every look compares everything that is ours with everything that should be, whoever changed it, so
that it makes no difference where an earlier adapter stopped. What is not labelled as ours is never
touched. Where nothing differs there is no action, and so no write.

A Deployment whose template *and* number of replicas change is written in two steps, the template
first: a controller that gets both at once grows or shrinks the old pods before it replaces them.
Where only cores change, and no more replicas are wanted, the pods are resized in place and the
template stays as it is until something else rolls out (:data:`.manifests.CORES` says so).

A stage that runs several options has a Deployment for each. An option keeps the slot in which it
runs, a new one takes the slot of one that goes; whatever loses replicas for good, or goes, does so
once all that the stage's other options need is there.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from ipa_energy.errors import GiveUpError, ServingError, TryAgainError
from ipa_energy.serving.deployment import Deployment
from ipa_energy.serving.kubernetes.cluster_api import (
    ClusterApi,
    ConflictError,
    Object,
    RefusedError,
    path_to,
)
from ipa_energy.serving.kubernetes.manifests import (
    APPLIED,
    DEPLOYMENTS,
    MANAGED_BY,
    MODEL,
    OWNER,
    ROUTER,
    SERVER,
    SERVICES,
    SLOT,
    STAGE,
    TOKEN,
    Rendering,
    cores_text,
    desired,
    dns_name,
    server_name,
)

logger = logging.getLogger(__name__)

PART = "-part"
"""Ends :data:`.manifests.APPLIED` where only the first of two steps was written."""

UNITS = {"m": "1e-3", "k": "1e3", "M": "1e6", "G": "1e9", "T": "1e12", "": "1"} | {
    f"{letter}i": str(1024**power) for power, letter in enumerate("KMGT", start=1)
}
SIDE_BY_SIDE = 8
"""Stages that are written at a time."""

HOPELESS = ("ImagePullBackOff", "ErrImagePull", "CrashLoopBackOff", "InvalidImageName")
Verb = Literal["create", "change", "resize", "delete"]


@dataclass(frozen=True, slots=True)
class Live:
    """What is ours in the cluster.

    Attributes:
        objects: (kind, name) → object.
        pods: of all stages and the router.
    """

    objects: Mapping[tuple[str, str], Object]
    pods: tuple[Object, ...] = ()

    def workload(self, stage: str) -> Object | None:
        """What makes a stage's pods, of several options' the first's; None before it is there."""
        return next(iter(self.workloads(stage).values()), None)

    def workloads(self, stage: str) -> dict[int, Object]:
        """Slot → what makes the pods of a stage's option, in the order of the slots."""
        found = {}
        for (kind, _), one in self.objects.items():
            labels = one["metadata"].get("labels", {})
            if kind != "Service" and labels.get(STAGE) == dns_name(stage):
                found[int(labels.get(SLOT, 0))] = one
        return dict(sorted(found.items()))

    def pods_of(self, stage: str) -> list[Object]:
        """Pods of a stage that have not ended."""
        return [
            pod
            for pod in self.pods
            if pod["metadata"]["labels"].get(STAGE) == dns_name(stage)
            and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
        ]


@dataclass(frozen=True, slots=True)
class Action:
    """One write.

    Attributes:
        verb: what is done.
        target: the object; to be resized: the pod.
        why: the differences, in words.
        cores: for a pod to be resized.
        foreign: who changed it against our will; empty if nobody did.
    """

    verb: Verb
    target: Object
    why: tuple[str, ...] = ()
    cores: str = ""
    foreign: str = ""

    @property
    def stage(self) -> str:
        """The stage that it is about, as labels say it."""
        return str(self.target["metadata"].get("labels", {}).get(STAGE, ""))

    @property
    def told(self) -> str:
        """In a line."""
        metadata = self.target["metadata"]
        name = f"{self.verb} {self.target.get('kind', 'Pod')} {metadata['name']}"
        by = f" (changed by {self.foreign})" if self.foreign else ""
        return name + (f": {'; '.join(self.why)}" if self.why else "") + by


def look(api: ClusterApi, rendering: Rendering) -> Live:
    """Everything of the pipeline's that is in the cluster."""
    labels = ",".join(f"{key}={value}" for key, value in rendering.owned.items())
    kinds = dict.fromkeys((DEPLOYMENTS, rendering.workload, SERVICES))
    objects = {}
    for kind in kinds:
        for found in api.list(kind, rendering.namespace, labels):
            found["apiVersion"], found["kind"] = kind  # lists of built-in types leave them out
            if not (kind == DEPLOYMENTS and _is_made(found)):
                objects[kind[1], found["metadata"]["name"]] = found
    pods = api.list(("v1", "Pod"), rendering.namespace, labels)
    return Live(objects, tuple(pods))


def _is_made(found: Object) -> bool:
    """True if another object made it: Seldon's Deployments carry the labels of their pods."""
    return any(owner.get("controller") for owner in found["metadata"].get("ownerReferences", ()))


def token_in(live: Live) -> str | None:
    """The word of the router that is there, which is another in each run; None without one."""
    router = live.workload(ROUTER)
    variables = [] if router is None else _container(_template(router)).get("env", [])
    return next((str(one["value"]) for one in variables if one["name"] == TOKEN), None)


def slots_of(live: Live, plan: Deployment) -> dict[str, tuple[int, ...]]:
    """Stage → the slot of each of its options: its own, else one of an option that goes, else new.

    Args:
        live: what is there.
        plan: what is wanted.
    """
    found = {}
    for stage in plan:
        runs = {
            slot: _template(one)["metadata"]["labels"].get(SERVER)
            for slot, one in live.workloads(stage.stage).items()
        }
        slots: list[int | None] = []
        for lane in stage.lanes:
            server = server_name(lane.option)
            own = [slot for slot in runs if runs[slot] == server and slot not in slots]
            slots.append(own[0] if own else None)
        known = dict.fromkeys([*runs, *range(len(runs) + len(slots))])
        others = (slot for slot in known if slot not in slots)
        found[stage.stage] = tuple(next(others) if slot is None else slot for slot in slots)
    return found


def kept_cores(
    live: Live, plan: Deployment, rendering: Rendering, refused: Collection[str] = ()
) -> dict[str, float]:
    """Stage → cores in its template, where pods are resized rather than replaced.

    Args:
        live: what is there.
        plan: what is wanted.
        rendering: how it is rendered.
        refused: stages in which resizing did not work.
    """
    kept = {}
    for stage in plan:
        found = live.workload(stage.stage)
        several = len(stage.parts) > 1 or len(live.workloads(stage.stage)) > 1
        if found is None or several or stage.stage in refused:
            continue
        [wanted] = [
            one for one in desired((stage,), rendering) if one["metadata"]["annotations"].get(MODEL)
        ]
        notes = found["metadata"].get("annotations", {})
        if notes.get(MODEL) != wanted["metadata"]["annotations"][MODEL]:
            continue
        cores = quantity(_container(_template(found))["resources"]["limits"]["cpu"])
        is_same = cores == Decimal(str(stage.option.cpu_cores))
        if is_same or stage.replicas <= replicas_of(found):
            kept[stage.stage] = float(cores)
    return kept


def diff(
    live: Live, wanted: Sequence[Object], plan: Deployment = (), kept: Collection[str] = ()
) -> list[Action]:
    """The writes that make ``live`` what is wanted; empty if it is.

    Args:
        live: what is there.
        wanted: by :func:`.manifests.desired`.
        plan: what every stage runs, for the cores of its pods.
        kept: stages whose pods are resized in place.
    """
    actions = []
    names = set()
    for one in wanted:
        key = (one["kind"], one["metadata"]["name"])
        names.add(key)
        found = live.objects.get(key)
        if found is None:
            actions.append(Action("create", one))
        elif (changed := _change(found, one)) is not None:
            actions.append(changed)
    for stage in plan:
        if stage.stage in kept:
            actions += _resizes(live, stage.stage, cores_text(stage.option.cpu_cores))
    for key, found in live.objects.items():
        if key not in names:
            actions.append(Action("delete", found, ("not wanted any more",)))
    held = {stage.stage for stage in plan if _is_growing(live, stage.stage, wanted, actions)}
    components = {dns_name(stage) for stage in held}
    return [one for one in actions if one.stage not in components or not _takes(live, one)]


def _is_growing(
    live: Live, stage: str, wanted: Sequence[Object], actions: Sequence[Action]
) -> bool:
    """True while a stage of several Deployments lacks something that it is to have."""
    there = live.workloads(stage)
    component = dns_name(stage)
    names = {
        one["metadata"]["name"]
        for one in wanted
        if one["kind"] != "Service" and one["metadata"]["labels"].get(STAGE) == component
    }
    if len({one["metadata"]["name"] for one in there.values()} | names) < 2:
        return False
    writes = [one for one in actions if one.stage == component and one.verb != "resize"]
    if any(one.target["kind"] != "Service" and not _takes(live, one) for one in writes):
        return True
    kept = [one for one in there.values() if one["metadata"]["name"] in names]
    return any(one["kind"] == "Deployment" and not is_rolled_out(one) for one in kept)


def _takes(live: Live, action: Action) -> bool:
    """True if a write does nothing but take pods away."""
    if action.verb == "delete":
        return bool(action.target["kind"] != "Service")
    target = action.target
    found = live.objects.get((target.get("kind", "Pod"), target["metadata"]["name"]))
    if action.verb != "change" or found is None or target["kind"] == "Service":
        return False
    is_rolling = bool(list(_covered(_template(found), _template(target), "")))
    return not is_rolling and replicas_of(target) < replicas_of(found)


def _change(found: Object, wanted: Object) -> Action | None:
    """What has to be written of an object that is there; None if nothing has."""
    why = tuple(differences(found, wanted))
    if not why:
        return None
    notes = found["metadata"].get("annotations", {})
    applied = wanted["metadata"]["annotations"][APPLIED]
    is_ours = notes.get(APPLIED) == applied
    foreign = _others(found) if is_ours else ""
    if wanted["kind"] == "Deployment":
        is_rolling = bool(list(_covered(_template(found), _template(wanted), "")))
        grows = replicas_of(found) != replicas_of(wanted)
        if is_rolling and grows:
            wanted = copy.deepcopy(wanted)
            wanted["spec"]["replicas"] = replicas_of(found)
            wanted["metadata"]["annotations"][APPLIED] = applied + PART
            why = tuple(differences(found, wanted))
            if not why:
                return None
        elif grows and is_replacing(found):
            return None  # the second step comes when the first is done
    return Action("change", wanted, why, foreign=foreign)


def _resizes(live: Live, stage: str, cores: str) -> Iterator[Action]:
    found = live.workload(stage)
    if found is None:
        return
    server = _template(found)["metadata"]["labels"].get(SERVER)
    for pod in live.pods_of(stage):
        metadata = pod["metadata"]
        if metadata["labels"].get(SERVER) != server or metadata.get("deletionTimestamp"):
            continue
        has = _container(pod)["resources"]["limits"]["cpu"]
        if quantity(has) != quantity(cores):
            yield Action("resize", pod, (f"cpu: {has} → {cores}",), cores)


def act(api: ClusterApi, actions: Sequence[Action], live: Live) -> dict[str, ServingError]:
    """Write everything; what failed, by stage (a stage's other writes are left out then).

    Stages are written side by side, each stage's writes one after the other: one that cannot be
    changed, or takes long to be, keeps none of the others from it.
    """
    stages: dict[str, list[Action]] = {}
    for action in actions:
        stages.setdefault(action.stage, []).append(action)
    if not stages:
        return {}
    with ThreadPoolExecutor(min(SIDE_BY_SIDE, len(stages)), "writes") as pool:
        errors = pool.map(lambda mine: _act_in_turn(api, mine, live), stages.values())
        return {stage: e for stage, e in zip(stages, errors, strict=True) if e is not None}


def _act_in_turn(api: ClusterApi, actions: Sequence[Action], live: Live) -> ServingError | None:
    for action in actions:
        try:
            _write(api, action, live)
        except (GiveUpError, TryAgainError) as error:
            logger.warning("stage %s: %s fails: %s", action.stage, action.told, error)
            return error
        level = logging.WARNING if action.foreign else logging.INFO
        logger.log(level, "%s", action.told)
    return None


def _write(api: ClusterApi, action: Action, live: Live, *, dry_run: bool = False) -> None:
    target = action.target
    if action.verb == "delete":
        api.delete(target)
    elif action.verb == "resize":
        api.resize(target, _container(target)["name"], action.cores, OWNER)
    elif action.verb == "create":
        _check_free(api, target)
        if target["kind"] == "SeldonDeployment":
            api.create(target, OWNER, dry_run=dry_run)
        else:
            api.apply(target, OWNER, dry_run=dry_run)
    elif target["kind"] == "SeldonDeployment":
        found = live.objects[target["kind"], target["metadata"]["name"]]
        api.replace(merged(found, target), OWNER, dry_run=dry_run)
    else:
        api.apply(target, OWNER, dry_run=dry_run)


def check(api: ClusterApi, actions: Sequence[Action], live: Live) -> list[str]:
    """What the server would say against these writes, none of which is done."""
    troubles = []
    for action in actions:
        if action.verb in ("create", "change"):
            try:
                _write(api, action, live, dry_run=True)
            except (GiveUpError, TryAgainError) as error:
                troubles.append(f"{action.told}: {error}")
    return troubles


def _check_free(api: ClusterApi, wanted: Object) -> None:
    """See that nobody else's object has the name.

    Raises:
        GiveUpError: one has.
        ConflictError: it is ours after all.
    """
    try:
        found = api.get(path_to(wanted))
    except RefusedError as error:
        if error.status == 404:
            return
        raise
    labels, ours = found["metadata"].get("labels", {}), wanted["metadata"]["labels"]
    name = f"{wanted['kind']} {wanted['metadata']['name']}"
    if labels.get(MANAGED_BY) != OWNER:
        raise GiveUpError(
            f"{name} is there already and not of ipa-energy; fix: another --namespace, or delete it"
        )
    if any(labels.get(key) != value for key, value in ours.items()):
        raise GiveUpError(f"{name} belongs to another pipeline; fix: another --namespace")
    raise ConflictError(f"{name} has just been made")


def differences(found: Any, wanted: Any) -> Iterator[str]:
    """Where an object is not as wanted, a line each; what is not named in it may be anything."""
    for part in ("metadata", "spec"):
        have, want = found.get(part, {}), wanted[part]
        if part == "metadata":
            want = {key: want[key] for key in ("labels", "annotations")}
        yield from _covered(have, want, part)


def _covered(have: Any, want: Any, path: str) -> Iterator[str]:
    if isinstance(want, dict) and isinstance(have, dict):
        for key, value in want.items():
            yield from _covered(have.get(key), value, f"{path}.{key}")
    elif isinstance(want, list) and isinstance(have, list) and len(want) == len(have):
        for index, (one, other) in enumerate(zip(have, want, strict=True)):
            yield from _covered(one, other, f"{path}[{index}]")
    elif have != want and not _is_same_amount(have, want, path) and (want or have):
        yield f"{path.removeprefix('.')}: {_shown(have)} → {_shown(want)}"


def _is_same_amount(have: object, want: object, path: str) -> bool:
    if ".resources." not in path or not (isinstance(have, str) and isinstance(want, str)):
        return False
    return quantity(have) == quantity(want)


def _shown(value: object) -> str:
    text = "nothing" if value is None else f"{value}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def merged(found: Any, wanted: Any) -> Any:
    """An object with what is wanted in it, and everything else as it was found."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        kept = dict(found)
        for key, value in wanted.items():
            kept[key] = merged(found[key], value) if key in found else value
        return kept
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        return [merged(one, other) for one, other in zip(found, wanted, strict=True)]
    return wanted


def quantity(text: str | float) -> Decimal:
    """An amount as Kubernetes writes it: ``500m``, ``2Gi``."""
    whole = str(text)
    number = whole.rstrip("KMGTikm")
    return Decimal(number) * Decimal(UNITS[whole[len(number) :]])


def replicas_of(found: Object) -> int:
    """How many it is to have."""
    spec = found["spec"]
    if "predictors" in spec:
        spec = spec["predictors"][0]["componentSpecs"][0]
    return int(spec.get("replicas", 1))


def _template(found: Object) -> Object:
    spec = found["spec"]
    if "predictors" in spec:
        template: Object = spec["predictors"][0]["componentSpecs"][0]
        return {"metadata": template.get("metadata", {"labels": {}}), "spec": template["spec"]}
    return dict(spec["template"])


def _container(pod: Object) -> Object:
    first: Object = pod["spec"]["containers"][0]
    return first


def _others(found: Object) -> str:
    """Who else wrote to an object's own half."""
    managers = [
        entry["manager"]
        for entry in found["metadata"].get("managedFields", ())
        if entry.get("subresource") != "status"
        and entry["manager"] not in (OWNER, "kube-controller-manager")
    ]
    return ", ".join(dict.fromkeys(managers))


def is_rolled_out(found: Object) -> bool:
    """True if a Deployment has what it should and nothing else, by its counts.

    Its conditions lag behind a write; counts that are 0 are left out by the server.
    """
    status, wanted = found.get("status", {}), replicas_of(found)
    return int(status.get("observedGeneration", 0)) >= int(
        found["metadata"].get("generation", 0)
    ) and all(
        int(status.get(name, 0)) == wanted
        for name in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    )


def is_replacing(found: Object) -> bool:
    """True while a Deployment has pods of an older template, or has not begun to replace them."""
    status = found.get("status", {})
    is_seen = int(status.get("observedGeneration", 0)) >= int(found["metadata"]["generation"])
    updated = int(status.get("updatedReplicas", 0))
    return not is_seen or updated < int(status.get("replicas", 0))


def is_ready(pod: Object) -> bool:
    """True if it takes requests."""
    conditions = pod.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def trouble_of(pod: Object) -> str | None:
    """Why a pod does not come to serve, in the cluster's words; None if nothing is known."""
    status = pod.get("status", {})
    for one in status.get("conditions", ()):
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return f"not scheduled: {one.get('message', one.get('reason', ''))}"
    for container in status.get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") in HOPELESS:
            ended = container.get("lastState", {}).get("terminated", {}).get("reason")
            return " ".join(
                word for word in (waiting["reason"], waiting.get("message"), ended) if word
            )
    return None


def resize_pending(pod: Object) -> str | None:
    """``Deferred`` or ``Infeasible`` where a node has not given a pod the cores it was resized to.

    A node that gives them says nothing of the kind.
    """
    for one in pod.get("status", {}).get("conditions", ()):
        if one["type"] == "PodResizePending" and one["status"] == "True":
            return str(one.get("reason", "Deferred"))
    return None
