"""Serving backends behind :class:`.base.Backend`, and the load they get."""
