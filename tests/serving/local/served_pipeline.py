"""A pipeline without networks, to be served: variants that answer, and such that fail."""

import os
import signal

from ipa_energy.errors import ConfigError
from ipa_energy.pipeline_models import Signature, Variant

NAMES = ("echo", "other", "unloadable", "dies", "short", "raises")
VARIANTS = tuple(
    Variant(stage, name, 0.5 + 0.1 * (name == "other"), "made up", (1,))
    for stage in ("first", "second")
    for name in NAMES
)


def versions():
    return {}


def build(variant, *, weights, threads):
    return lambda batch: batch


def sample(variant, batch, seed):
    return [b"sample"] * batch


def preload():
    """Nothing to import."""


def signature(stage):
    return Signature("text/plain", "text/plain", max_bytes=1000)


def requests(seed, count, *, stage=None):
    return [b"%d" % seed] * count


def handler(variant, *, weights, threads, device, yields=1):
    if variant.name == "unloadable":
        raise ConfigError("these weights are torn", where="weights.pt")
    calls = 0

    def answer(elements):
        nonlocal calls
        calls += 1
        for number, element in enumerate(elements):
            if element == b"unreadable":
                raise ValueError(f"element {number} is unreadable")
        if calls > 1:  # the first call is the server's own
            if variant.name == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if variant.name == "short":
                return elements[:-1]
            if variant.name == "raises":
                raise RuntimeError("out of something")
        told = b" %s %d %s" % (variant.name.encode(), threads, device.encode())
        if yields != 1:
            return [[element] * int(element) for element in elements]
        return [element + told for element in elements]

    return answer
