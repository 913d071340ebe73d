"""What travels to a GPU machine without network: code of its kind of card, and nothing moved."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "device_check"
PTX, CUBIN = 1, 2


@pytest.fixture
def prepare(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import prepare

    return prepare


def entry(kind, sm, payload):
    header = struct.pack("<HHIQ12xI", kind, 0x101, 64, len(payload), sm).ljust(64, b"\1")
    return header + payload


def container(*entries):
    content = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(content)) + content


def library(code):
    """A shared object with nothing but GPU code and what comes after it."""
    names = b"\0.nv_fatbin\0.names\0"
    after = 64 + len(code)
    table = after + len(names)
    sections = [(0, 0, 0), (1, 64, len(code)), (12, after, len(names))]
    head = b"\x7fELF\x02\x01".ljust(40, b"\0") + struct.pack("<Q10xHHH", table, 64, 3, 2)
    rows = [struct.pack("<I20xQQ", *section).ljust(64, b"\0") for section in sections]
    return bytearray(head.ljust(64, b"\0") + code + names + b"".join(rows))


def test_only_the_code_that_the_card_loads_is_kept(prepare):
    def code(a, b, c, d):
        return (
            container(entry(CUBIN, 80, a), entry(CUBIN, 90, b"kept"), entry(PTX, 90, b))
            + bytes(2)  # to the next multiple of 8
            + container(entry(CUBIN, 120, c), entry(PTX, 80, c), entry(PTX, 90, b"kept too"))
            + container(entry(CUBIN, 80, d))
        )

    data = library(code(b"a" * 16, b"b" * 2, b"c" * 8, b"d" * 8))
    assert prepare.keep_one_card(data, 90) == (4 + 8, 16 + 2 + 2 * 8 + 8)
    assert data == library(code(bytes(16), bytes(2), bytes(8), bytes(8)))


def test_a_kernel_that_nobody_calls_becomes_one_for_another_card(prepare):
    data = library(
        container(entry(CUBIN, 90, b"flash_fwd_kernel")) + container(entry(CUBIN, 90, b"conv"))
    )
    assert prepare.keep_one_card(data, 90, (b"flash_fwd",)) == (4, 16)
    ((start, stop),) = prepare.gpu_sections(data)
    (flash,), (conv,) = prepare.containers(data, start, stop)
    assert prepare.loaded([flash], 90) is None
    assert prepare.loaded([conv], 90) == conv


def test_what_is_no_container_is_left_alone(prepare):
    data = library(b"something")
    with pytest.raises(ValueError, match="no container of GPU code at byte 64"):
        prepare.keep_one_card(data, 90)
    assert data == library(b"something")


def test_a_folder_unpacks_itself_and_refuses_a_damaged_part(prepare, tmp_path):
    wheel, folder = tmp_path / "some-1-py3-none-any.whl", tmp_path / "base"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some/module.py", "a = 1" * 100)
        archive.writestr("some/licenses/text", "left out")
    prepare.pack([wheel], folder, part_bytes=50, whole=False)
    assert len(list(folder.glob("site.tar.xz.*"))) > 1

    def unpack(site):
        words = [sys.executable, folder / "unpack.py", site]
        return subprocess.run(words, capture_output=True, text=True)

    assert unpack(tmp_path / "site").returncode == 0
    files = [path for path in (tmp_path / "site").rglob("*") if path.is_file()]
    assert [path.read_text() for path in files] == ["a = 1" * 100]
    (folder / "site.tar.xz.1").write_bytes(b"damaged")
    done = unpack(tmp_path / "other")
    assert done.returncode == 1
    assert "site.tar.xz.1 is not what was packed" in done.stderr
    assert not (tmp_path / "other").exists()


def test_the_check_is_rehearsed_on_a_cpu(tmp_path):
    done = subprocess.run(
        [sys.executable, str(FOLDER / "run.py"), str(tmp_path), "--rehearse"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    ended = json.loads((tmp_path / "phases.json").read_text(encoding="utf-8"))
    assert {phase: found["codes"] for phase, found in ended.items()} == {
        "races": [0],
        "engines": [0, 0],
    }
    assert "nothing moved" in (tmp_path / "races.txt").read_text(encoding="utf-8")
