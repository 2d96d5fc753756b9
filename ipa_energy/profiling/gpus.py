"""The GPUs a profile runs on: which ones, what share of one a replica gets, and who enforces it.

A replica sees its GPU and no other (``CUDA_VISIBLE_DEVICES``), by the UUID under which NVML counts
its joules, so that the GPU that works is the GPU that is measured.

A *share* below 1 is worth a row only if something holds a replica to it. Processes that take turns
on a GPU are held to nothing: one alone gets all of it. NVIDIA's MPS holds each to a share of the
multiprocessors (``CUDA_MPS_ACTIVE_THREAD_PERCENTAGE``), and CUDA then reports that many of them. So
a share is believed after a process that was given it saw no more; a share that changes nothing is
refused. MIG slices share one energy counter and are refused.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ipa_energy.errors import ConfigError, UnavailableError
from ipa_energy.measuring.child_process import ChildEndedError, ModuleProcess
from ipa_energy.meters.base import MeterFault
from ipa_energy.meters.nvml_device import VISIBLE, describe_gpu, load_nvml, selected_gpus

MPS_SHARE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
MPS_STEP = 2
"""Multiprocessors by which MPS may round a share."""

REPLICA_MODULE = "ipa_energy.profiling.replica_main"
"""What runs in the processes that see a GPU, and in those of replicas on CPUs."""

PROBE_TIMEOUT_S = 120.0
"""Importing PyTorch and making a CUDA context takes seconds, on a cold disk many."""


@dataclass(frozen=True, slots=True)
class GpuSlot:
    """What one replica has of a GPU.

    Attributes:
        uuid: the GPU.
        share: of it, above 0 and at most 1.
    """

    uuid: str
    share: float

    @property
    def environ(self) -> dict[str, str]:
        """The environment that gives a process this slot, and nothing beside it."""
        wanted = {VISIBLE: self.uuid}
        if self.share < 1:
            wanted[MPS_SHARE] = f"{100 * self.share:g}"
        return wanted


NO_GPU = {VISIBLE: ""}
"""The environment of a replica that is to run on CPUs alone."""


@dataclass(frozen=True, slots=True)
class GpuPool:
    """GPUs of one model, as many as the largest entry needs.

    Attributes:
        uuids: of each.
        name: their model's name.
        meta: what the meta file says of them.
    """

    uuids: tuple[str, ...]
    name: str
    meta: Mapping[str, Any]

    @property
    def hardware(self) -> str:
        """The label of their rows: the model's name in lower case, ``nvidia-h100-80gb-hbm3``."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-") or "gpu"

    def slots(self, share: float, replicas: int) -> tuple[GpuSlot, ...]:
        """A slot for each replica, one GPU filled after the other.

        Raises:
            ConfigError: they do not fit.
        """
        each = _fit_on_one(share)
        if replicas > each * len(self.uuids):
            raise _too_many(share, replicas, len(self.uuids))
        return tuple(GpuSlot(self.uuids[number // each], share) for number in range(replicas))


def check_shares(shares: Sequence[float]) -> None:
    """Refuse what is no share of a GPU; 0 is: an entry on CPUs alone.

    Raises:
        ConfigError: a share is below 0 or above 1.
    """
    for share in shares:
        if not 0 <= share <= 1:
            raise ConfigError(
                f"a GPU share of {share:g}",
                where="--gpu",
                allowed="above 0 and at most 1 of one GPU, or 0 for entries on CPUs alone",
            )


def find_gpus(
    shares: Sequence[float], replicas: Sequence[int], environ: Mapping[str, str] = os.environ
) -> GpuPool:
    """The GPUs that the entries need, of those that ``CUDA_VISIBLE_DEVICES`` leaves.

    Args:
        shares: at least one above 0.
        replicas: numbers of replicas that work at once.
        environ: the environment.

    Raises:
        ConfigError: the entries need more GPUs than there are, or these are of several models.
        MeterUnavailableError: there is no driver, no GPU, no right to use it, or it is split into
            MIG slices.
    """
    nvml = load_nvml()
    try:
        there = selected_gpus(nvml, None, environ)
    except MeterFault as fault:
        raise _for_profiles(fault) from fault
    used = [share for share in shares if share > 0]
    needed = max(math.ceil(max(replicas) / _fit_on_one(share)) for share in used)
    if needed > len(there):
        raise _too_many(max(used), max(replicas), len(there))
    chosen = there[:needed]
    models = sorted({gpu.name for gpu in chosen})
    if len(models) > 1:
        raise ConfigError(
            f"the GPUs are of several models: {', '.join(models)}",
            where=VISIBLE,
            allowed="GPUs of one model, whose rows can be compared",
            fix=f"choose them by UUID in {VISIBLE} (nvidia-smi -L)",
        )
    meta = {"name": chosen[0].name, "count": needed, **describe_gpu(nvml, chosen[0])}
    return GpuPool(tuple(gpu.uuid for gpu in chosen), chosen[0].name, meta)


def probe_gpus(pool: GpuPool, pipeline: str, shares: Sequence[float]) -> dict[str, Any]:
    """What the pipeline's library sees of the GPUs, each share tried.

    Args:
        pool: the GPUs.
        pipeline: folder, file or module of the pipeline.
        shares: those that entries use.

    Returns:
        name, multiprocessors, memory and versions as the library tells them; ``shares``: share →
        multiprocessors seen, where there are shares below 1.

    Raises:
        UnavailableError: the library finds no GPU or another one than NVML counts, or nothing
            enforces a share.
    """
    whole: dict[str, Any] = {}
    for uuid in pool.uuids:
        whole = _probe(GpuSlot(uuid, 1.0), pipeline)
        seen = whole.pop("uuid", None)
        if seen is not None and seen.removeprefix("GPU-") != uuid.removeprefix("GPU-"):
            raise UnavailableError(
                f"CUDA runs on the GPU {seen}, and NVML counts the joules of {uuid}"
            )
    parts = sorted({share for share in shares if 0 < share < 1})
    if parts:
        counted = {share: _enforced(pool.uuids[0], share, pipeline, whole) for share in parts}
        whole["shares"] = {f"{share:g}": count for share, count in counted.items()}
    return whole


def _enforced(uuid: str, share: float, pipeline: str, whole: Mapping[str, Any]) -> int:
    """Multiprocessors that a process with this share sees, if that is about its share."""
    everything = int(whole["multiprocessors"])
    seen = int(_probe(GpuSlot(uuid, share), pipeline)["multiprocessors"])
    if seen >= everything or abs(seen - share * everything) > MPS_STEP:
        raise UnavailableError(
            f"nothing enforces a GPU share of {share:g}: a process that is given it sees {seen} of "
            f"{everything} multiprocessors, so its figures would be those of another share; "
            "fix: start NVIDIA's MPS (nvidia-cuda-mps-control -d), or profile whole GPUs (--gpu 1)"
        )
    return seen


def _probe(slot: GpuSlot, pipeline: str) -> dict[str, Any]:
    """What a process with this slot sees; a process of its own, which leaves no CUDA context."""
    try:
        with ModuleProcess(REPLICA_MODULE, slot.environ) as process:
            process.tell({"gpu_of": pipeline})
            answer = process.hear(PROBE_TIMEOUT_S)
    except TimeoutError as error:
        raise UnavailableError(
            f"the GPU {slot.uuid} did not answer within {PROBE_TIMEOUT_S:g} s"
        ) from error
    except ChildEndedError as error:
        raise UnavailableError(
            f"asking for the GPU {slot.uuid} ended {error.how}: {error.last}"
        ) from error
    if "error" in answer:
        raise UnavailableError(f"GPU {slot.uuid}: {answer['error']}")
    return answer


def _fit_on_one(share: float) -> int:
    """Replicas of a share that fit on one GPU; 1/3 three times is a whole one."""
    return math.floor(1 / share + 1e-9)


def _too_many(share: float, replicas: int, gpus: int) -> ConfigError:
    return ConfigError(
        f"{replicas} replicas with {share:g} of a GPU each",
        where="--gpu",
        allowed=f"{gpus * _fit_on_one(share)} on the {gpus} GPUs there are",
        fix="measure fewer replicas, or shares that MPS enforces",
    )


def _for_profiles(fault: MeterFault) -> MeterFault:
    """A fault of the meter in words that fit a profile, where only whole GPUs make sense."""
    if "MIG" not in fault.reason:
        return fault
    fix = f"switch MIG off (nvidia-smi -mig 0), or choose another GPU in {VISIBLE}"
    return MeterFault(fault.meter, fault.state, fault.reason, fix)
