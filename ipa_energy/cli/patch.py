"""``ipa-energy patch``: a checkout of IPA that plans with energy, and back again."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipa_energy.as_json import as_json
from ipa_energy.cli.options import Verbs, named_path, print_json, text_table
from ipa_energy.errors import EXIT_DONE, ConfigError, IpaEnergyError

if TYPE_CHECKING:
    from ipa_energy.plugin.checkout import Checkout
    from ipa_energy.plugin.environment import Lack
    from ipa_energy.plugin.patch_set import PatchSet
    from ipa_energy.plugin.patching import CheckoutState, Outcome, TargetState

ACTIONS = {
    "apply": "patch every file, or none; nothing happens where it is patched already",
    "check": "whether apply would do it, or has done it; changes nothing",
    "revert": "take the patch's lines out again; your own changes stay",
    "status": "what is there: clean, patched, foreign (files that are neither), or partial",
}


def add_to(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    add = verbs.add(
        "patch",
        patch,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="give a checkout of IPA its energy term, or take it out",
        description="Patch a checkout of IPA so that its own runner plans with energy. Every file "
        "is verified first,\nall are patched or none, and revert restores every byte.",
        epilog="\n".join(f"{name:8}{what}" for name, what in ACTIONS.items())
        + "\n\nstatus also lists what IPA itself lacks here to run; apply and check count it.",
    )
    add("action", None, choices=tuple(ACTIONS), metavar="|".join(ACTIONS))
    add("--ipa-home DIR", "checkout of IPA (default: $IPA_HOME)", named_path)
    add.flag(
        "--keep-edits",
        "apply, check: patch files with other changes too, where git can merge the two",
    )
    add(
        "--python PYTHON",
        "the Python that runs IPA (default: this one)",
        named_path,
        default=Path(sys.executable),
    )
    add("--patches DIR", "other patches than the ones for IPA e1f08dd", named_path)


def patch(args: argparse.Namespace) -> int:
    """Do it, then say how things stand."""
    from ipa_energy.plugin.checkout import open_checkout
    from ipa_energy.plugin.environment import in_short, missing
    from ipa_energy.plugin.patch_set import bundled_patches, load_patch_set
    from ipa_energy.plugin.patching import state_of

    home = args.ipa_home or os.environ.get("IPA_HOME")
    if not home:
        raise ConfigError("no checkout of IPA given", fix="give --ipa-home DIR, or set IPA_HOME")
    if args.keep_edits and args.action not in {"apply", "check"}:
        raise ConfigError(f"--keep-edits means nothing with {args.action}")
    patches = load_patch_set(args.patches or bundled_patches())
    checkout = open_checkout(Path(home), patches)
    # What IPA lacks does not bear on taking the patch out.
    lacks = [] if args.action == "revert" else missing(checkout.root, args.python)
    try:
        outcome = _act(args, checkout, patches)
    except IpaEnergyError as error:
        if not args.json:
            raise
        print(f"ipa-energy: error: {error}", file=sys.stderr)
        refusal = {"kind": type(error).__name__, "message": str(error)}
        print_json(_document(checkout, patches, state_of(checkout, patches), lacks, error=refusal))
        return error.exit_status
    state = state_of(checkout, patches)
    if args.json:
        print_json(_document(checkout, patches, state, lacks, outcome=outcome))
    else:
        print(_text(args.action, checkout, patches, state, outcome))
        if lacks:
            print(_lacks_text(args.action, checkout, in_short(lacks)))
    return EXIT_DONE


def _act(args: argparse.Namespace, checkout: Checkout, patches: PatchSet) -> Outcome | None:
    from ipa_energy.plugin import patching

    if args.action == "apply":
        return patching.apply(checkout, patches, keep_edits=args.keep_edits)
    if args.action == "revert":
        return patching.revert(checkout, patches)
    if args.action == "check":
        patching.check(checkout, patches, keep_edits=args.keep_edits)
    return None


def _document(
    checkout: Checkout,
    patches: PatchSet,
    state: CheckoutState,
    lacks: list[Lack],
    *,
    outcome: Outcome | None = None,
    error: dict[str, str] | None = None,
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "state": state.state,
        "files": [_file(file) for file in state.files],
        "missing": as_json(lacks),
        "interrupted": state.unfinished,
        "changed": list(outcome.changed) if outcome is not None else [],
        "undone": outcome.undone if outcome is not None else False,
        "ipa_home": str(checkout.root),
        "commit": {"needed": patches.commit, "found": checkout.commit},
    }
    return document if error is None else {**document, "error": error}


def _file(file: TargetState) -> dict[str, Any]:
    return {
        "path": file.path,
        "state": file.state,
        "patch": file.patch,
        "reason": file.reason,
        "hunks": [
            {"hunk": misfit.hunk.number, "line": misfit.hunk.after_line, "reason": misfit.reason}
            for misfit in file.misfits
        ],
    }


def _text(
    action: str,
    checkout: Checkout,
    patches: PatchSet,
    state: CheckoutState,
    outcome: Outcome | None,
) -> str:
    lines = [_result(action, patches, state, outcome)]
    if outcome is not None and outcome.undone:
        lines.insert(0, "an interrupted patch was undone first")
    if action in {"check", "status"}:
        rows = [[file.path, file.state] for file in state.files]
        lines += ["", text_table(["file", "state"], rows)]
        lines += [f"{file.path}: {note}" for file in state.files for note in _notes(file)]
        if state.unfinished:
            lines.append("a patch was interrupted here; apply and revert undo it first")
        if checkout.commit not in {None, patches.commit}:
            found = str(checkout.commit)[:7]
            lines.append(f"the checkout is at {found}, the patches are for {patches.short_commit}")
    return "\n".join(lines)


def _lacks_text(action: str, checkout: Checkout, lacks: list[Lack]) -> str:
    things = "1 thing" if len(lacks) == 1 else f"{len(lacks)} things"
    if action != "status":
        listed = f"ipa-energy patch status --ipa-home {checkout.root}"
        return f"to run, IPA lacks {things} here: {listed}"
    lines = [f"  {lack.name}: {lack.reason}\n    fix: {lack.fix}" for lack in lacks]
    return "\n".join([f"\nto run, IPA lacks {things} here:", *lines])


def _result(action: str, patches: PatchSet, state: CheckoutState, outcome: Outcome | None) -> str:
    hunks = [hunk for target in patches.targets for hunk in target.hunks]
    added = sum(len(hunk.lines) for hunk in hunks)
    if outcome is None:
        out = any(file.patch == "out" for file in state.files)
        can = " (apply would patch it)" if action == "check" and out else ""
        return f"state: {state.state}{can}"
    if action == "apply":
        if not outcome.changed:
            return "already patched: nothing to do"
        return f"patched: {len(outcome.changed)} files, {added} lines added in {len(hunks)} places"
    if not outcome.changed:
        return "not patched: nothing to do"
    own = [file.path for file in state.files if file.state == "foreign"]
    kept = f"; your changes in {', '.join(own)} are kept" if own else ""
    return f"reverted: {len(outcome.changed)} files{kept}"


def _notes(file: TargetState) -> list[str]:
    if file.reason is None:
        return []
    whole = f"{file.reason}; the patch is in it" if file.patch == "in" else file.reason
    return [whole, *(f"hunk {misfit.hunk.number}: {misfit.reason}" for misfit in file.misfits)]
