"""The engine cache: an engine is found by all it depends on, or it is built; never half of it."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import re
import time

import pytest

from cellrt.errors import InputError, ResourceError
from cellrt.runtime.network.engines.tensorrt.build import Profile
from cellrt.runtime.network.engines.tensorrt.cache import (
    FOLDER_VARIABLE,
    EngineCache,
    EngineKey,
    default_cache,
)

KEY = EngineKey(
    model="nuclei",
    model_sha256="ab" * 32,
    cellrt="0.1.0",
    precision="fp16",
    library="tensorrt 10.13.3",
    gpu="NVIDIA Orin",
    compute_capability="8.7",
    multiprocessors="16",
    driver="540.4",
    system="Linux aarch64",
    profile=Profile((64, 96, 96), 4),
)
FIELDS = [field.name for field in dataclasses.fields(EngineKey)]


def refuse():
    raise AssertionError("it must not be built")


def test_what_is_stored_is_found_again_and_not_built(tmp_path):
    cache = EngineCache(tmp_path)
    assert cache.find(KEY) == (None, "there is none yet")
    assert cache.find_or_build(KEY, lambda: b"engine") == b"engine"
    assert cache.find_or_build(KEY, refuse) == b"engine"
    (entry,) = cache.entries()
    assert entry.key == KEY
    assert entry.size_bytes == 6
    assert entry.path.read_bytes() == b"engine"


@pytest.mark.parametrize("name", FIELDS)
def test_a_change_in_anything_asks_for_another_engine_and_says_what_changed(tmp_path, name):
    cache = EngineCache(tmp_path)
    cache.store(KEY, b"old", 1.0)
    others = {"library": "tensorrt 11.4.0", "profile": Profile((64, 96, 96), 8)}
    changed = dataclasses.replace(KEY, **{name: others.get(name, "changed")})
    notes = []
    assert cache.find_or_build(changed, lambda: b"new", notes.append) == b"new"
    assert cache.find(KEY)[0] == b"old"
    (note,) = notes
    assert "\n" not in note
    if name == "model":
        assert "there is none yet" in note
    elif name == "model_sha256":
        assert "the model file changed" in note
    else:
        former, wanted = str(getattr(KEY, name)), str(getattr(changed, name))
        assert re.search(f"the engine that is there differs: it .*{former}.* not .*{wanted}", note)


def test_gpus_are_told_in_words_and_once(tmp_path):
    cache = EngineCache(tmp_path)
    rtx = {"gpu": "RTX GPUs", "multiprocessors": "any", "driver": "any", "system": "any"}
    cache.store(dataclasses.replace(KEY, compute_capability="any", **rtx), b"old", 1.0)
    wanted = dataclasses.replace(KEY, compute_capability="sm75+sm120", **rtx)
    assert cache.find(wanted)[1] == (
        "the engine that is there differs: it is for RTX GPUs from compute capability 8.0 on, not "
        "for sm75 and sm120 (GPUs of compute capability 7.5 and 12.0)"
    )
    assert (
        cache.find(dataclasses.replace(KEY, gpu="Orin Nano", multiprocessors="8"))[1].count(
            "not for"
        )
        == 3
    )  # the GPU in one, the driver and the system


@pytest.mark.parametrize("damage", [b"", b"malicious code", None])
def test_an_engine_that_is_not_the_recorded_one_is_not_loaded(tmp_path, damage):
    cache = EngineCache(tmp_path)
    path = cache.store(KEY, b"engine", 1.0).path
    path.unlink() if damage is None else path.write_bytes(damage)
    engine, reason = cache.find(KEY)
    assert engine is None
    assert reason
    assert cache.find_or_build(KEY, lambda: b"engine") == b"engine"
    assert cache.find(KEY)[0] == b"engine"


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"key": 3}', "\x00"])
def test_a_damaged_record_is_as_good_as_none(tmp_path, record):
    cache = EngineCache(tmp_path)
    path = cache.store(KEY, b"engine", 1.0).path.with_suffix(".json")
    path.write_text(record)
    assert cache.entries() == []
    assert cache.find(KEY)[0] is None


def test_a_record_that_points_elsewhere_is_not_followed(tmp_path):
    outside = tmp_path / "outside.engine"
    outside.write_bytes(b"elsewhere")
    cache = EngineCache(tmp_path / "cache")
    path = cache.store(KEY, b"engine", 1.0).path.with_suffix(".json")
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(record | {"path": "../outside.engine"}))
    assert cache.find(KEY)[0] is None


def test_a_build_that_fails_leaves_nothing(tmp_path):
    cache = EngineCache(tmp_path)

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.find_or_build(KEY, fail)
    assert cache.entries() == []
    assert [p for p in tmp_path.iterdir() if p.suffix != ".lock"] == []
    assert cache.find_or_build(KEY, lambda: b"engine") == b"engine"  # the lock is free again


def _build_slowly(folder, log):
    def build():
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.5)
        return b"engine"

    assert EngineCache(folder).find_or_build(KEY, build) == b"engine"


def test_of_two_processes_one_builds_and_the_other_waits_for_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log"
    both = [context.Process(target=_build_slowly, args=(tmp_path / "cache", log)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    assert log.read_text(encoding="utf-8") == "built\n"


def test_clear_removes_engines_and_records(tmp_path):
    cache = EngineCache(tmp_path)
    cache.find_or_build(KEY, lambda: b"1")
    cache.find_or_build(dataclasses.replace(KEY, gpu="another"), lambda: b"2")
    for left in (f"{KEY.stem}.failed", f"{'0' * 32}.kernels", ".cellrt-0123abcd.partial"):
        (tmp_path / left).write_text("ours")
    theirs = {"somebody.txt", "notes.json", "car.engine", "a.lock", f"{'0' * 64}.json"}
    for name in theirs:
        (tmp_path / name).write_text("kept")
    assert cache.clear() == 2
    assert {p.name for p in tmp_path.iterdir()} == theirs
    assert cache.clear() == 0


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    occupied = tmp_path / "file"
    occupied.write_text("")
    with pytest.raises(ResourceError, match=FOLDER_VARIABLE) as raised:
        EngineCache(occupied / "engines").find_or_build(KEY, refuse)
    assert str(occupied) in str(raised.value)


def test_an_engine_is_taken_from_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    cache = EngineCache(tmp_path)
    cache.find_or_build(KEY, lambda: b"engine")

    def locked(self, key, note):
        raise ResourceError("the folder cannot be written")

    monkeypatch.setattr(EngineCache, "_lock", locked)
    assert cache.find_or_build(KEY, refuse) == b"engine"


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cellrt.runtime.network.engines.tensorrt.cache.os.fsync", full)
    cache = EngineCache(tmp_path)
    with pytest.raises(ResourceError, match="No space left"):
        cache.find_or_build(KEY, lambda: b"engine")
    assert [p for p in tmp_path.iterdir() if p.suffix != ".lock"] == []


def test_the_variable_names_the_folder_and_must_not_name_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "x"))
    assert default_cache().folder == tmp_path / "x"
    (tmp_path / "x").write_text("")
    with pytest.raises(InputError, match="expected a folder"):
        default_cache()
    monkeypatch.delenv(FOLDER_VARIABLE)
    assert default_cache().folder.name == "engines"
