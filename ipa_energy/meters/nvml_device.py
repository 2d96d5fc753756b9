"""The one door to NVML: loading it, its errors in words, and which GPUs are meant.

``nvidia-ml-py`` (module ``pynvml``) is a thin layer over the driver's ``libnvidia-ml.so.1``. It is
imported here and nowhere else, when a GPU is first asked for, so that a machine without one pays
nothing.

GPUs are numbered as ``nvidia-smi`` numbers them, in the order of their PCI addresses. CUDA numbers
the fastest first unless ``CUDA_DEVICE_ORDER=PCI_BUS_ID``, so an index in ``CUDA_VISIBLE_DEVICES``
is refused where the two orders can differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipa_energy.errors import ConfigError
from ipa_energy.meters.base import MeterFault, State

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
INSTALL = "pip install 'ipa-energy[nvml]'"

DRIVERS_GPUS = Path("/proc/driver/nvidia/gpus")

MODULES = ("GH200",)
"""Models whose counter is of the whole module, the processor and its memory included."""

POWER_METER = "nvml-power"
NO_POWER = "this GPU tells no power either"

OF_A_SLICE = f", and give the command its slice: -- env {VISIBLE}=MIG-… CMD"

NO_DRIVER = (9, 12)
NOT_SUPPORTED = 3
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15

_MEANING: dict[int, tuple[State, str, str | None]] = {
    NOT_SUPPORTED: (
        "absent",
        "this GPU has no such counter (total energy needs Volta or newer)",
        "use the meter nvml-power, which adds up power readings",
    ),
    4: (
        "denied",
        "no permission",
        "run as a user with access to /dev/nvidia*, or start the container with --gpus",
    ),
    6: ("absent", "no such GPU", "nvidia-smi -L lists those there are"),
    9: ("absent", "the NVIDIA driver is not loaded", "load it: modprobe nvidia; see nvidia-smi"),
    12: (
        "absent",
        "no NVIDIA driver: libnvidia-ml.so.1 is not found",
        "install the driver, or start the container with --gpus; without a GPU use another meter",
    ),
    FUNCTION_NOT_FOUND: (
        "absent",
        "the driver is too old for this call",
        "install a newer NVIDIA driver",
    ),
    GPU_IS_LOST: (
        "dead",
        "the GPU has fallen off the bus",
        "see dmesg for the Xid error; reset the GPU or reboot",
    ),
    16: ("dead", "the GPU needs a reset", "nvidia-smi --gpu-reset, or reboot"),
    18: (
        "absent",
        "the driver and its library have different versions (an update without a restart)",
        "reload the driver, or reboot",
    ),
}


@contextmanager
def translated(what: str, meter: str = "nvml") -> Iterator[None]:
    """Turn an NVML error within into a :class:`MeterFault` that says ``what`` failed."""
    import pynvml

    try:
        yield
    except pynvml.NVMLError as error:
        code = error.value
        state, reason, fix = _MEANING.get(
            code, ("dead", f"NVML error {code} ({error})", "see nvidia-smi and dmesg")
        )
        if code == NOT_SUPPORTED and meter == POWER_METER:
            reason, fix = NO_POWER, None
        there = code not in NO_DRIVER or driver_has_gpus()
        raise MeterFault(meter, state, f"{what}: {reason}", fix, there=there) from error


def driver_has_gpus(folder: Path = DRIVERS_GPUS) -> bool:
    """True if the kernel's driver has a GPU, whatever this process may do with it."""
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def is_module(model: str) -> bool:
    """True for a GPU whose energy counter has its processor's joules in it as well."""
    return any(name in model for name in MODULES)


def load_nvml(meter: str = "nvml") -> Any:
    """The module ``pynvml``, initialised.

    Raises:
        MeterFault: it is not installed, or the driver is not there or does not answer.
    """
    try:
        import pynvml
    except ImportError as error:
        told, there = "nvidia-ml-py is not installed", driver_has_gpus()
        raise MeterFault(meter, "absent", told, INSTALL, there=there) from error
    with translated("NVML does not start", meter):
        pynvml.nvmlInit()
    return pynvml


@dataclass(frozen=True, slots=True)
class Gpu:
    """One whole GPU.

    Attributes:
        index: as in ``nvidia-smi``.
        uuid: ``GPU-…``.
        name: model name.
        mig: True if it is split into MIG slices, which share one energy counter.
        handle: NVML's own.
    """

    index: int
    uuid: str
    name: str
    mig: bool
    handle: Any

    @property
    def domain(self) -> str:
        """Name in an :class:`~ipa_energy.meters.base.Energy`: ``gpu-0``."""
        return f"gpu-{self.index}"


