"""``ipa-energy convert``: a profile from IPA's profiling folders, and back into them."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipa_energy.cli.output import print_json
from ipa_energy.cli.path import named_path
from ipa_energy.errors import EXIT_DONE, ConfigError

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


def add_to(verbs: argparse._SubParsersAction[Any], common: argparse.ArgumentParser) -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "convert",
        parents=[common],
        allow_abbrev=False,
        help="a profile from or to IPA's profiling folders",
        description="Turn IPA's profiling folders (data/results/profiling/nodes/series/N) into a "
        "profile, or a profile into such folders, which IPA's own code reads. --from-ipa needs "
        "--stage, --accuracies and --out as well, --to-ipa needs --profile.",
    )
    direction = parser.add_mutually_exclusive_group(required=True)
    direction.add_argument(
        "--from-ipa", nargs="+", type=named_path, metavar="SERIES_DIR", help="one folder a stage"
    )
    direction.add_argument(
        "--to-ipa",
        type=named_path,
        metavar="DIR",
        help="IPA's data/results/profiling/nodes, or any folder; writes DIR/series/N",
    )
    parser.add_argument(
        "--stage",
        nargs="+",
        metavar="NAME",
        help="from IPA: the folders' stages, in their order (needed); to IPA: stages to write "
        "(default: all)",
    )
    parser.add_argument(
        "--pipeline", metavar="NAME", help="IPA's pipeline name (default: the one recorded)"
    )
    parser.add_argument(
        "--load",
        metavar="L",
        help=f"IPA's profiling_load, to choose by or to write (default to write: {DEFAULT_LOAD})",
    )
    parser.add_argument(
        "--hardware",
        metavar="NAME",
        help="what the folders were measured on (default: cpu); the only one to write",
    )
    _add_from(parser.add_argument_group("from IPA"))
    _add_to(parser.add_argument_group("to IPA"))
    parser.set_defaults(verb_function=convert)


def _add_from(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--accuracies", type=named_path, metavar="YAML", help="IPA's accuracies.yaml (needed)"
    )
    group.add_argument("--out", type=named_path, metavar="PROFILE.csv", help="to write (needed)")
    group.add_argument(
        "--reference-throughput",
        choices=("max", "p99", "avg"),
        help="over the run (default: max, as IPA)",
    )
    group.add_argument(
        "--estimate-energy",
        action="store_true",
        default=None,
        help="estimate the joules of experiments without, from their CPU seconds",
    )
    group.add_argument(
        "--power-model",
        type=named_path,
        metavar="JSON",
        help="of the machine profiled (default: a stated prior per core, good to ±50 %%)",
    )


def _add_to(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--profile", type=named_path, metavar="PROFILE.csv", help="to read (needed)")
    group.add_argument(
        "--node", nargs="+", metavar="NAME", help="IPA's model_name, one a stage (default: stage)"
    )
    group.add_argument(
        "--series",
        nargs="+",
        type=int,
        metavar="N",
        help="IPA's profiling_series, one a stage (default: 1, 2, …)",
    )


def convert(args: argparse.Namespace) -> int:
    """Convert, then say what came of it."""
    direction = "from_ipa" if args.from_ipa else "to_ipa"
    lacking = {name: how for name, how in NEEDED[direction].items() if getattr(args, name) is None}
    if lacking:
        raise ConfigError(
            f"{_option(direction)} needs {' and '.join(map(_option, lacking))} too",
            fix=f"add {' '.join(how for how in lacking.values())}",
        )
    for name in FOREIGN[direction]:
        if getattr(args, name) is not None:
            raise ConfigError(f"{_option(name)} means nothing with {_option(direction)}")
    return _from_ipa(args) if args.from_ipa else _to_ipa(args)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


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
            where=_option(name),
            allowed="one a stage, in their order, none twice",
        )
    return given


def _check_names(nodes: list[str], numbers: list[int]) -> None:
    for node in nodes:
        if not node.strip() or "/" in node or not node.isprintable():
            raise ConfigError(f"{node!r}", where="--node", allowed="a name without a slash")
    for number in numbers:
        if number < 0:
            raise ConfigError(str(number), where="--series", allowed="an integer from 0")


def _whole_load(text: str | None) -> int:
    if text is None:
        return DEFAULT_LOAD
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise ConfigError(f"{text!r}", where="--load", allowed="an integer ≥ 1, as IPA writes it")
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
