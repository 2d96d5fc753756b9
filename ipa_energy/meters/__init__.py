"""Where joules come from, all behind :class:`.base.Meter`.

A counter that can be read has a module (``rapl``, ``perf``, ``nvml``) or a folder
(``prometheus``), logs of other programs are read by ``imports``, ``cpu_time`` estimates where there
is no counter, and ``discovery`` tells which of them can be believed here.
"""
