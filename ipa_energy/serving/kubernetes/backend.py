"""``--backend kubernetes``: what a plan says is written to a cluster, and watched there.

The router's pod is the plane of a live run on one machine (:mod:`.router_pod`), so that requests,
queues, batches, joules, drift and the log go the same way as there. Beside it this brings the
cluster to the plan: at once when something is deployed, then again and again in a thread, since a
rollout takes several steps and others may interfere.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from ipa_energy.config.sections import KubernetesConfig
from ipa_energy.errors import (
    ConfigError,
    GiveUpError,
    IpaEnergyError,
    ServingError,
    TryAgainError,
    UnavailableError,
)
from ipa_energy.meters.power_model import power_model_beside
from ipa_energy.meters.prometheus.server import PrometheusServer
from ipa_energy.pipeline_models import (
    GPU_DEVICE,
    ModelSpec,
    find_variant,
    load_pipeline,
    served_pipeline,
)
from ipa_energy.profile_table.profile_csv import meta_path
from ipa_energy.records import Option, Stage
from ipa_energy.serving.base import Serving, Setting
from ipa_energy.serving.deployment import Deployment, StageState
from ipa_energy.serving.kubernetes.changes import is_ready, look, quantity, token_in
from ipa_energy.serving.kubernetes.cluster_api import ClusterApi, require_reachable
from ipa_energy.serving.kubernetes.manifests import (
    CONTROL,
    EXPORTER,
    Model,
    Rendering,
    as_yaml,
    desired,
    dns_name,
    further_resources,
    server_name,
    service_name,
)
from ipa_energy.serving.kubernetes.pod_joules import Held, PodJoules, with_joules
from ipa_energy.serving.kubernetes.reconciler import Reconciler
from ipa_energy.serving.kubernetes.router_pod import PodJob, RemotePlane, token_of
from ipa_energy.serving.local.backend import LocalBackend, RunClock, deployment_told, serving_of
from ipa_energy.serving.local.plane import Plane
from ipa_energy.serving.local.served_models import ServedModels, payloads_of, reference_of
from ipa_energy.serving.served import Served

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 900.0
"""Until all that a run begins with serves: nodes may have to fetch the images first."""

LOOK_EVERY_S = 0.25
"""While something is not as wanted."""

LONGEST_LOOK_S = 10.0
LONGEST_ROUND, LEAST_ROUND_S = 0.25, 1.0
"""Of an interval a round may take, but at least so long: no decision waits for a hung server."""

MOST_DRAIN_S = 60.0
PACKAGE = "ipa_energy.serving.kubernetes.model_pod"
GPUS = ("nvidia.com/", "amd.com/")
"""Resources of a pod whose model computes on a GPU."""

WEIGHTS_AT = Path("/srv/weights")
"""Where images carry the files that ``weights`` of the YAML names."""


def served(setting: Setting, *, is_stub: bool) -> Serving:
    """See :func:`ipa_energy.serving.kubernetes.kubernetes`."""
    if isinstance(setting.live.prometheus, Path):
        raise ConfigError(
            "a Prometheus on this machine does not reach pods",
            where="--prometheus",
            allowed="the URL of one in the cluster",
        )
    clock = RunClock(setting.resumed_at_s)
    api = connected(setting)
    require_reachable(api)
    rendering, payloads = rendered(setting, api.namespace, is_stub=is_stub)
    name = "kubernetes-stub" if is_stub else "kubernetes"
    models = ServedModels(name, {}, payloads)
    backend = KubernetesBackend(setting, models, clock, Reconciler(api, rendering), rendering)
    return serving_of(backend, setting, models, clock)


def connected(setting: Setting) -> ClusterApi:
    """A connection to the cluster that is meant."""
    return ClusterApi(setting.live.kubeconfig, setting.live.context)


class KubernetesBackend(LocalBackend):
    """:class:`ipa_energy.serving.base.Backend` of pods.

    Args:
        setting: the pipeline and how it is run.
        models: what is sent.
        clock: of the run.
        reconciler: brings the cluster to a plan.
        rendering: of the pipeline.
    """

    def __init__(
        self,
        setting: Setting,
        models: ServedModels,
        clock: RunClock,
        reconciler: Reconciler,
        rendering: Rendering,
    ) -> None:
        self._reconciler, self._rendering = reconciler, rendering
        self._plan: Deployment | None = None
        self._lock = threading.Lock()
        self._told: tuple[object, ...] = ()
        self._failure: GiveUpError | None = None
        self._notes: list[str] = []
        self._is_over, self._is_changed = threading.Event(), threading.Event()
        self._keeper: threading.Thread | None = None
        self._options = {
            stage.name: {server_name(option): option for option in reversed(stage.options)}
            for stage in setting.stages
        }
        self._held = {stage.name: Held() for stage in setting.stages}
        self._counted_s = time.perf_counter()
        self._joules = _joules_of(setting, rendering)
        super().__init__(setting, models, clock)
        # Until here the cluster had all the time it took.
        interval_s = float(setting.config.adaptation_interval)
        reconciler.longest_s = max(LEAST_ROUND_S, LONGEST_ROUND * interval_s)
        if self._plan is not None:  # taken over: kept from now on, not from the next plan on
            self._keep_from_now_on()

    def deploy(self, wanted: Deployment) -> None:
        """Write it to the cluster, and go on until it is so.

        Raises:
            TryAgainError: it cannot be written now; what was wanted before is wanted again.
            GiveUpError: the cluster refuses it.
        """
        with self._lock:
            self._raise_failure()
            before, self._plan = self._plan, wanted
            try:
                self._reconciler.step(wanted)
            except TryAgainError:
                self._plan = before or wanted
                raise
            finally:
                self._is_changed.set()
            self._tell_router(wanted)
        self._keep_from_now_on()

    def _keep_from_now_on(self) -> None:
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._keep, daemon=True, name="reconciler")
            self._keeper.start()

    def wait_ready(self) -> None:
        """Return when all pods serve and the router knows them."""
        end_s = time.perf_counter() + START_TIMEOUT_S
        plan = self._plan or ()
        while unsettled := self._unsettled(plan):
            self._raise_failure()
            if time.perf_counter() > end_s:
                told = "; ".join(f"stage {stage}: {what}" for stage, what in unsettled.items())
                raise ServingError(f"not ready after {START_TIMEOUT_S:g} s: {told}")
            time.sleep(LOOK_EVERY_S)
        super().wait_ready()

    def deployed(self) -> tuple[StageState, ...]:
        """What exists in the cluster, pod by pod."""
        self._raise_failure()
        routed = self.plane.states()
        for state in routed:
            self._options[state.stage][server_name(state.option)] = state.option
        shares = {(state.stage, state.option.label): state.share for state in routed}
        with self._lock:
            self._reconciler.look()
            states = self._reconciler.states(self._plan or self._setting.start, self._options)
        return tuple(
            replace(state, share=shares.get((state.stage, state.option.label))) for state in states
        )

    def collect(self, until_s: float) -> Served:
        """As on one machine, with joules that are scraped where any are; and what happened."""
        found = super().collect(until_s)
        with self._lock:
            held, self._held = self._held, {stage: Held() for stage in self._held}
        if self._joules is not None and found.end_s > found.start_s:
            found = self._scraped(self._joules, found, held)
            found = replace(found, work=self._work(found.replicas))
        notes, self._notes = self._notes, []
        return replace(found, notes=(*found.notes, *notes))

    def _scraped(self, joules: PodJoules, found: Served, held: Mapping[str, Held]) -> Served:
        """The window with what Prometheus has of it; as it is, and why, where that is not all."""
        try:
            zero_s = joules.server.now_s() - self._clock.now_s
            window = zero_s + found.start_s, zero_s + found.end_s
            return with_joules(found, list(held), joules.window(*window, held))
        except IpaEnergyError as error:
            self._note(f"{error}: joules are estimated from busy time")
            return found

    def _count_held(self) -> None:
        """Charge what pods reserve since the last look, by what was seen now."""
        now_s = time.perf_counter()
        seconds, self._counted_s = now_s - self._counted_s, now_s
        for stage, held in self._held.items():
            held.workloads |= {
                one["metadata"]["name"] for one in self._reconciler.live.workloads(stage).values()
            }
            for pod in self._reconciler.live.pods_of(stage):
                node = pod["spec"].get("nodeName")
                limits = pod["spec"]["containers"][0]["resources"]["limits"]
                if node is not None:
                    core_s = float(quantity(limits["cpu"])) * seconds
                    held.core_s[node] = held.core_s.get(node, 0.0) + core_s
                    held.has_gpus = held.has_gpus or any("/" in name for name in limits)
                if is_ready(pod):
                    held.pods.add(pod["metadata"]["name"])

    def watch_by(self, prometheus: Path | str | None) -> None:
        """Say where the figures are."""
        del prometheus  # asked for joules, not for figures
        name = service_name(self._rendering.pipeline, "router")
        logger.warning("figures for Prometheus: port %d of service %s", EXPORTER, name)

    def close(self) -> None:
        """Stop sending, and delete everything that was made."""
        self._is_over.set()
        self._is_changed.set()
        if self._keeper is not None:
            self._keeper.join()
        if hasattr(self, "plane"):
            self.plane.close()
        self._reconciler.longest_s = math.inf
        try:
            self._reconciler.delete_all()
        except ServingError as error:
            labels = ",".join(f"{key}={value}" for key, value in self._rendering.owned.items())
            logger.warning(
                "not everything is deleted: %s; fix: kubectl delete -n %s deploy,svc -l %s",
                *(error, self._rendering.namespace, labels),
            )

    def _found_or_begun(self, models: ServedModels) -> tuple[Plane, bool]:
        """The router's pod, made if it is not there."""
        del models
        try:
            return self._router()
        except BaseException:
            self.close()
            raise

    def _router(self) -> tuple[Plane, bool]:
        setting, end_s = self._setting, time.perf_counter() + START_TIMEOUT_S
        self._reconciler.look()
        told = "its pod is not there"
        if setting.resumed_at_s and (address := self._reconciler.router_address()):
            try:
                plane = RemotePlane(address, CONTROL, self._rendering.token)
                if plane.is_busy:
                    plane.adopt(setting.logged_until_s)
                    self._plan = deployment_told(plane.wanted(), setting.stages)
                    return plane, True
                plane.close()
            except TryAgainError as error:
                logger.info("%s", error)
        self.deploy_quietly(setting.start)
        while time.perf_counter() < end_s:
            address = self._reconciler.router_address()
            if address is not None:
                try:
                    plane = RemotePlane(address, CONTROL, self._rendering.token)
                    plane.serve(self._job())
                    return plane, False
                except (TryAgainError, GiveUpError) as error:
                    told = str(error)
            else:
                told = self._reconciler.router_trouble() or told
            time.sleep(LOOK_EVERY_S)
            self._reconciler.step(setting.start)
        raise ServingError(f"the router is not ready after {START_TIMEOUT_S:g} s: {told}")

    def deploy_quietly(self, wanted: Deployment) -> None:
        """Write it before there is a router to tell."""
        for _ in range(3):
            try:
                self._reconciler.step(wanted)
                return
            except TryAgainError as error:
                logger.warning("%s; again", error)
        self._reconciler.step(wanted)

    def _job(self) -> PodJob:
        setting, config = self._setting, self._setting.config
        limit_s, name = config.drop_limit, self._rendering.pipeline
        return PodJob(
            config.pipeline_name,
            self._rendering.namespace,
            {stage.name: service_name(name, stage.name) for stage in setting.stages},
            self._options,
            power_model_beside(meta_path(config.profile) if config.profile else None),
            math.inf if limit_s is None else limit_s,
            setting.live.lease * config.adaptation_interval,
            latency_sla_s=setting.latency_sla_s,
            energy_sla_j=config.energy_sla_joules,
            exports=self._rendering.exports,
        )

    def _tell_router(self, plan: Deployment) -> None:
        """What counts as wanted from now on, and its batches; only where that is news."""
        wanted = tuple(
            tuple(
                replace(part, server=server)
                for part, server in zip(
                    parts, self._reconciler.servers_of(plan, stage.stage), strict=True
                )
            )
            for stage, parts in zip(plan, self._wanted(plan), strict=True)
        )
        if wanted != self._told:
            self.plane.want(wanted)
            self._told = wanted

    def _keep(self) -> None:
        """Look, compare and write until the end."""
        quiet_s = min(float(self._setting.config.adaptation_interval) / 4, LONGEST_LOOK_S)
        wait_s = LOOK_EVERY_S
        told: dict[str, str] = {}
        while not self._is_over.is_set():
            self._is_changed.wait(wait_s)
            self._is_changed.clear()
            if self._is_over.is_set():
                return
            try:
                with self._lock:
                    plan = self._plan or ()
                    written = self._reconciler.step(plan)
                    self._count_held()
                    self._tell_router(plan)
                    unsettled = self._reconciler.unsettled(plan)
                wait_s = LOOK_EVERY_S if written or unsettled else quiet_s
                news = {k: v for k, v in unsettled.items() if "(" in v and told.get(k) != v}
                for stage, what in news.items():
                    self._note(f"stage {stage}: {what}")
                told = {**told, **news} if unsettled else {}
            except TryAgainError as error:
                wait_s = 4 * LOOK_EVERY_S
                self._note(str(error))
            except GiveUpError as error:
                self._failure = error
                return

    def _note(self, what: str) -> None:
        if what not in self._notes:
            logger.warning("%s", what)
            self._notes.append(what)

    def _unsettled(self, plan: Deployment) -> dict[str, str]:
        with self._lock:
            return self._reconciler.unsettled(plan)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _check_fan_out(setting: Setting, backend: str) -> None:
    """See that every stage is asked once for each request.

    Raises:
        ConfigError: one is not.
    """
    for stage in setting.stages:
        if stage.requests_per_input != 1:
            raise ConfigError(
                f"stage {stage.name} sees {stage.requests_per_input:g} requests for each input",
                where=f"--backend {backend}",
                allowed="1: each request is answered with one",
            )


