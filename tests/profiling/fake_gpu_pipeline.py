"""A pipeline that "works" on the GPU of ``fake_nvml``: a batch takes time and adds joules.

``FAKE_CUDA`` says what its library sees: ``none`` for no GPU, ``other`` for another one than NVML
counts, ``mps`` for a share that is enforced. ``FAKE_RELOAD`` is the batch in which the driver's
counter begins anew.
"""

import os
import time
from pathlib import Path

from ipa_energy.errors import UnavailableError
from ipa_energy.pipeline_models import Variant

MULTIPROCESSORS = 100
BATCH_S = 0.01
REQUEST_MJ = 500
PRECISIONS = ("float32", "float16")
VARIANTS = tuple(Variant("work", name, 0.5, "made up", (2,)) for name in ("works", "shirks"))


def versions():
    return {"fake": "1"}


def gpu():
    seen = os.environ.get("FAKE_CUDA", "")
    if seen == "none":
        raise UnavailableError("FakeTorch sees no GPU; fix: a GPU")
    share = float(os.environ.get("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "100")) / 100
    enforced = share if seen == "mps" else 1
    uuid = "GPU-of-another-kind" if seen == "other" else os.environ["CUDA_VISIBLE_DEVICES"]
    return {
        "uuid": uuid.removeprefix("GPU-"),
        "name": "Fake GPU 100",
        "multiprocessors": round(MULTIPROCESSORS * enforced),
        "memory_bytes": 2**30,
    }


def peak_gpu_memory_bytes():
    return 123_000_000


def sample(variant, batch, seed):
    return [seed] * batch


def build(variant, *, weights, threads, device="cpu", precision="float32"):
    on_gpu = device == "cuda" and variant.name == "works"
    # CUDA's name of the GPU ends in its number here, as fake_nvml makes it: GPU-000000a0-…
    visible = os.environ["CUDA_VISIBLE_DEVICES"]

    batches = 0

    def run(batch):
        nonlocal batches
        batches += 1
        if str(batches) == os.environ.get("FAKE_RELOAD"):
            with Path(os.environ["FAKE_NVML"]).open("a") as control:
                control.write("offset 0 0\n")
        if on_gpu:
            time.sleep(BATCH_S)
            number = int(visible[4:12], 16) - 0xA0
            with Path(f"{os.environ['FAKE_NVML_WORK']}.{number}").open("ab") as work:
                work.write(bytes(REQUEST_MJ * len(batch) // (2 if precision == "float16" else 1)))
        else:
            end_s = time.process_time() + 0.002 * len(batch)
            while time.process_time() < end_s:
                pass
        if weights is not None:  # where the test wants to know who saw what
            share = os.environ.get("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "-")
            with Path(weights).open("a") as file:
                file.write(f"{device} {visible or '-'} {share}\n")
        return batch

    return run
