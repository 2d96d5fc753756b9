"""``ipa-energy doctor``: what a run on a cluster needs, and whether it is there."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict

from ipa_energy.cli.options import (
    Arguments,
    Verbs,
    named_path,
    named_pipeline,
    named_server,
    print_json,
)
from ipa_energy.errors import EXIT_DONE, EXIT_UNAVAILABLE, ConfigError, require

MARKS = {"ok": "ok     ", "missing": "MISSING", "optional": "without", "unknown": "unknown"}


def add_to(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    add = verbs.add(
        "doctor",
        run,
        help="whether a cluster has what run --backend kubernetes needs",
        description="Ask a cluster for everything that run --backend kubernetes needs, and say for"
        " each thing that is missing what to do, and what nobody could be asked for. Nothing is"
        " changed.",
        epilog="exit status: 0 a run can begin, 2 bad input, as a kubeconfig that is none, 4 a run"
        " cannot begin, or no cluster is named",
    )
    add(
        "pipeline",
        "a pipeline YAML, or the name of one that comes with the program, for its key kubernetes"
        " and its initial configuration",
        named_pipeline,
        nargs="?",
        metavar="PIPELINE",
    )
    add_cluster_options(add)
    add("--prometheus URL", "what scrapes Kepler and DCGM", named_server)


def add_cluster_options(add: Arguments) -> None:
    """Which cluster, and where in it."""
    add("--kubeconfig FILE", "default: $KUBECONFIG, in a pod its service account", named_path)
    add("--context NAME", "of the kubeconfig")
    add("--namespace NAME", "key: kubernetes.namespace", _namespace)


def _namespace(text: str) -> str:
    if re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text) is None:
        raise argparse.ArgumentTypeError(
            f"{text!r}; allowed: a name of lower-case letters, digits and -"
        )
    return text


def run(args: argparse.Namespace) -> int:
    """Look, and print what was found."""
    require("kubernetes", what="doctor", extra="kubernetes")
    from ipa_energy.config.sections import KubernetesConfig
    from ipa_energy.planning.planner import load_planner
    from ipa_energy.runner import initial_configuration
    from ipa_energy.serving.deployment import Deployment
    from ipa_energy.serving.kubernetes.cluster_api import ClusterApi
    from ipa_energy.serving.kubernetes.doctor import checks, is_fit, without_cluster

    settings = KubernetesConfig()
    start: Deployment = ()
    if args.pipeline is not None:
        planner = load_planner(args.pipeline)
        settings = planner.config.kubernetes or settings
        start = initial_configuration(planner)
    try:
        api = ClusterApi(args.kubeconfig, args.context)
    except ConfigError as error:
        if args.kubeconfig or args.context:  # what was named is not there
            raise
        fix = error.fix or ""
        found = list(without_cluster(error.what, fix, settings, prometheus_url=args.prometheus))
    else:
        namespace = args.namespace or settings.namespace or api.namespace
        found = list(checks(api, settings, namespace, start=start, prometheus_url=args.prometheus))
    if args.json:
        print_json({"is_fit": is_fit(found), "checks": [asdict(check) for check in found]})
    else:
        width = max(len(check.name) for check in found)
        for check in found:
            print(f"{MARKS[check.state]}  {check.name:{width}}  {check.found}")
            if check.fix is not None and check.state != "ok":
                print(f"{'':{width + 11}}fix: {check.fix}")
    return EXIT_DONE if is_fit(found) else EXIT_UNAVAILABLE
