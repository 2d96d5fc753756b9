"""NVIDIA GPUs through NVML: their energy counter, or their power sensor where there is none."""
