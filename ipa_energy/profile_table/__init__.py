"""The profile: one row an entry, as a CSV and as IPA's own profiling folder."""
