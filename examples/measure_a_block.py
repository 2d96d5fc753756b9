"""Joules of a block of code, by the best meter that works on this machine."""

import time

import ipa_energy as ie

with ie.measure() as block:
    end = time.perf_counter() + 2
    while time.perf_counter() < end:
        sum(range(10_000))

print(f"{block.energy_j:.1f} J in {block.duration_s:.1f} s: {block.quality} by {block.meter}")
