"""A solver of your own, by registry: it can be named in a YAML or by --method at once."""

import ipa_energy as ie
from ipa_energy.optimizer import pareto
from ipa_energy.optimizer.plan import Choice
from ipa_energy.optimizer.problem import Problem
from ipa_energy.registries import SOLVERS, Named


def counted(problem: Problem, top_k: int = 1) -> list[Choice]:
    """The exact solver, and a word about it; yours would decide by itself."""
    print(f"{len(problem.stages)} stages at {problem.load_rps:g} requests a second")
    return pareto.solve(problem, top_k)


SOLVERS["counted"] = Named("pareto, and says so", counted)
print(ie.plan("video", load_rps=10, optimization_method="counted").plans[0].label)
