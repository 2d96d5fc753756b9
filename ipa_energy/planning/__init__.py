"""From a config and a profile to a program, and what a run could have been."""
