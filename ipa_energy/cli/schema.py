"""``ipa-energy schema``: every key of a pipeline YAML, as a JSON schema."""

from __future__ import annotations

import argparse
import sys

from ipa_energy.cli.options import Verbs
from ipa_energy.errors import EXIT_DONE


def add_to(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    verbs.add(
        "schema",
        schema,
        help="every key of a pipeline YAML, as a JSON schema",
        description="Print the JSON schema of a pipeline YAML: every key with its type, default "
        "and meaning. Editors complete and check keys by it.",
    )


def schema(args: argparse.Namespace) -> int:
    """Print it; with and without ``--json`` it is one JSON object."""
    from ipa_energy.config import schema_text

    sys.stdout.write(schema_text())
    return EXIT_DONE
