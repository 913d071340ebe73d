"""Limits of containers and batch systems, read from a system of files."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from cellrt import limits
from cellrt.errors import InputError, ResourceError
from cellrt.limits import (
    check_process_limits,
    free_memory,
    means_no_memory,
    out_of_memory,
    usable_cores,
)

GB = 1 << 30
V2 = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = (
    "31 20 0:27 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "32 20 0:28 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)
UNIFIED = "33 20 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Write files of a system on a machine with 64 GB, 48 of them free, and 16 cores."""
    memory = SimpleNamespace(available=48 * GB, total=64 * GB)
    monkeypatch.setattr(limits.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(limits.psutil, "cpu_count", lambda: 16)
    monkeypatch.setattr(
        limits.os, "sched_getaffinity", lambda process: set(range(16)), raising=False
    )
    for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    limits._quotas.cache_clear()

    def write(groups, mounts, **files):
        contents = {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts}
        contents |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
        for name, text in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_without_groups_the_machine_decides(tmp_path, system):
    assert usable_cores(tmp_path)[:2] == (16, "the machine")
    assert free_memory(tmp_path) == (48 * GB, 64 * GB, "the machine")


def test_the_group_of_a_container_whose_root_it_is(system):
    root = system(
        "0::/\n",
        V2,
        **{
            "memory.max": f"{8 * GB}\n",
            "memory.current": f"{6 * GB}\n",
            "memory.stat": f"anon {1 * GB}\nfile {5 * GB}\ninactive_file {4 * GB}\n",
            "cpu.max": "250000 100000\n",
        },
    )
    memory = free_memory(root)
    # Pages of files that were read once do not count: 6 GB used, 4 of them such.
    assert memory[:2] == (6 * GB, 8 * GB)
    assert "control group /" in memory.source
    cores = usable_cores(root)
    assert cores.number == 3  # two and a half
    assert cores.granted
    assert "CPU quota" in cores.source


@pytest.mark.parametrize("tight", ["slurm", "slurm/job_7", "slurm/job_7/step_0"])
def test_the_tightest_of_nested_groups_counts(system, tight):
    files = {}
    for name in ("slurm", "slurm/job_7", "slurm/job_7/step_0"):
        files[f"{name}/memory.max"] = f"{4 * GB}" if name == tight else "max"
        files[f"{name}/memory.current"] = f"{GB}"
        files[f"{name}/cpu.max"] = "200000 100000" if name == tight else "max 100000"
    root = system("0::/slurm/job_7/step_0\n", V2, **files)
    assert free_memory(root)[:2] == (3 * GB, 4 * GB)
    assert f"/{tight}" in free_memory(root).source
    assert usable_cores(root).number == 2


def test_a_smaller_limit_with_more_left_does_not_decide(system):
    root = system(
        "0::/job/step\n",
        V2,
        **{
            "job/memory.max": f"{20 * GB}",
            "job/memory.current": f"{19 * GB}",
            "job/step/memory.max": f"{8 * GB}",
            "job/step/memory.current": f"{2 * GB}",
        },
    )
    assert free_memory(root)[:2] == (GB, 20 * GB)


def test_the_limit_above_which_a_group_is_slowed_down_counts(system):
    root = system(
        "0::/\n",
        V2,
        **{"memory.max": "max", "memory.high": f"{2 * GB}", "memory.current": f"{GB}"},
    )
    assert free_memory(root)[:2] == (GB, 2 * GB)


@pytest.mark.parametrize("top", ["/", "/docker/ab12", "/elsewhere"])
@pytest.mark.parametrize("unified", ["", UNIFIED])
def test_version_1_and_both_at_once(system, top, unified):
    # In a container the group's own folder is the mount, whatever the group is called outside.
    inside = "docker/ab12/" if top == "/" else ""
    root = system(
        "5:memory:/docker/ab12\n4:cpu,cpuacct:/docker/ab12\n0::/\n",
        V1.format(top=top) + unified,
        **{
            f"memory/{inside}memory.limit_in_bytes": f"{4 * GB}",
            f"memory/{inside}memory.usage_in_bytes": f"{3 * GB}",
            f"memory/{inside}memory.stat": f"inactive_file 5\ntotal_inactive_file {GB}\n",
            f"cpu,cpuacct/{inside}cpu.cfs_quota_us": "50000\n",
            f"cpu,cpuacct/{inside}cpu.cfs_period_us": "100000\n",
        },
    )
    assert free_memory(root)[:2] == (2 * GB, 4 * GB)
    assert usable_cores(root).number == 1  # half a core


def test_what_version_1_knows_of_groups_that_cannot_be_seen_counts(system):
    root = system(
        "5:memory:/job\n",
        V1.format(top="/job"),
        **{
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "memory/memory.usage_in_bytes": f"{GB}",
            "memory/memory.stat": f"hierarchical_memory_limit {5 * GB}\n",
        },
    )
    assert free_memory(root)[:2] == (4 * GB, 5 * GB)


def test_no_limit_is_none_in_both_versions(system):
    root = system(
        "5:memory:/\n4:cpu,cpuacct:/\n0::/\n",
        V1.format(top="/") + UNIFIED,
        **{
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "memory/memory.usage_in_bytes": "1",
            "cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/cpu.cfs_period_us": "100000",
            "unified/memory.max": "max",
            "unified/cpu.max": "max 100000",
        },
    )
    assert free_memory(root).source == "the machine"
    assert usable_cores(root).source == "the machine"


@pytest.mark.parametrize("broken", ["", "\x00\xff", "a:b", "::::", "0::/no/such/group"])
def test_files_that_say_nothing_change_nothing(system, broken):
    root = system(broken, V2, **{"memory.max": "rubbish", "cpu.max": "max", "memory.stat": "x y z"})
    assert free_memory(root).source == "the machine"
    assert usable_cores(root).number == 16


def test_a_file_that_cannot_be_read_changes_nothing(system):
    root = system("0::/\n", V2)
    (root / "sys/fs/cgroup/memory.max").mkdir(parents=True)
    (root / "sys/fs/cgroup/cpu.max").mkdir()
    assert free_memory(root).source == "the machine"
    assert usable_cores(root).number == 16


def test_a_group_that_uses_more_than_its_limit_has_nothing_left(system):
    root = system("0::/\n", V2, **{"memory.max": "1000", "memory.current": "2000"})
    assert free_memory(root).free == 0


@pytest.mark.parametrize("name", ["SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"])
@pytest.mark.parametrize(("value", "number"), [("4", 4), ("4,2", 4), ("64", 16), ("x", 16)])
def test_what_a_batch_system_says(tmp_path, system, monkeypatch, name, value, number):
    monkeypatch.setenv(name, value)
    cores = usable_cores(tmp_path)
    assert cores.number == number
    assert cores.source == (name if number == 4 else "the machine")


def test_affinity_counts_and_needs_not_be_told_to_libraries(tmp_path, system, monkeypatch):
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda process: {3, 5}, raising=False)
    assert usable_cores(tmp_path) == (2, "CPU affinity", False)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_the_limit_of_the_address_space_counts(tmp_path, system, monkeypatch):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda which: (10 * GB, -1))
    memory = free_memory(tmp_path)
    assert memory.limit == 10 * GB
    assert 0 < memory.free < 10 * GB
    assert "ulimit" in memory.source


