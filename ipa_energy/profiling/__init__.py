"""Measuring options: one honest trial, sweeps of them, and the table they end in."""
