"""The video pipeline: find what is in a frame (``crop``), then say what it is."""
