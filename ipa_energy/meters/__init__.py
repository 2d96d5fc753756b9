"""Where joules come from: one module a meter, all behind :class:`.base.Meter`."""
