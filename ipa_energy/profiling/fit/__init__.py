"""Latency and energy over batch and cores from a part of the grid, with intervals."""
