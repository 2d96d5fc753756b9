"""Lists the packages, which pyproject.toml cannot; everything else is declared there.

The configurations, the models of the pipelines and the patches for IPA live in folders at the top
of the repository and are installed inside the package, where ``ipa_energy/shipped.py`` finds them:
no program may claim such names among the installed packages.
"""

from pathlib import Path

from setuptools import find_namespace_packages, setup

SHIPPED = {
    "ipa_energy.configs": "configs",
    "ipa_energy.patches": "patches",
    "ipa_energy.pipelines": "pipelines",
    **{
        f"ipa_energy.pipelines.{pipeline.parent.name}": f"pipelines/{pipeline.parent.name}"
        for pipeline in sorted(Path("pipelines").glob("*/pipeline.py"))
    },
}

setup(packages=[*find_namespace_packages(include=["ipa_energy*"]), *SHIPPED], package_dir=SHIPPED)
