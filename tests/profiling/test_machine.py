"""Which CPUs replicas get: whole cores of their own if there are enough, one node if it fits."""

import random

import pytest

from ipa_energy.profiling.machine import Core, Topology, parse_cpu_list, placements, read_topology

# Two nodes of four cores with two threads each: CPU n and n + 8 are one core.
TWO_NODES = Topology([Core(n // 4, (n, n + 8)) for n in range(8)])
NO_SMT = Topology([Core(0, (n,)) for n in range(16)])


def system(tmp_path, siblings, nodes, name="core_cpus_list"):
    """The kernel's folder: CPU → its siblings as text, node → its CPUs as text."""
    for cpu, text in siblings.items():
        folder = tmp_path / f"cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / name).write_text(text + "\n")
    for node, text in nodes.items():
        folder = tmp_path / f"node/node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(text + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("replicas", "cpus", "expected"),
    [
        (1, 1, [(0,)]),
        (2, 1, [(0,), (1,)]),
        (1, 4, [(0, 1, 2, 3)]),  # a node, second threads idle
        (2, 3, [(0, 1, 2), (4, 5, 6)]),  # three do not fit beside three in one node
        (2, 4, [(0, 1, 2, 3), (4, 5, 6, 7)]),
        (4, 3, [(0, 1, 8), (2, 3, 10), (4, 5, 12), (6, 7, 14)]),  # its own second threads
        (2, 8, [(0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)]),
        (1, 8, [(0, 1, 2, 3, 4, 5, 6, 7)]),
        (1, 16, [tuple(range(16))]),
    ],
)
def test_replicas_on_a_machine_with_two_threads_a_core(replicas, cpus, expected):
    placement = TWO_NODES.place(replicas, cpus)
    assert list(placement.replicas) == expected
    assert not placement.shares_cores
    assert placement.spans_nodes == (replicas == 1 and cpus > 4)


def test_sharing_that_cannot_be_avoided_is_said():
    # 3 × 5 CPUs of 16: whole cores would need 3 × 3 = 9 of 8.
    placement = TWO_NODES.place(3, 5)
    used = [cpu for cpus in placement.replicas for cpu in cpus]
    assert len(used) == len(set(used)) == 15
    assert placement.shares_cores


def test_sixteen_cores_without_threads_are_taken_in_order():
    for cpus in (1, 2, 4, 8, 16):
        assert NO_SMT.place(1, cpus).replicas == (tuple(range(cpus)),)
        assert not NO_SMT.place(16 // cpus, cpus).shares_cores


def test_every_placement_is_disjoint_and_shares_only_where_cores_run_out():
    rng = random.Random(7)
    for _ in range(300):
        threads, nodes, cores = rng.choice((1, 2, 4)), rng.choice((1, 2)), rng.randint(1, 12)
        topology = Topology(
            [Core(n % nodes, tuple(n + cores * t for t in range(threads))) for n in range(cores)]
        )
        replicas = rng.randint(1, topology.cpus)
        cpus = rng.randint(1, topology.cpus // replicas)
        placement = topology.place(replicas, cpus)
        used = [cpu for own in placement.replicas for cpu in own]
        assert [len(own) for own in placement.replicas] == [cpus] * replicas
        assert len(set(used)) == len(used)
        assert set(used) <= set(range(cores * threads))
        enough = replicas * -(-cpus // threads) <= cores
        assert placement.shares_cores != enough


def test_topology_is_read_as_the_kernel_writes_it(tmp_path):
    siblings = {0: "0,4", 1: "1,5", 2: "2,6", 3: "3,7", 4: "0,4", 5: "1,5", 6: "2,6", 7: "3,7"}
    root = system(tmp_path, siblings, {0: "0-1,4-5", 1: "2-3,6-7"})
    topology = read_topology(range(8), root)
    assert topology.cores == (
        Core(0, (0, 4)),
        Core(0, (1, 5)),
        Core(1, (2, 6)),
        Core(1, (3, 7)),
    )
    assert topology.to_json() == {"cpus": 8, "cores": 4, "threads_per_core": 2, "numa_nodes": 2}


def test_older_kernels_and_partial_affinities(tmp_path):
    root = system(tmp_path, {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}, {}, "thread_siblings_list")
    assert read_topology([0, 2, 3], root).cores == (Core(0, (0, 2)), Core(0, (3,)))


def test_where_the_kernel_says_nothing_each_cpu_is_a_core(tmp_path):
    assert read_topology([3, 5], tmp_path).cores == (Core(0, (3,)), Core(0, (5,)))


def test_cpus_that_somebody_named_keep_their_order():
    placed = placements(TWO_NODES, [8, 0, 3, 1], [(2, 2)])
    assert placed[2, 2].replicas == ((8, 0), (3, 1))
    assert not placed[2, 2].shares_cores
    assert placements(TWO_NODES, [0, 8], [(2, 1)])[2, 1].shares_cores


def test_cpu_lists():
    assert parse_cpu_list("0-3,8\n") == (0, 1, 2, 3, 8)
    assert parse_cpu_list("\n") == ()
    with pytest.raises(ValueError, match="invalid"):
        parse_cpu_list("a-b")