def selected_gpus(
    nvml: Any, wanted: Sequence[int | str] | None, environ: Mapping[str, str], meter: str = "nvml"
) -> tuple[Gpu, ...]:
    """The GPUs to measure.

    Args:
        nvml: what :func:`load_nvml` returned.
        wanted: indices as in ``nvidia-smi``, or UUIDs or unique beginnings of them; None for those
            of ``CUDA_VISIBLE_DEVICES``, or all if that is not set.
        environ: the environment.
        meter: who asks, for messages.

    Raises:
        ConfigError: a name fits no GPU or several, or one is named twice.
        MeterFault: there is no GPU, one cannot be reached, or MIG slices would have to share a
            counter and the GPU was not named explicitly, by an argument or its UUID.
    """
    there = _all_gpus(nvml, meter)
    if not there:
        raise MeterFault(meter, "absent", "the driver is there but sees no GPU")
    explicit = wanted is not None
    names: list[int | str] = list(wanted or []) if explicit else list(_visible(there, environ))
    if not names:
        where = "an empty list of devices" if explicit else f"{VISIBLE} is empty"
        raise MeterFault(meter, "absent", f"no GPU is selected: {where}")
    chosen = [_reached(there, name) for name in names]
    if len({gpu.index for gpu in chosen}) < len(chosen):
        raise ConfigError(f"GPUs {names} name one GPU twice", allowed="each GPU once")
    for name, gpu in zip(names, chosen, strict=True):
        if gpu.mig and not explicit and isinstance(name, int):
            raise MeterFault(
                meter,
                "absent",
                f"{gpu.domain} ({gpu.name}) is split into MIG slices, and only the whole GPU "
                "counts energy",
                f"to measure the whole GPU, all slices together, name it: {VISIBLE}={gpu.uuid}"
                f"{OF_A_SLICE}",
                there=True,
            )
    return tuple(chosen)


def _all_gpus(nvml: Any, meter: str) -> list[Gpu | MeterFault]:
    """Every GPU the driver lists; one that cannot be reached as the reason why."""
    with translated("counting GPUs", meter):
        count = nvml.nvmlDeviceGetCount()
    there: list[Gpu | MeterFault] = []
    for index in range(count):
        try:
            with translated(f"gpu-{index}", meter):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                uuid, name = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)
            there.append(Gpu(index, uuid, name, _is_split(nvml, handle, meter), handle))
        except MeterFault as fault:
            there.append(fault)
    return there


def _is_split(nvml: Any, handle: Any, meter: str) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE)
    except nvml.NVMLError as error:
        if error.value in (NOT_SUPPORTED, FUNCTION_NOT_FOUND):
            return False  # GPUs and drivers older than MIG
        with translated("asking for the MIG mode", meter):
            raise


def _visible(there: Sequence[Gpu | MeterFault], environ: Mapping[str, str]) -> list[int | str]:
    """What CUDA would see: it stops at the first entry that is empty or negative."""
    text = environ.get(VISIBLE)
    if text is None:
        return list(range(len(there)))
    names: list[int | str] = []
    for token in text.split(","):
        word = token.strip()
        if not word or word.startswith("-"):
            break
        names.append(int(word) if word.isdecimal() else word)
    models = {gpu.name for gpu in there if isinstance(gpu, Gpu)}
    if any(isinstance(name, int) for name in names) and len(models) > 1:
        _require_pci_order(environ)
    return names


def _require_pci_order(environ: Mapping[str, str]) -> None:
    if environ.get(ORDER) != "PCI_BUS_ID":
        raise ConfigError(
            f"{VISIBLE}={environ[VISIBLE]} counts in CUDA's order, and the GPUs here differ",
            where=VISIBLE,
            fix=f"set {ORDER}=PCI_BUS_ID, or name GPUs by UUID (nvidia-smi -L)",
        )


def _reached(there: Sequence[Gpu | MeterFault], name: int | str) -> Gpu:
    if isinstance(name, str) and name.startswith("MIG-"):
        raise ConfigError(
            f"{name} is a MIG slice, which has no energy counter",
            allowed="whole GPUs",
            fix="name the GPU it is part of (nvidia-smi -L); its joules are of all its slices: "
            f"{VISIBLE}=GPU-…{OF_A_SLICE}",
        )
    if isinstance(name, str):
        fits = [gpu for gpu in there if isinstance(gpu, Gpu) and gpu.uuid.startswith(name)]
        if len(fits) != 1:
            known = ", ".join(gpu.uuid for gpu in there if isinstance(gpu, Gpu))
            many = "no GPU" if not fits else f"{len(fits)} GPUs"
            raise ConfigError(f"the UUID {name!r} fits {many}", allowed=known or None)
        return fits[0]
    if not 0 <= name < len(there):
        raise ConfigError(f"there is no GPU {name}", allowed=f"0 to {len(there) - 1}")
    found = there[name]
    if isinstance(found, MeterFault):
        raise found
    return found


WATTS_PER_MW = 1e-3


def describe_gpu(nvml: Any, gpu: Gpu) -> dict[str, Any]:
    """Driver version and the power limit in force; None where the driver does not tell."""
    try:
        driver = str(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError:
        driver = None
    try:
        limit_w = nvml.nvmlDeviceGetEnforcedPowerLimit(gpu.handle) * WATTS_PER_MW
    except nvml.NVMLError:
        limit_w = None
    return {"driver": driver, "power_limit_w": limit_w}
