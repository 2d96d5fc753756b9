"""The kernel's energy events: counted by the meter, or by ``perf``, whose output is read."""
