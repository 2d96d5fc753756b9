"""The small checkout of ``patch_tree``, built once and copied for every test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from patch_tree import Tree, make_tree


@pytest.fixture(scope="session")
def pristine_tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Not to be changed."""
    if shutil.which("git") is None:
        pytest.skip("needs git to make a checkout")
    return make_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture
def tree(pristine_tree: Tree, tmp_path: Path) -> Tree:
    """A checkout to patch."""
    return pristine_tree.copy(tmp_path / "checkout")
