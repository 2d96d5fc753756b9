"""An objective term of your own, by registry: money, with a weight and a cap in the YAML."""

import ipa_energy as ie
from ipa_energy.optimizer.quantities import Moment
from ipa_energy.registries import QUANTITIES, Quantity


def cents(option: ie.Option, replicas: int, stage: ie.Stage, moment: Moment) -> float:
    """Rent of a stage's cores at 3 cents an hour, per pipeline request."""
    return replicas * option.cpu_cores * 3 / 3600 / moment.mean_rps


QUANTITIES["cents"] = Quantity(
    "rent of the cores", cents, "ct/request", weight_key="money_weight", cap_key="money_cap"
)
for weight in (0, 5000):
    best = ie.plan("video", load_rps=10, money_weight=weight).plans[0]
    print(f"money_weight {weight}: {best.label}, {best.cost_cores:g} cores")
