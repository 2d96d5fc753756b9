"""Groups of replicas: on a made-up tree of cgroup version 2, and on the real one if it lets us."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipa_energy.serving.local import cpu_groups
from ipa_energy.serving.local.cpu_groups import CpuGroups, Cpus, sweep_left

FILES = ("cgroup.procs", "cgroup.type", "cgroup.subtree_control", "cpuset.cpus", "cpu.max")
NAME = f"ipa-energy-{os.getpid()}"


class Tree:
    """A kernel's tree in ordinary files: a new folder has files, and goes although it has them."""

    def __init__(self, root: Path, controllers: str = "cpuset cpu memory") -> None:
        self.proc, self.mount = root / "proc", root / "cgroup"
        self.ours = self.mount / "user" / "scope"
        self.ours.mkdir(parents=True)
        (self.proc / "self").mkdir(parents=True)
        (self.proc / str(os.getpid())).mkdir()
        (self.proc / "self" / "cgroup").write_text("4:memory:/elsewhere\n0::/user/scope\n")
        (self.proc / "self" / "mounts").write_text(
            f"proc /proc proc rw 0 0\nnone {self.mount} cgroup2 rw 0 0\n"
        )
        (self.ours / "cgroup.controllers").write_text(controllers)
        self.fill(self.ours)

    def fill(self, folder: Path) -> None:
        for name in FILES:
            (folder / name).write_text("")

    def make(self, folder: Path) -> None:
        folder.mkdir()
        self.fill(folder)

    def removed(self, folder: Path) -> bool:
        if not folder.exists():
            return True
        if any(path.is_dir() for path in folder.iterdir()):
            return False
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        return True

    def read(self, *path: str) -> str:
        return self.ours.joinpath(*path).read_text()


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    made = Tree(tmp_path)
    monkeypatch.setattr(cpu_groups, "_make", made.make)
    monkeypatch.setattr(cpu_groups, "_removed", made.removed)
    return made


def test_each_replica_has_a_group_with_its_cpus_that_goes_with_it(tree: Tree) -> None:
    groups = CpuGroups(tree.proc)
    assert groups.told == "affinity and cgroup (cpuset, cpu)"
    assert tree.read(NAME, "cgroup.type") == "threaded"
    cpus = Cpus((0, 1, 2), groups)
    one, two = cpus.take(2, "crop-1"), cpus.take(1, "name/of-2")
    assert tree.read(NAME, "crop-1", "cpuset.cpus") == "0,1"
    assert tree.read(NAME, "crop-1", "cpu.max") == "200000 100000"
    assert tree.read(NAME, "name_of-2", "cpuset.cpus") == "2"
    assert one.group is not None
    one.group.add(4711)
    assert tree.read(NAME, "crop-1", "cgroup.procs") == "4711"
    third = cpus.take(1, "crop-3")
    assert (third.cpus, tree.read(NAME, "crop-3", "cpuset.cpus")) == ((0,), "0")
    cpus.give_back(two)
    assert not (tree.ours / NAME / "name_of-2").exists()
    assert (one.cpus, third.cpus) == ((1, 2), (0,))  # nobody shares beside an idle one
    assert tree.read(NAME, "crop-1", "cpuset.cpus") == "1,2"
    groups.close()
    assert not (tree.ours / NAME).exists()
    assert tree.read("cgroup.subtree_control") in ("-cpu", "-cpuset")  # the last one of both
    groups.close()


def test_what_killed_planes_left_is_taken_away_and_of_others_nothing(tree: Tree) -> None:
    for name in ("ipa-energy-99999999", "ipa-energy-1", "other"):
        tree.make(tree.ours / name)
    tree.make(tree.ours / "ipa-energy-99999999" / "crop-1")
    (tree.proc / "1").mkdir()
    sweep_left(tree.proc)
    left = {path.name for path in tree.ours.iterdir() if path.is_dir()}
    assert left == {"ipa-energy-1", "other"}


def test_a_controller_that_is_on_already_is_left_on(tree: Tree) -> None:
    (tree.ours / "cgroup.subtree_control").write_text("cpuset cpu")
    CpuGroups(tree.proc).close()
    assert tree.read("cgroup.subtree_control") == "cpuset cpu"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ("controllers", "has neither cpu nor cpuset)"),
        ("version", "affinity (no cgroup version 2)"),
        ("make", "permission denied)"),
        ("type", "operation not supported)"),
    ],
)
def test_without_groups_replicas_are_pinned_all_the_same_and_it_is_told(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, spoil: str, told: str
) -> None:
    def refused(number: int) -> None:
        raise OSError(number, os.strerror(number))

    if spoil == "controllers":
        (tree.ours / "cgroup.controllers").write_text("hugetlb memory")
    elif spoil == "version":
        (tree.proc / "self" / "mounts").write_text("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n")
    elif spoil == "make":
        monkeypatch.setattr(cpu_groups, "_make", lambda _: refused(13))
    else:
        monkeypatch.setattr(cpu_groups, "_write", lambda *_: refused(95))
    groups = CpuGroups(tree.proc)
    assert groups.told.startswith("affinity (")
    assert groups.told.endswith(told)
    pinned = Cpus((0,), groups).take(1, "crop-1")
    assert (pinned.cpus, pinned.group) == ((0,), None)
    groups.close()
    assert {path.name for path in tree.ours.iterdir() if path.is_dir()} == set()


def test_this_machine_is_left_as_it_was() -> None:
    ours = cpu_groups._own_group(Path("/proc"), None)

    def seen() -> set[str]:
        return {path.name for path in ours.glob("*/")} if ours else set()

    before = seen()
    groups = CpuGroups()
    assert groups.told.startswith("affinity")
    if (group := groups.group("crop-1")) is not None:
        group.hold((0,))
        assert NAME in seen()
        group.close()
    groups.close()
    assert NAME not in seen()
    assert before - seen() <= {name for name in before if name.startswith("ipa-energy-")}
