"""Profiles from and to IPA's profiling folders."""
