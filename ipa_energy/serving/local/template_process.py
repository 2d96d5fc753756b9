"""The process of a :class:`.template.Template`: imports, then forks what is asked for.

::

    python -m ipa_energy.serving.local.template_process SOCKET PIPELINE
    python -m ipa_energy.serving.local.template_process check PIPELINE MODELS

The second form loads models, a JSON list of :class:`.template.ModelSpec`, and writes what is wrong
with the first that cannot be loaded, or null.
Nothing is computed here and no GPU looked at: threads and CUDA contexts do not survive a fork.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import time
import traceback
import warnings
from typing import Any

from ipa_energy.pipeline_models import GPU_DEVICE, load_pipeline, served_pipeline
from ipa_energy.serving.local.template import MAX_TOLD_BYTES, ModelSpec, die_with

ADOPTION_TIMEOUT_S = 10.0


def main() -> None:
    """See above."""
    die_with(os.getppid())
    warnings.simplefilter("ignore")  # of the libraries', which no user here can mend
    served_pipeline(load_pipeline(sys.argv[2])).preload()
    if sys.argv[1] == "check":
        _check(json.loads(sys.argv[3]))
    else:
        _fork_for_ever(socket.socket(fileno=int(sys.argv[1])))


def _check(models: list[dict[str, Any]]) -> None:
    from ipa_energy.serving.local.model_server import check_models

    trouble = check_models([ModelSpec(**model) for model in models])
    sys.stdout.write(json.dumps(trouble) + "\n")


def _fork_for_ever(told: socket.socket) -> None:
    """Fork replicas until the other end of the socket closes."""
    import ipa_energy.serving.local.model_server  # noqa: F401 - for the replicas

    gc.collect()
    gc.freeze()  # so that collecting in a replica writes on no shared page
    while True:
        data, descriptors, _, _ = socket.recv_fds(told, MAX_TOLD_BYTES, 1)
        if not data:
            return
        if _forked():
            told.close()
            _be_replica(json.loads(data), descriptors[0])
        os.close(descriptors[0])


def _forked() -> bool:
    """True in a grandchild of this process, which is nobody's child here."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return False
    if os.fork():
        os._exit(0)
    return True


def _be_replica(told: dict[str, Any], report_to: int) -> None:
    """Serve; never returns."""
    status = 1
    try:
        _await_parent(told["plane"])
        os.setsid()
        os.write(report_to, json.dumps({"pid": os.getpid()}).encode() + b"\n")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        model = ModelSpec(**told["model"])
        os.sched_setaffinity(0, told["cpus"] or os.sched_getaffinity(0))
        if model.device != GPU_DEVICE:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        from ipa_energy.serving.local.model_server import serve

        status = serve(model, told["name"], report_to)
    except BaseException:  # noqa: BLE001 - whatever it is, this process must not go on as the template
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _await_parent(plane: int) -> None:
    """Return when the plane is this process's parent."""
    end_s = time.monotonic() + ADOPTION_TIMEOUT_S
    while os.getppid() != plane and time.monotonic() < end_s:
        time.sleep(0.0005)
    die_with(plane)


if __name__ == "__main__":
    main()
