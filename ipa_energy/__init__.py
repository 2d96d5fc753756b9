"""Energy for Inference Pipeline Adaptation (IPA): profile, optimise, run, compare."""
