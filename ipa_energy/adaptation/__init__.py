"""The adaptation loop: predict the load, decide, apply, every interval."""
