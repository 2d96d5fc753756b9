"""Keeps a cluster at a plan: looks, compares, writes, again and again.

:meth:`Reconciler.step` is one round. Nothing is remembered between two rounds but which stages
cannot be resized in place, so that another adapter goes on where one was killed.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from ipa_energy.errors import GiveUpError, ServingError, TryAgainError
from ipa_energy.records import Option
from ipa_energy.serving.deployment import Deployment, StageState
from ipa_energy.serving.kubernetes.changes import (
    Action,
    Live,
    act,
    check,
    diff,
    is_ready,
    is_rolled_out,
    kept_cores,
    look,
    resize_pending,
    slots_of,
    trouble_of,
)
from ipa_energy.serving.kubernetes.cluster_api import ClusterApi, ConflictError, RefusedError
from ipa_energy.serving.kubernetes.manifests import (
    ROUTER,
    SERVER,
    Object,
    Rendering,
    desired,
    dns_name,
    server_name,
    with_cores,
)

logger = logging.getLogger(__name__)

ROUNDS = 4
"""Of reading anew and planning again, where somebody else is writing as well."""

DEFERRED_S = 30.0
"""For so long a node may put off giving a pod its cores; then the pods are replaced."""

RESIZE = "pods/resize"


class Reconciler:
    """What one pipeline is on one cluster.

    Args:
        api: of the cluster.
        rendering: of the pipeline.
        now_s: the clock.

    Attributes:
        live: what the last round found.
        kept: stage → cores in the template, where pods are resized in place.
        longest_s: that a round may take, whatever the server does; then it is given up.
    """

    def __init__(
        self,
        api: ClusterApi,
        rendering: Rendering,
        *,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._api, self._rendering, self._now_s = api, rendering, now_s
        self.live = Live({})
        self.longest_s = math.inf
        self.kept: Mapping[str, float] = {}
        self._resizes: bool | None = None
        self._refused: dict[str, float] = {}
        self._deferred_s: dict[str, float] = {}

    def step(self, plan: Deployment) -> int:
        """Write whatever is not as ``plan`` has it; how many writes that were.

        Raises:
            GiveUpError: something is refused; everything else has been written.
            TryAgainError: something did not work now.
        """
        self._api.bound(self.longest_s)
        written = 0
        failed: dict[str, ServingError] = {}
        for _ in range(ROUNDS):
            actions = self._compared(plan)
            if not actions:
                return written
            failed = act(self._api, actions, self.live)
            written += len(actions) - len(failed)
            again = [self._is_mended(actions, plan, *one) for one in failed.items()]
            if not any(again):
                break
        _raise_worst(failed)
        return written

    def look(self) -> None:
        """See what is there, and write nothing."""
        self._api.bound(self.longest_s)
        self.live = look(self._api, self._rendering)

    def differences(self, plan: Deployment) -> tuple[list[Action], list[str]]:
        """What :meth:`step` would write, and what the server would say against it."""
        actions = self._compared(plan)
        return actions, check(self._api, actions, self.live)

    def unsettled(self, plan: Deployment) -> dict[str, str]:
        """Stage → what is not as wanted yet, by the last round; empty when all serves."""
        found = {}
        for stage in plan:
            pods = self.live.pods_of(stage.stage)
            there = Counter(_server(pod) for pod in pods if is_ready(pod) and not _is_ending(pod))
            servers = self.servers_of(plan, stage.stage)
            wanted: Counter[str] = Counter()
            for server, lane in zip(servers, stage.lanes, strict=True):
                wanted[server] += lane.replicas
            ready = sum(min(there[server], replicas) for server, replicas in wanted.items())
            workloads = list(self.live.workloads(stage.stage).values())
            is_done = (
                there == wanted
                and stage.replicas == len(pods)
                and len(workloads) == len(servers)
                and all(is_rolled_out(one) for one in workloads if one["kind"] == "Deployment")
            )
            if not is_done:
                troubles = [told for pod in pods if (told := trouble_of(pod))]
                found[stage.stage] = f"{ready} of {stage.replicas} ready" + (
                    f" ({troubles[0]})" if troubles else ""
                )
        return found

    def servers_of(self, plan: Deployment, stage: str) -> tuple[str, ...]:
        """What the servers of a stage call themselves that run what is wanted, option by option."""
        [wanted] = [one for one in plan if one.stage == stage]
        options = [lane.option for lane in wanted.lanes]
        if stage in self.kept:
            options = [with_cores(option, self.kept[stage]) for option in options]
        return tuple(server_name(option) for option in options)

    def states(
        self, plan: Deployment, options: Mapping[str, Mapping[str, Option]]
    ) -> tuple[StageState, ...]:
        """What exists, pod by pod, as the last round found it.

        Args:
            plan: what is wanted, whose option stands for pods that run it at any batch.
            options: stage → name of a server → an option that it runs.
        """
        found: list[StageState] = []
        for stage in plan:
            servers = self.servers_of(plan, stage.stage)
            lanes = list(zip(servers, stage.lanes, strict=True))
            states: dict[str, StageState] = {}
            for pod in self.live.pods_of(stage.stage):
                name, phase = _server(pod), _phase(pod)
                mine = [lane for server, lane in lanes if server == name]
                option = mine[-1].option if mine else options[stage.stage].get(name)
                for lane in mine[:-1]:  # several batch sizes of one server: one after the other
                    there = states.get(lane.option.label)
                    if there is None or there.ready + there.starting < lane.replicas:
                        option = lane.option
                        break
                if option is None:
                    continue
                state = states.setdefault(option.label, StageState(stage.stage, option))
                age_s = (_age_s(pod),) if phase == "starting" else ()
                states[option.label] = replace(
                    state,
                    **{phase: getattr(state, phase) + 1},
                    starting_for_s=state.starting_for_s + age_s,
                )
            found += states.values()
        return tuple(found)

    def delete_all(self) -> None:
        """Take away everything of the pipeline's."""
        self.look()
        _raise_worst(act(self._api, diff(self.live, ()), self.live))

    def router_address(self) -> str | None:
        """Where the router's pod is; None while it is not ready."""
        for pod in self.live.pods_of(ROUTER):
            if is_ready(pod) and not _is_ending(pod):
                return str(pod["status"]["podIP"])
        return None

    def router_trouble(self) -> str | None:
        """Why the router's pod does not become ready; None if nothing is known."""
        told = (trouble_of(pod) for pod in self.live.pods_of(ROUTER))
        return next((trouble for trouble in told if trouble), None)

    def _compared(self, plan: Deployment) -> list[Action]:
        live = self.live = look(self._api, self._rendering)
        for stage in plan:
            if self._refused.get(stage.stage, stage.option.cpu_cores) != stage.option.cpu_cores:
                del self._refused[stage.stage]
        self.kept = {}
        if self._offers_resize():
            self._note_pending(plan)
            self.kept = kept_cores(live, plan, self._rendering, self._refused)
        wanted = desired(plan, self._rendering, self.kept, slots_of(live, plan))
        return diff(live, wanted, plan, self.kept)

    def _offers_resize(self) -> bool:
        if self._resizes is None:
            served = self._api.get("/api/v1").get("resources", ())
            self._resizes = any(one.get("name") == RESIZE for one in served)
        return self._resizes

    def _note_pending(self, plan: Deployment) -> None:
        """Give up on resizing where a node does not do it."""
        for stage in plan:
            pending = {resize_pending(pod) for pod in self.live.pods_of(stage.stage)} - {None}
            if not pending:
                self._deferred_s.pop(stage.stage, None)
                continue
            since_s = self._deferred_s.setdefault(stage.stage, self._now_s())
            if "Infeasible" in pending or self._now_s() - since_s > DEFERRED_S:
                self._refuse(stage.stage, plan, f"the node says {', '.join(map(str, pending))}")

    def _refuse(self, stage: str, plan: Deployment, why: str) -> None:
        [wanted] = [one for one in plan if one.stage == stage]
        if stage not in self._refused:
            logger.warning("stage %s: cores cannot change in place (%s): new pods", stage, why)
        self._refused[stage] = wanted.option.cpu_cores

    def _is_mended(
        self, actions: list[Action], plan: Deployment, component: str, error: ServingError
    ) -> bool:
        """True if another round may do what this one could not."""
        resized = any(action.verb == "resize" and action.stage == component for action in actions)
        if resized and isinstance(error, RefusedError):
            for stage in self.kept:
                if component == dns_name(stage):
                    self._refuse(stage, plan, str(error))
                    return True
        return isinstance(error, ConflictError)


def _raise_worst(failed: Mapping[str, ServingError]) -> None:
    """One error for all: to give up outweighs to try again."""
    if not failed:
        return
    worst = next((e for e in failed.values() if isinstance(e, GiveUpError)), None)
    told = "; ".join(f"stage {stage}: {error}" for stage, error in failed.items())
    raise (GiveUpError if worst is not None else TryAgainError)(told)


def _is_ending(pod: Object) -> bool:
    return pod["metadata"].get("deletionTimestamp") is not None


def _server(pod: Object) -> str:
    return str(pod["metadata"]["labels"].get(SERVER, ""))


def _age_s(pod: Object) -> float:
    """Since the cluster made it, by this machine's clock; none where that is ahead of ours."""
    made = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    return max(0.0, (datetime.now(UTC) - made).total_seconds())


def _phase(pod: Object) -> str:
    if _is_ending(pod):
        return "draining"
    if is_ready(pod):
        return "ready"
    told = trouble_of(pod)
    return "failed" if told and not told.startswith("not scheduled") else "starting"
