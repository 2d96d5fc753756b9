"""Run by the Python that runs IPA: what it has, as one line of JSON; any Python 3.6 understands it.

``version``: its own. ``absent``: those of the arguments that are no modules here. ``ipa_energy``:
why what the patches call cannot be imported, else null. ``gurobi``: why a program with a quadratic
term and more variables than the licence in the package allows is refused; null if it is not, or if
there is no gurobipy.
"""

import importlib
import importlib.util
import json
import sys
from typing import Optional

HOOKS = "ipa_energy.plugin.hooks"
VARIABLES = 201
REFUSALS = {10009: "no valid Gurobi licence", 10010: "a Gurobi licence of limited size"}


def import_problem(module: str) -> Optional[str]:  # noqa: UP045
    """What importing the module raises, in words; None if it can be imported."""
    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001
        return "{}: {}".format(type(error).__name__, error)  # noqa: UP032
    return None


def licence_problem() -> Optional[str]:  # noqa: UP045
    """Why Gurobi refuses a program of IPA's kind and size; None if it solves it."""
    import gurobipy

    try:
        model = gurobipy.Model(env=gurobipy.Env(params={"OutputFlag": 0}))
        variables = [model.addVar(vtype="B") for _ in range(VARIABLES)]
        model.setObjective(sum(variable * variable for variable in variables))
        model.optimize()
    except gurobipy.GurobiError as error:
        return "{} ({})".format(REFUSALS.get(error.errno, "Gurobi fails"), error)
    return None


def main() -> None:
    """Print the findings."""
    absent = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]
    has_gurobi = importlib.util.find_spec("gurobipy") is not None
    found = {
        "version": list(sys.version_info[:3]),
        "absent": absent,
        "ipa_energy": import_problem(HOOKS),
        "gurobi": licence_problem() if has_gurobi else None,
    }
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
