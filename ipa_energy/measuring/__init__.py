"""Joules of any command: the trial protocol, the process tree it charges, the figures."""
