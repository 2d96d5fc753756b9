"""Lists the packages, which pyproject.toml cannot; everything else is declared there.

The patches for IPA live in a folder of their own at the top of the repository, and are installed
inside the package, where ``ipa-energy patch`` finds them.
"""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["ipa_energy*"]), "ipa_energy.patches"],
    package_dir={"ipa_energy.patches": "patches"},
)
