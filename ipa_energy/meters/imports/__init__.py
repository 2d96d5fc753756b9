"""Joules that other programs logged: etrace2, FrameView and PCAT, perf."""
