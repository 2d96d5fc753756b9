"""IPA's ``accuracies.yaml``: pipeline → stage → variant → accuracy in percent.

It is also where IPA's users choose: a variant that is not in it is not offered, however well it was
profiled. Some audio figures there are minus a word error rate, hence −100 to 100.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ipa_energy.config.problems import raise_all, shown
from ipa_energy.config.yaml_source import YamlSource, dump_yaml, read_yaml
from ipa_energy.errors import ConfigError
from ipa_energy.profile_table.row import ProfileRow


def read_accuracies(path: Path, pipeline: str, stage: str) -> dict[str, float]:
    """Variant → accuracy as a ratio, of one stage of one pipeline.

    Mistakes elsewhere in the file (IPA's own has variants named by integers) do not matter here.

    Raises:
        ConfigError: the file lacks the pipeline or the stage, or a figure is no percentage.
    """
    source = read_yaml(path)
    stages = _mapping(source, (pipeline,), "pipeline", source.data)
    percents = _mapping(source, (pipeline, stage), "stage", stages)
    problems = _within(source, (pipeline, stage))
    for variant, percent in percents.items():
        if isinstance(percent, bool) or not (
            isinstance(percent, int | float) and -100 <= percent <= 100
        ):
            problems.append(
                ConfigError(
                    f"{pipeline}.{stage}.{variant} is {shown(percent)}",
                    where=source.where((pipeline, stage, variant)),
                    allowed="percent, -100 to 100",
                )
            )
    if problems:
        raise_all(problems, path)
    return {variant: percent / 100 for variant, percent in percents.items()}


def accuracies_yaml(pipeline: str, rows: Iterable[ProfileRow]) -> str:
    """The accuracies of these rows as IPA's file has them."""
    stages: dict[str, dict[str, float]] = {}
    for row in rows:
        # Twelve digits: 0.457 is 45.7 percent, not 45.699999999999996.
        stages.setdefault(row.stage, {})[row.variant] = float(f"{100 * row.accuracy:.12g}")
    return dump_yaml({pipeline: stages})


def _mapping(
    source: YamlSource, keys: tuple[str, ...], noun: str, data: Mapping[str, Any]
) -> dict[str, Any]:
    if keys[-1] not in data:
        raise ConfigError(
            f"no {noun} {'.'.join(keys)}",
            where=source.where(keys[:-1]),
            allowed=", ".join(map(str, data)) or "nothing",
        )
    value = data[keys[-1]]
    if not isinstance(value, dict):
        what = f"{'.'.join(keys)} is {shown(value)}"
        raise ConfigError(what, where=source.where(keys), allowed="a mapping")
    return value


def _within(source: YamlSource, keys: tuple[str, str]) -> list[ConfigError]:
    """The file's problems that stand in the block of ``keys``."""
    first = source.lines[keys]
    after = [line for path, line in source.lines.items() if len(path) <= 2 and line > first]
    last = min(after, default=math.inf)
    return [problem for problem in source.problems if first <= _line(problem) < last]


def _line(problem: ConfigError) -> int:
    return int(str(problem.where).rpartition(":")[2])
