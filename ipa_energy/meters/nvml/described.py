"""What a profile's meta file says of a GPU besides its name."""

from __future__ import annotations

from typing import Any

from ipa_energy.meters.nvml.device import Gpu

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
