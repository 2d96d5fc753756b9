"""The child's side of asking for a GPU: what the pipeline's library sees of it, as JSON.

Run as ``python -m ipa_energy.profiling.gpu_main PIPELINE`` with the environment of a replica. It is
a process of its own because whoever looks makes a CUDA context, which draws watts until it ends.
"""

from __future__ import annotations

import json
import os
import sys

from ipa_energy.errors import IpaEnergyError
from ipa_energy.profiling.runtime import gpu_pipeline, load_pipeline


def main() -> None:
    """Print what ``gpu()`` of the pipeline returns, or the reason why it cannot."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        answer = gpu_pipeline(load_pipeline(sys.argv[1])).gpu()
    except IpaEnergyError as error:
        answer = {"error": str(error)}
    answers.write(json.dumps(answer))
    answers.close()


if __name__ == "__main__":
    main()
