"""Energy for Inference Pipeline Adaptation (IPA): profile, optimise, run, compare."""

__version__ = "0.1.0"
