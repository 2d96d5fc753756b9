"""What a run cost and what it gave, and the difference between runs.

::

    comparison = compare([read_run(a), read_run(b)], static_best=…, hindsight=…)
    print(comparison_table(comparison))
    as_json(comparison)

Nothing here reads or writes a file, and nothing is simulated: baselines come in as metrics.
"""

from ipa_energy.comparing.comparison import Comparison, compare, headline, numbered
from ipa_energy.comparing.metrics import RunMetrics, metrics
from ipa_energy.comparing.run_table import comparison_table, run_table

__all__ = [
    "Comparison",
    "RunMetrics",
    "compare",
    "comparison_table",
    "headline",
    "metrics",
    "numbered",
    "run_table",
]
