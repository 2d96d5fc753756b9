"""Print the JSON schema of a pipeline YAML: ``python -m ipa_energy.config``.

The copy for editors is written by ``python -m ipa_energy.config > configs/pipeline.schema.json``.
"""

from __future__ import annotations

import json
import sys

from ipa_energy.config.loading import json_schema


def schema_text() -> str:
    """The schema as the committed file holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
