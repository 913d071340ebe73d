"""What cellrt asks of TensorRT is there in every version from JetPack 6's on.

The Python bindings of TensorRT install without its library. Over a stand-in for the library, which
has no GPU to offer, their names and signatures can be looked at, and what cellrt does on a machine
without a driver can be run. The packages are downloaded, so this is one of the slow tests.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import cellrt.runtime.network.engines.tensorrt as room

ROOM = Path(room.__file__).parent
BINDINGS = {
    "10.3": "tensorrt-cu12-bindings==10.3.0",
    "10.7": "tensorrt-cu12-bindings==10.7.0",
    "10.13": "tensorrt-cu12-bindings==10.13.3.9",
    "11.4": "tensorrt-cu13-bindings>=11.4,<11.5",
}
# What the objects of the library are called in our modules.
NAMES = {
    "build.py": {
        "trt": "",
        "builder": "Builder",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "config": "IBuilderConfig",
        "shapes": "IOptimizationProfile",
    },
    "session.py": {
        "trt": "",
        "_runtime": "Runtime",
        "_engine": "ICudaEngine",
        "engine": "ICudaEngine",
        "_context": "IExecutionContext",
        "settings": "IRuntimeConfig",
    },
    "layers.py": {"trt": ""},
    "library.py": {"api": ""},
}
# Asked for only where it is there.
OPTIONAL = {
    ("ICudaEngine", "create_runtime_config"),
    ("", "ComputeCapability"),
    ("", "__version__"),
}
OPTIONAL_CLASSES = {"IRuntimeConfig"}
# Of TensorRT-RTX alone, as its targets.
RTX = {("IBuilderConfig", name) for name in ("num_compute_capabilities", "set_compute_capability")}
STAND_IN = """
#define NOTHING(name) void *name() { return 0; }
"""


def used():
    """Every (class, attribute, number of arguments or None) of the library that our code names."""
    found = set()
    for module, names in NAMES.items():
        tree = ast.parse((ROOM / module).read_text(encoding="utf-8"))
        calls = {
            id(node.func): len(node.args) + len(node.keywords)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and not any(isinstance(a, ast.Starred) for a in node.args)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                owner = node.value
                name = getattr(owner, "id", getattr(owner, "attr", None))
                if name in names:
                    found.add((names[name], node.attr, calls.get(id(node))))
                elif isinstance(owner, ast.Attribute) and getattr(owner.value, "id", "") == "trt":
                    found.add((owner.attr, node.attr, calls.get(id(node))))
    return {
        use
        for use in found
        if use[:2] not in OPTIONAL | RTX
        and use[0] not in OPTIONAL_CLASSES
        and not use[1].startswith("__")
    }


@cache
def install(version, folder):
    """Download the bindings and put a library under them that returns nothing from any call."""
    place = folder / version
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "-q", "--no-deps"),
            *("--target", str(place), BINDINGS[version]),
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"{BINDINGS[version]} cannot be had here: {done.stderr.splitlines()[-1:]}")
    (binary,) = place.glob("tensorrt_bindings/tensorrt*.so")
    listed = subprocess.run(
        ["readelf", "--wide", "-d", "--dyn-syms", str(binary)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    symbols = set(re.findall(r"UND (\w+)$", listed, re.MULTILINE))
    ours = sorted(
        s for s in symbols if re.search(r"_INTERNAL$|PluginRegistry|Nv\w*(Plugins|Version)", s)
    )
    source = place / "nothing.c"
    source.write_text(STAND_IN + "\n".join(f"NOTHING({name})" for name in ours), encoding="utf-8")
    for library in re.findall(r"\[(libnv\w+\.so\.\d+)\]", listed):
        subprocess.run(
            [
                *("gcc", "-shared", "-fPIC", f"-Wl,-soname,{library}"),
                *("-o", str(place / library), str(source)),
            ],
            check=True,
        )
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    if sys.platform != "linux" or not (shutil.which("gcc") and shutil.which("readelf")):
        pytest.skip("the stand-in for the library is made with gcc, on Linux")
    return tmp_path_factory.mktemp("bindings")


def run(place, program):
    """Run a program in a process that has these bindings as ``tensorrt``; return what it prints."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, tensorrt_bindings\n"
            "sys.modules['tensorrt'] = tensorrt_bindings\n" + program,
        ],
        env={
            **os.environ,
            "LD_LIBRARY_PATH": str(place),
            "PYTHONPATH": os.pathsep.join([str(place), str(ROOM.parents[4])]),
            "NUMBA_ENABLE_CUDASIM": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SIGNATURES = """
import json
uses = json.load(open(%r))
told = []
for owner, name in uses:
    where = getattr(tensorrt_bindings, owner) if owner else tensorrt_bindings
    what = getattr(where, name, None)
    told.append([owner, name, what is not None, what.__doc__ or "" if what is not None else ""])
print(json.dumps(told))
"""


def accepts(doc, name, count):
    """Whether a method with one of the signatures in its text takes so many arguments."""
    signatures = re.findall(rf"^(?:\d+\. )?{name}\((.*)\) ->", doc, re.MULTILINE)
    for signature in signatures:
        plain = re.sub(r"\[[^\[\]]*\]|<[^<>]*>", "", re.sub(r"\[[^\[\]]*\]", "", signature))
        parts = [part for part in plain.split(",") if part.strip()]
        own = [part for part in parts if not part.strip().startswith("self")]
        least = sum("=" not in part for part in own)
        if least <= count <= len(own):
            return True
    return not signatures


@pytest.mark.slow
@pytest.mark.parametrize("version", BINDINGS)
def test_every_name_and_signature_that_is_used_is_there(version, folder, tmp_path):
    place = install(version, folder)
    uses = used()
    assert len(uses) > 40  # it finds them
    asked = tmp_path / "uses.json"
    asked.write_text(json.dumps(sorted({use[:2] for use in uses})), encoding="utf-8")
    told = {
        (owner, name): (there, doc)
        for owner, name, there, doc in json.loads(run(place, SIGNATURES % str(asked)))
    }
    missing = [use for use in told if not told[use][0]]
    assert not missing
    wrong = [
        (owner, name, count)
        for owner, name, count in uses
        if count is not None and owner and not accepts(told[owner, name][1], name, count)
    ]
    assert not wrong


WITHOUT_A_DRIVER = """
from cellrt.errors import EngineError
from cellrt.runtime.network.engines.tensorrt.build import Profile, _monitor, build_engine
from cellrt.runtime.network.engines.tensorrt.library import open_library

library = open_library("tensorrt")
_monitor(library.api, print)
for action in (
    lambda: build_engine(library, b"", Profile((16, 24, 32))),
    lambda: library.start("Runtime"),
):
    try:
        action()
    except EngineError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("version", BINDINGS)
def test_without_a_driver_every_version_says_so_in_one_line(version, folder):
    lines = run(install(version, folder), WITHOUT_A_DRIVER).splitlines()
    assert len(lines) == 2
    assert all(f"tensorrt {version}" in line and "does not start" in line for line in lines)


def test_signatures_are_read():
    doc = "f(self: a.B, x: tuple[int, str] = <E.S: 0>, y: int) -> None\n"
    assert accepts(doc, "f", 2)
    assert accepts(doc, "f", 1)
    assert not accepts(doc, "f", 3)
