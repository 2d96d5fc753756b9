"""Everything that is chosen by a name, one dict each.

A new solver, predictor, meter, workload, backend, objective term or pipeline is one file and one
entry here: the YAML's schema, the command line's choices and its help come from the keys, so that
an entry added while the program runs can be used at once. What an entry stands for is imported
when it is first used, which keeps ``--help`` fast and the layers apart.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ipa_energy.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Named:
    """What a name stands for.

    Attributes:
        help: what it is, for ``--help`` and the documentation; begins in lower case, no full stop.
        target: ``package.module:attribute``, imported by :meth:`load`; or the thing itself.
    """

    help: str
    target: Any

    def load(self) -> Any:
        """The thing itself."""
        if not isinstance(self.target, str):
            return self.target
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)


def named(registry: Mapping[str, Named], name: str, *, kind: str, where: str | None = None) -> Any:
    """What ``name`` stands for in a registry.

    Args:
        registry: one of this module's dicts.
        name: a key.
        kind: what it is a name of, for the message.
        where: key or option that it was given by.

    Raises:
        ConfigError: there is no such name.
    """
    if name not in registry:
        raise ConfigError(f"unknown {kind} {name!r}", where=where, allowed=", ".join(registry))
    return registry[name].load()


SOLVERS: dict[str, Named] = {
    "pareto": Named("exact, needs NumPy only", "ipa_energy.optimizer.pareto:solve"),
    "gurobi": Named("as in IPA; needs a licence that fits", "ipa_energy.optimizer.gurobi:solve"),
    "highs": Named("exact, by HiGHS", "ipa_energy.optimizer.highs:solve"),
    "brute-force": Named("every plan, small programs", "ipa_energy.optimizer.exhaustive:solve"),
}
"""``solve(problem, top_k) -> choices``, best first."""
