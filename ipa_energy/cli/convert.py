"""``ipa-energy convert``: a profile from IPA's profiling folders, and back into them."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipa_energy.cli.options import Arguments, Verbs, check, named_path, option_of, print_json
from ipa_energy.errors import EXIT_DONE, ConfigError
from ipa_energy.files import check_output

if TYPE_CHECKING:
    from ipa_energy.meters.power_model import PowerModel
    from ipa_energy.profile_table.ipa_import import SeriesImport

DEFAULT_LOAD = 20
"""``profiling_load`` of IPA's shipped configurations."""

NEEDED = {
    "from_ipa": {
        "stage": "--stage NAME, one a folder, in their order",
        "accuracies": "--accuracies IPA/data/configs/accuracies.yaml",
        "out": "--out PROFILE.csv",
    },
    "to_ipa": {"profile": "--profile PROFILE.csv"},
}
FOREIGN = {
    "from_ipa": ("profile", "node", "series"),
    "to_ipa": ("accuracies", "out", "reference_throughput", "estimate_energy", "power_model"),
}
"""Options that mean nothing in each direction; those of ``NEEDED`` must be there."""


def add_to(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    add = verbs.add(
        "convert",
        convert,
        help="a profile from or to IPA's profiling folders",
        description="Turn IPA's profiling folders (data/results/profiling/nodes/series/N) into a "
        "profile, or a profile into such folders, which IPA's own code reads. --from-ipa needs "
        "--stage, --accuracies and --out as well, --to-ipa needs --profile.",
    )
    direction = add.exclusive(required=True)
    direction("--from-ipa SERIES_DIR", "one folder a stage", named_path, nargs="+")
    direction(
        "--to-ipa DIR",
        "IPA's data/results/profiling/nodes, or any folder; writes DIR/series/N",
        named_path,
    )
    add(
        "--stage NAME",
        "from IPA: the folders' stages, in their order (needed); to IPA: stages to write "
        "(default: all)",
        nargs="+",
    )
    add("--pipeline NAME", "IPA's pipeline name (default: the one recorded)")
    add(
        "--load L",
        f"IPA's profiling_load, to choose by or to write (default to write: {DEFAULT_LOAD})",
    )
    add(
        "--hardware NAME", "what the folders were measured on (default: cpu); the only one to write"
    )
    _add_from(add.group("from IPA"))
    _add_to(add.group("to IPA"))


def _add_from(add: Arguments) -> None:
    add("--accuracies YAML", "IPA's accuracies.yaml (needed)", named_path)
    add("--out PROFILE.csv", "to write (needed)", named_path)
    add(
        "--reference-throughput",
        "over the run (default: max, as IPA)",
        choices=("max", "p99", "avg"),
    )
    add.flag(
        "--estimate-energy",
        "estimate the joules of experiments without, from their CPU seconds",
        default=None,
    )
    add(
        "--power-model JSON",
        "of the machine profiled (default: a stated prior per core, good to ±50 %%)",
        named_path,
    )


def _add_to(add: Arguments) -> None:
    add("--profile PROFILE.csv", "to read (needed)", named_path)
    add("--node NAME", "IPA's model_name, one a stage (default: stage)", nargs="+")
    add("--series N", "IPA's profiling_series, one a stage (default: 1, 2, …)", int, nargs="+")


def convert(args: argparse.Namespace) -> int:
    """Convert, then say what came of it."""
    direction = "from_ipa" if args.from_ipa else "to_ipa"
    lacking = {name: how for name, how in NEEDED[direction].items() if getattr(args, name) is None}
    if lacking:
        raise ConfigError(
            f"{option_of(direction)} needs {' and '.join(map(option_of, lacking))} too",
            fix=f"add {' '.join(how for how in lacking.values())}",
        )
    for name in FOREIGN[direction]:
        if getattr(args, name) is not None:
            raise ConfigError(f"{option_of(name)} means nothing with {option_of(direction)}")
    return _from_ipa(args) if args.from_ipa else _to_ipa(args)


def _from_ipa(args: argparse.Namespace) -> int:
    from ipa_energy.profile_table.ipa_import import ImportChoice, import_profile

    choice = ImportChoice(
        accuracies=args.accuracies,
        pipeline=args.pipeline,
        load=args.load,
        reference_throughput=args.reference_throughput or "max",
        hardware=args.hardware or "cpu",
        power_model=_power_model(args),
    )
    check_output(args.out, where="--out")
    found = import_profile(args.from_ipa, args.stage, choice, args.out)
    if args.json:
        print_json({"profile": str(args.out), "series": [series.to_json() for series in found]})
    else:
        print("\n".join([*map(_summary, found), f"profile: {args.out}"]))
    return EXIT_DONE


def _power_model(args: argparse.Namespace) -> PowerModel | None:
    from ipa_energy.meters.power_model import PowerModel, stated_prior

    if args.power_model is not None and not args.estimate_energy:
        raise ConfigError("--power-model means nothing without --estimate-energy")
    if not args.estimate_energy:
        return None
    if args.power_model is not None:
        return PowerModel.load(args.power_model)
    # Watts a core are all that is used of it, and the prior's do not depend on their number.
    return stated_prior(os.cpu_count() or 1)


def _summary(series: SeriesImport) -> str:
    from ipa_energy.tables import counted

    qualities = [row.quality or "without energy" for row in series.rows]
    counts = ", ".join(f"{qualities.count(kind)} {kind}" for kind in dict.fromkeys(qualities))
    left_out = f"; {len(series.skipped)} left out" if series.skipped else ""
    return f"{series.stage}: {counted(len(series.rows), 'entry')} ({counts}){left_out}"


def _to_ipa(args: argparse.Namespace) -> int:
    from ipa_energy.profile_table.ipa_export import SeriesTarget, export_profile
    from ipa_energy.profile_table.profile_csv import read_profile

    rows = read_profile(args.profile)
    stages = args.stage or list(dict.fromkeys(row.stage for row in rows))
    _each(args.stage, "stage", list(dict.fromkeys(stages)))
    nodes = _each(args.node, "node", stages) or stages
    numbers = _each(args.series, "series", stages) or list(range(1, len(stages) + 1))
    _check_names(nodes, numbers)
    targets = [
        SeriesTarget(stage=stage, node=node, series=number)
        for stage, node, number in zip(stages, nodes, numbers, strict=True)
    ]
    load = _whole_load(args.load)
    written = export_profile(
        rows,
        args.to_ipa,
        targets,
        pipeline=args.pipeline or _recorded_pipeline(args.profile),
        load=load,
        hardware=args.hardware,
    )
    if args.json:
        series = [{**asdict(target), "experiments": written[target.stage]} for target in targets]
        print_json({"folder": str(args.to_ipa), "profiling_load": load, "series": series})
        return EXIT_DONE
    for target in targets:
        place = args.to_ipa / "series" / str(target.series)
        print(f"{target.stage}: {written[target.stage]} experiments of {target.node}: {place}")
    print(
        f"in IPA's YAML: profiling_load: {load}, profiling_series: {numbers}, model_name: {nodes}"
    )
    print(f"its accuracies: {args.to_ipa / 'accuracies.yaml'}")
    return EXIT_DONE


def _each(given: list[Any] | None, name: str, stages: list[str]) -> list[Any] | None:
    if given is not None and (len(given) != len(stages) or len(set(given)) != len(given)):
        raise ConfigError(
            f"{len(given)} values for the stages {', '.join(stages)}",
            where=option_of(name),
            allowed="one a stage, in their order, none twice",
        )
    return given


def _check_names(nodes: list[str], numbers: list[int]) -> None:
    for node in nodes:
        is_name = bool(node.strip()) and "/" not in node and node.isprintable()
        check(is_name, f"{node!r}", "--node", "a name without a slash")
    for number in numbers:
        check(number >= 0, str(number), "--series", "an integer from 0")


def _whole_load(text: str | None) -> int:
    if text is None:
        return DEFAULT_LOAD
    is_whole = text.isascii() and text.isdecimal() and int(text) >= 1
    check(is_whole, f"{text!r}", "--load", "an integer ≥ 1, as IPA writes it")
    return int(text)


def _recorded_pipeline(profile: Path) -> str:
    """The pipeline that the profile's meta file names, else the profile's own name."""
    from ipa_energy.profile_table.profile_csv import meta_path

    try:
        meta = json.loads(meta_path(profile).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return profile.stem
    name = meta.get("pipeline") if isinstance(meta, dict) else None
    return name if isinstance(name, str) and name else profile.stem