def rendered(
    setting: Setting, namespace: str, *, is_stub: bool
) -> tuple[Rendering, tuple[bytes, ...]]:
    """How a pipeline is rendered, and what is sent to it.

    Raises:
        ConfigError: it cannot be served so.
    """
    config, backend = setting.config, "kubernetes-stub" if is_stub else "kubernetes"
    _check_fan_out(setting, backend)
    settings = config.kubernetes or KubernetesConfig()
    make = _stub_of(setting) if is_stub else _model_of(setting, settings)
    served = None
    if not is_stub:
        served = served_pipeline(load_pipeline(reference_of(config)), where="--backend kubernetes")
        for stage in setting.stages:
            for option in stage.options:
                find_variant(served, stage.name, option.variant)
    payloads = payloads_of(config, served)
    rendering = Rendering(
        config.pipeline_name,
        setting.live.namespace or settings.namespace or namespace,
        settings,
        make,
        drain_s={stage.name: _drain_s(stage) for stage in setting.stages},
        token=token_of(setting.folder),
        exports=setting.live.exporter_port is not None,
    )
    return rendering, payloads


def dry_run(setting: Setting, *, is_stub: bool) -> str:
    """The objects of what a run begins with, and what it would change; nothing is written."""
    try:
        api = connected(setting)
        require_reachable(api)
        namespace, told = api.namespace, ""
    except (ConfigError, UnavailableError) as error:
        if isinstance(error, ConfigError) and (setting.live.kubeconfig or setting.live.context):
            raise  # what was named is none
        api, namespace, told = None, "default", f"# the cluster was not asked: {error}\n"
    rendering, _ = rendered(replace(setting, folder=None), namespace, is_stub=is_stub)
    rendering = replace(rendering, token="made-for-each-run")
    if api is not None:
        there = token_in(look(api, rendering))
        rendering = replace(rendering, token=there or rendering.token)
        actions, troubles = Reconciler(api, rendering).differences(setting.start)
        lines = [action.told for action in actions] or ["nothing differs"]
        lines += [f"refused: {trouble}" for trouble in troubles]
        told = "".join(f"# {line}\n" for line in lines)
    return told + as_yaml(desired(setting.start, rendering))


