"""``ipa-energy meters``: what can be measured here, and how well."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ipa_energy.cli.meter_options import add_place_options, places_of
from ipa_energy.cli.output import print_json, text_table
from ipa_energy.errors import EXIT_DONE

if TYPE_CHECKING:
    from ipa_energy.meters.base import MeterStatus
    from ipa_energy.meters.discovery import Discovery


def add_to(verbs: argparse._SubParsersAction[Any], common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "meters",
        parents=[common],
        allow_abbrev=False,
        help="what can be measured here",
        description="Try every source of joules: keep some cores busy for a moment and see which "
        "counters move, and how often.",
        epilog="states: measured (a counter that moved), estimated (a model), dead (it can be read "
        "and does not move), denied (it may not be read), absent",
    )
    add_place_options(parser)
    parser.set_defaults(verb_function=meters)


def meters(args: argparse.Namespace) -> int:
    """Try everything, then say what was found."""
    from ipa_energy.meters.discovery import discover

    found = discover(places_of(args))
    if args.json:
        print_json(_document(found))
    else:
        print(_text(found))
    return EXIT_DONE


def _document(found: Discovery) -> dict[str, Any]:
    return {
        "meters": [
            {
                "name": status.name,
                "state": status.state,
                "reason": status.reason,
                "fix": status.fix,
                "domains": list(status.domains),
                "update_period_s": status.update_period_s,
                "min_window_s": status.min_window_s,
            }
            for status in found.statuses
        ],
        "auto": found.auto,
    }


def _text(found: Discovery) -> str:
    rows = [
        [
            status.name,
            status.state,
            _seconds(status.update_period_s),
            _seconds(status.min_window_s),
            ", ".join(status.domains) or "–",
        ]
        for status in found.statuses
    ]
    table = text_table(["meter", "state", "steps every", "window for 1 %", "domains"], rows)
    notes = [_note(status) for status in found.statuses]
    return "\n".join([table, "", *notes, f"auto: {found.auto or 'nothing can be measured here'}"])


def _note(status: MeterStatus) -> str:
    fix = f"\n  fix: {status.fix}" if status.fix is not None else ""
    return f"{status.name}: {status.reason}{fix}"


def _seconds(value_s: float | None) -> str:
    """Three digits and a unit; a dash for what is not known."""
    if value_s is None:
        return "–"
    return f"{value_s:.3g} s" if value_s >= 1 else f"{1000 * value_s:.3g} ms"
