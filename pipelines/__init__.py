"""The pipelines' models: one folder a pipeline, each with a ``pipeline.py`` (see README.md)."""