def _joules_of(setting: Setting, rendering: Rendering) -> PodJoules | None:
    """Where joules of pods are scraped; None where nobody says."""
    url = setting.live.prometheus
    url = url if isinstance(url, str) else rendering.settings.prometheus_url
    if url is None:
        return None
    name = rendering.pipeline
    prefixes = {stage.name: dns_name(name, stage.name, "0") for stage in setting.stages}
    return PodJoules(PrometheusServer(url), rendering.namespace, prefixes)


def _drain_s(stage: Stage) -> float:
    """How long a batch may take once nobody sends more: twice the slowest one's time."""
    slowest = [s for o in stage.options for s in (o.latency_p99_s, o.latency_avg_s) if s > 0]
    return min(MOST_DRAIN_S, 2.0 * max(slowest, default=1.0))


def _stub_of(setting: Setting) -> Callable[[str, Option], Model]:
    times: dict[tuple[str, str], dict[str, float]] = {}
    for stage in setting.stages:
        for option in stage.options:
            for key in ((stage.name, server_name(option)), (stage.name, option.variant)):
                times.setdefault(key, {}).setdefault(str(option.batch), option.latency_avg_s)

    def make(stage: str, option: Option) -> Model:
        own = (stage, server_name(option))  # with cores that nobody profiled: of others
        return Model(
            f"{PACKAGE}.StubPodModel", {"batch_s": times.get(own, times[stage, option.variant])}
        )

    return make


def _model_of(setting: Setting, settings: KubernetesConfig) -> Callable[[str, Option], Model]:
    config = setting.config
    name = config.pipeline_folder_name or config.pipeline_name

    def make(stage: str, option: Option) -> Model:
        weights = (config.weights or {}).get(option.variant)
        held = further_resources(option.allocation, settings)
        spec = ModelSpec(
            name,
            stage,
            option.variant,
            weights=None if weights is None else str(WEIGHTS_AT / weights.name),
            threads=max(1, round(option.cpu_cores)),
            device=GPU_DEVICE if any(name.startswith(GPUS) for name in held) else "cpu",
        )
        return Model(f"{PACKAGE}.PodModel", asdict(spec))

    return make
