"""``python -m ipa_energy`` is ``ipa-energy``."""

import sys

from ipa_energy.cli import main

sys.exit(main())
