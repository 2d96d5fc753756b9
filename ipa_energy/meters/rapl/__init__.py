"""RAPL counters through the powercap file system; :mod:`.meter` is the meter."""
