"""A stub model of which the first one that finds the marker answers what is no answer.

python garbage_model.py '{"name": …}' MARKER
"""

from __future__ import annotations

import sys
from pathlib import Path

from ipa_energy.serving.local import rpc, stub_model

marker = Path(sys.argv[2])
if marker.exists():
    marker.unlink()
    rpc.answer_bytes = lambda named: b"\xff\xff\xff\xff"
stub_model.main()
