"""A trade-off study to look at; :func:`~.page.write_page` and ``write_images`` make files of it."""

from __future__ import annotations

from collections.abc import Mapping

from ipa_energy.records import joules_from
from ipa_energy.report.case_figures import case_figures
from ipa_energy.report.figure import Figure, key_of
from ipa_energy.report.map_figures import front_figure, hardware_figure, plan_map_figure
from ipa_energy.report.page import (
    Facts,
    Page,
    Section,
    as_title,
    meanings,
    notices,
    setting_text,
)
from ipa_energy.tradeoff.sensitivity import Sensitivity
from ipa_energy.tradeoff.sentences import feasible_words, sensitivity_sentences
from ipa_energy.tradeoff.study import Case, Study
from ipa_energy.tradeoff.study_tables import case_tables, exchange_table, hardware_table, map_table


def tradeoff_page(study: Study) -> Page:
    """The page of a study."""
    first, *others = study.answer or ("A trade-off study.",)
    sections = [Section(title="The answer", points=others)] if others else []
    if study.warnings:
        sections.append(Section(title="What limits it", points=study.warnings, kind="warning"))
    several = len(study.cases) > 1
    for index, case in enumerate(study.cases, start=1):
        suffix = key_of(f"{index}", case.name) if several else ""
        sections += [*_case_sections(case, suffix), *_sensitivity(case, study, suffix)]
    sections += _map_sections(study)
    sections.append(_provenance(study))
    return Page(
        kind=f"Trade-off study: {study.pipeline}",
        title=as_title(first[:1].upper() + first[1:]),
        name=f"Trade-off study: {study.pipeline}",
        sections=sections,
    )


def _case_sections(case: Case, suffix: str) -> list[Section]:
    """What was run, as a table of the configurations that the pictures after it name."""
    load = f"{case.load_rps:g} requests per second"
    if case.peak_rps != case.lowest_rps:
        load = f"{case.lowest_rps:g} to {case.peak_rps:g}, on average {load}"
    text = [
        f"{load} for {case.duration_s} s, end-to-end latency SLA {case.latency_sla_s:.3g} s."
        f" By the profile {feasible_words(case)}.",
    ]
    if case.conflict is not None:
        text.append(f"No plan is feasible: {case.conflict}")
    tables = case_tables(case)
    first = tables[: bool(case.points)]
    return [
        Section(
            title=f"At {case.name}",
            text=text,
            points=[f"Not run: {one.name}: {one.reason}" for one in case.skipped],
            tables=first,
        ),
        Section(
            title=f"Pictures and numbers at {case.name}",
            figures=case_figures(case, suffix) if case.points else (),
            tables=tables[len(first) :],
        ),
    ]


def _sensitivity(case: Case, study: Study, suffix: str) -> list[Section]:
    analysis = study.sensitivity.get(case.name)
    if analysis is None:
        return []
    figure, table = _front(analysis, case, study, suffix), exchange_table(analysis)
    return [
        Section(
            title=f"Sensitivity at {case.name}",
            points=sensitivity_sentences(analysis),
            tables=[table] if table else (),
            figures=[figure] if figure else (),
        )
    ]


def _front(found: Sensitivity, case: Case, study: Study, suffix: str) -> Figure | None:
    return front_figure(found, case.name, suffix, joules_from(study.quality, study.meter))


def _map_sections(study: Study) -> list[Section]:
    sections = []
    if study.plan_map is not None:
        sections.append(
            Section(
                title="Plan map",
                figures=[plan_map_figure(study.plan_map, joules_from(study.quality, study.meter))],
                tables=[map_table(study.plan_map)],
            )
        )
    if study.hardware_comparison is not None:
        sections.append(
            Section(
                title="Hardware",
                figures=[hardware_figure(study.hardware_comparison)],
                tables=[hardware_table(study.hardware_comparison)],
            )
        )
    return sections


def _provenance(study: Study) -> Section:
    return Section(
        title="Provenance",
        text=[*meanings([study.quality]), *notices([study.meter]), study.selection],
        facts=[
            Facts("Study", _study_facts(study)),
            Facts("Objective", {key: setting_text(value) for key, value in study.settings.items()}),
            *(
                Facts(
                    f"Profile {profile.profile}",
                    {
                        "hardware": profile.hardware,
                        "joules": joules_from(profile.quality, profile.meter) or "none",
                        "options": str(profile.options),
                        "latency SLA": f"{profile.latency_sla_s:.3g} s",
                    },
                )
                for profile in (
                    study.hardware_comparison.profiles if study.hardware_comparison else ()
                )
            ),
        ],
    )


def _study_facts(study: Study) -> Mapping[str, str]:
    return {
        "joules": joules_from(study.quality, study.meter) or "none in the profile",
        "profile": study.profile,
        "hardware": study.hardware or "not recorded",
        "backend": study.backend,
        "trials": f"{study.trials} of each configuration, seeds from {study.seed}",
        "versions": ", ".join(f"{name} {version}" for name, version in study.versions.items()),
    }
