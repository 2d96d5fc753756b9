"""What keeps a study from saying more, known before anything is run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ipa_energy.optimizer.conflict import find_conflict
from ipa_energy.records import Stage
from ipa_energy.tradeoff.setting import Setting


def nothing_to_run(settings: Sequence[Setting]) -> str:
    """Why no load has any configuration to run."""
    reasons = []
    for setting in settings:
        why = "; ".join(f"{skipped.name}: {skipped.reason}" for skipped in setting.skipped)
        reasons.append(f"at {setting.load.name} {why or find_conflict(setting.problem)}")
    return "there is no configuration to run: " + "; ".join(reasons)


def remarks(
    stages: Sequence[Stage], settings: Sequence[Setting], *, trials: int, count: int | None
) -> list[str]:
    """A sentence for each thing that the study cannot do.

    Args:
        stages: of the profile.
        settings: the loads.
        trials: of each configuration.
        count: how many configurations were to be chosen; None if the user gave them.
    """
    found = [*_energy(stages)]
    if any(setting.problem.settings.energy_risk == "upper" for setting in settings):
        found.append(
            "energy_risk is upper: configurations, fronts, correlations over plans and optimal"
            " plans count the upper ends of the joules' 95 % intervals; joules shown are means"
        )
    if trials == 1:
        found.append("one trial has no spread: the points have no intervals")
    for setting in settings:
        found += [f"at {setting.load.name} {text}" for text in _of(setting, count)]
    return found


def _energy(stages: Sequence[Stage]) -> Iterator[str]:
    for stage in stages:
        for option in stage.options:
            if not option.has_energy:
                yield (
                    f"the profile has no joules for {option.label} of stage {stage.name}: the study"
                    " goes on without energy; ipa-energy profile measures it"
                )
                return


def _of(setting: Setting, count: int | None) -> Iterator[str]:
    for skipped in setting.skipped:
        yield f"{skipped.name} is left out: {skipped.reason}"
    for configuration in setting.configurations:
        broken = [c.constraint for c in configuration.plan.certificate.checks if not c.holds]
        if broken:
            yield (
                f"{configuration.name} breaks {', '.join(broken)} by the profile; it is run all"
                " the same"
            )
    chosen = len(setting.configurations)
    if chosen == 0 and not setting.skipped:
        yield f"nothing is run: {find_conflict(setting.problem)}"
    elif count is not None and 0 < chosen < count:
        yield (
            f"only {chosen} configurations differ in accuracy, cores, latency, energy or batch, so"
            f" {chosen} are run instead of {count}"
        )
    if not setting.space.is_complete:
        yield (
            f"there are {setting.space.combinations:,} plans: configurations are chosen from, and"
            " correlations taken over, a seeded sample of them; fronts and thresholds are exact"
        )
