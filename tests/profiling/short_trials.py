"""Trial settings for tests that look at what becomes of trials, not at their figures."""

from ipa_energy.profiling.trial_windows import TrialSettings

SHORT = TrialSettings(
    min_window_s=0.03,
    max_window_s=0.1,
    min_batches=2,
    idle_s=0.01,
    warm_up_min_s=0.0,
    warm_up_max_s=0.02,
    max_foreign_load=10.0,
    timeout_s=20.0,
)
