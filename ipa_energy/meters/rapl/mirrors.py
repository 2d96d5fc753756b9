"""Dies of one package that show one and the same counter are counted once.

Some processors report a package's energy on each of its dies. Such counters are told by reading:
one that is read between two reads of another and lies between them, several times while both run,
is the other. Counters of their own differ by the joules of everything since the machine started.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

from ipa_energy.meters.rapl.counter_file import CounterFile, Opener, open_for_reading
from ipa_energy.meters.rapl.powercap import Zone

logger = logging.getLogger(__name__)

LOOKS = 3
PAUSE_S = 0.004
TOLERANCE_UJ = 100_000
"""What two registers of one counter may differ by when one is a step old: 100 W for 1 ms."""


def without_mirrors(
    zones: Sequence[Zone],
    *,
    opener: Opener = open_for_reading,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Zone, ...]:
    """The zones without those that repeat another of the same kind and package.

    Raises:
        MeterUnavailableError: a counter that had to be compared cannot be read.
    """
    kept: list[Zone] = []
    for zone in zones:
        rivals = [z for z in kept if (z.kind, z.package) == (zone.kind, zone.package)]
        original = next((z for z in rivals if _is_mirror(z, zone, opener, sleep)), None)
        if original is None:
            kept.append(zone)
        else:
            logger.info("%s repeats %s: counted once", zone.domain, original.domain)
    return tuple(kept)


def _is_mirror(original: Zone, other: Zone, opener: Opener, sleep: Callable[[float], None]) -> bool:
    with ExitStack() as opened:
        first = opened.enter_context(closing(CounterFile(original.energy_path, opener=opener)))
        second = opened.enter_context(closing(CounterFile(other.energy_path, opener=opener)))
        for look in range(LOOKS):
            if look:
                sleep(PAUSE_S)
            if not _agree(first, second):
                return False
    return True


def _agree(first: CounterFile, second: CounterFile) -> bool:
    before, between, after = first.read_uj(), second.read_uj(), first.read_uj()
    if after < before:  # it wrapped just now; it will not do so twice in a row
        before, between, after = first.read_uj(), second.read_uj(), first.read_uj()
    return before - TOLERANCE_UJ <= between <= after + TOLERANCE_UJ