def test_this_machine_has_some():
    assert usable_cores().number >= 1
    assert 0 < free_memory().free <= free_memory().limit


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limits")
@pytest.mark.parametrize("name", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_a_limit_below_what_libraries_take_is_refused_at_once(monkeypatch, name):
    import resource

    unlimited = resource.RLIM_INFINITY
    limited = getattr(resource, name)
    monkeypatch.setattr(
        resource, "getrlimit", lambda which: (GB // 4 if which == limited else unlimited, -1)
    )
    with pytest.raises(ResourceError, match=rf"{name} \(ulimit -[vd]\) allows 0\.\d+ GB"):
        check_process_limits()
    assert name in free_memory().source
    assert f"{name} (ulimit -" in out_of_memory()


@pytest.mark.parametrize(
    "text",
    [
        "can't alloc",
        "std::bad_alloc",
        "x.so: failed to map segment from shared object",
        "can't start new thread",
        "[Errno 12] Cannot allocate memory",
    ],
)
def test_what_libraries_say_of_too_little_memory(text):
    error = ValueError("unreadable")
    error.__cause__ = RuntimeError(text)
    assert means_no_memory(error)
    assert means_no_memory(MemoryError())
    assert means_no_memory(OSError(errno.ENOMEM, "?"))
    assert not means_no_memory(RuntimeError("CUDA error: out of memory"))
    assert not means_no_memory(ValueError("no such file"))


def test_what_only_sounds_like_too_little_memory():
    locked = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    ours = InputError("another run is writing out of memory.tif")
    ours.__cause__ = locked
    assert not means_no_memory(locked)
    assert not means_no_memory(ours)
    assert not means_no_memory(FileNotFoundError(errno.ENOENT, "missing", "bad_alloc.tif"))
    # What the C++ library says where no thread can be started.
    assert means_no_memory(RuntimeError("Resource temporarily unavailable"))
