"""The pipeline as a discrete-event simulation."""
