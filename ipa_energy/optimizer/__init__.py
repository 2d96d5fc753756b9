"""The integer program: equations in :mod:`.problem`, one module per way to solve it."""
