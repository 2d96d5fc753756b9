"""Counters that a Prometheus server scrapes: any query, Kepler, DCGM."""
