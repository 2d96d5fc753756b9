"""Why a meter gives no figure, kept as parts until somebody reports it.

A driver, a server and a counter can each fail in a dozen ways. Each is translated once, where it
happens, into a :class:`MeterFault`; whoever measures sees a
:class:`~ipa_energy.errors.MeterUnavailableError`, and ``ipa-energy meters`` sees the state.
"""

from __future__ import annotations

from collections.abc import Mapping

from ipa_energy.errors import MeterUnavailableError
from ipa_energy.meters.status import MeterStatus, State


class MeterFault(MeterUnavailableError):  # noqa: N818 - a fault, with the parts of a status
    """A meter that cannot be used.

    Args:
        meter: the meter's name.
        state: ``dead``, ``denied`` or ``absent``.
        reason: what was found, with values and their units.
        fix: what to do about it; None where nothing can be done.
    """

    def __init__(self, meter: str, state: State, reason: str, fix: str | None = None) -> None:
        self.meter, self.state, self.reason, self.fix = meter, state, reason, fix
        super().__init__(f"{meter}: {reason}" + (f"; fix: {fix}" if fix is not None else ""))

    def status(self) -> MeterStatus:
        """The same as a row of ``ipa-energy meters``."""
        return MeterStatus(self.meter, self.state, self.reason, self.fix)


def require_movement(
    meter: str, moved: Mapping[str, float], duration_s: float, min_window_s: float
) -> None:
    """See that every domain of a machine's counters moved in a window: 0 J is never a figure.

    Args:
        meter: its name.
        moved: domain → by how much, in any unit.
        duration_s: of the window.
        min_window_s: what the meter can measure.

    Raises:
        MeterFault: one did not.
    """
    for domain, step in moved.items():
        if not step > 0:
            raise MeterFault(
                meter,
                "dead",
                f"{domain} did not move in {duration_s:.3g} s",
                f"use a window of {min_window_s:g} s or more; a counter that still rests is dead",
            )
