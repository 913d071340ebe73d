"""Promises about the package itself: layers, lean imports, module sizes, names."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import cellrt

PACKAGE = Path(cellrt.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
NEVER = {"torch", "onnx", "lightning", "monai", "pydantic", "h5py", "zarr", "matplotlib"}
# Formats whose library is an extra: imported by the function that reads one, never by the module.
FORMAT_LIBRARIES = {"h5py", "zarr"}
# What each package must not know, wherever it stands.
LAYERS = {
    "runtime": {"cli", "export", "graph", "models", "training", "simulation", "evaluation"},
    "simulation": {"cli", "export", "graph", "models", "training", "evaluation"},
    "evaluation": {"cli", "export", "graph", "models", "training", "simulation"},
    "graph": {"cli", "export", "models", "training", "simulation", "evaluation"},
    "models": {"cli", "export", "graph", "training", "simulation", "evaluation"},
    "training": {"cli", "export"},
    "export": {"cli"},
}
# From the roof down. A room may know its neighbours on one floor and whatever is below.
FLOORS = (
    ("__main__",),
    ("cli",),
    ("export",),
    ("training",),
    ("evaluation", "simulation"),
    ("models", "graph"),
    ("runtime.folder",),
    ("runtime.segment", "runtime.blocks"),
    ("runtime.run",),
    ("runtime.stages", "runtime.cell_size.common"),
    ("runtime.preparation",),
    ("runtime.results",),
    ("runtime.job",),
    (
        "runtime.cell_size.search",
        "runtime.cell_size.places",
        "runtime.cell_size.probe",
        "runtime.plan",
    ),
    ("runtime.network",),
    ("runtime.grid", "runtime.decoding"),
    (
        "runtime.image",
        "runtime.model",
        "runtime.machine",
        "runtime.progress",
        "runtime.progress_bar",
    ),
    ("compile_ahead",),
    ("geometry", "threads", "files", "disk_room", "claim", "compiled", "limits", "endings"),
    ("errors",),
    ("wording", "_version"),
)


def imports(path, walk=ast.walk):
    """Yield the dotted names a module imports: anywhere in it, or where `walk` looks."""
    for node in walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def arrows(sources):
    """Map each module to the modules it imports: lazily and for type checkers, too.

    ``from package import name`` is an arrow to the module ``package.name`` where there is one.
    """
    graph = {}
    for module, text in sources.items():
        names = set()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{module} has a relative import"
                for alias in node.names:
                    inside = f"{node.module}.{alias.name}"
                    names.add(inside if inside in sources else node.module)
        graph[module] = names & set(sources)
    return graph


def package_arrows():
    """The arrows of the package; names without its own, so that its ``__init__`` is ''."""
    sources = {}
    for path in MODULES:
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        sources[".".join(parts[: -1 if path.stem == "__init__" else None])] = path.read_text(
            encoding="utf-8"
        )
    graph = arrows(sources)
    return {
        module.removeprefix("cellrt").removeprefix("."): {
            name.removeprefix("cellrt").removeprefix(".") for name in known
        }
        for module, known in graph.items()
    }


def floor_of(module):
    """Number of the floor a module stands on, 0 for the package itself, the roof."""
    if not module:
        return 0
    for floor, rooms in enumerate(FLOORS, 1):
        if any(f"{module}.".startswith(f"{room}.") for room in rooms):
            return floor
    return pytest.fail(f"{module} stands on no floor: add its room to FLOORS")


def test_imports_run_down_the_floors_and_in_no_circle():
    graph = package_arrows()
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(name or 'cellrt' for name in error.args[1])}")
    # Rooms themselves are on no floor of their own; nothing is in them but a line of text.
    rooms = {"runtime", "runtime.cell_size"}
    assert not any(graph[room] for room in rooms)
    up = [
        f"{module} imports {known}"
        for module in graph.keys() - rooms
        for known in graph[module] - rooms
        if floor_of(known) < floor_of(module)
    ]
    assert not up


def test_the_graph_sees_imports_wherever_they_hide():
    sources = {
        "p": "",
        "p.a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.b import name",
        "p.b": "def f():\n    from p import c, other",
        "p.c": "import p.a, os",
    }
    graph = arrows(sources)
    assert graph == {"p": set(), "p.a": {"p.b"}, "p.b": {"p.c", "p"}, "p.c": {"p.a"}}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("layer", LAYERS)
def test_a_package_knows_nothing_of_those_beside_and_above_it(layer):
    for module, known in package_arrows().items():
        if module.split(".")[0] == layer:
            found = {name.split(".")[0] for name in known} & LAYERS[layer]
            assert not found, f"{module} imports {found}"


@pytest.mark.parametrize("layer", ["runtime", "simulation"])
def test_the_lean_layers_import_nothing_of_training(layer):
    for path in (PACKAGE / layer).rglob("*.py"):
        never = NEVER
        if path.parent == PACKAGE / "runtime/image/formats":
            top_level = {n.split(".")[0] for n in imports(path, ast.iter_child_nodes)}
            assert not top_level & NEVER, f"{path.name} imports {top_level & NEVER} at the top"
            never = NEVER - FORMAT_LIBRARIES
        found = {name.split(".")[0] for name in imports(path)} & never
        assert not found, f"{path.name} imports {found}"


# What stands inside of a kernel; all else is behind a few modules, so that kernels can move.
INSIDE_OF_KERNELS = {"grid", "gridsize", "atomic"}
AROUND_KERNELS = {f"runtime/machine/{name}.py" for name in ("kernels", "gpu", "transfer")}


def test_kernels_are_compiled_launched_and_given_memory_by_one_module():
    seen = []
    for path in MODULES:
        module = path.relative_to(PACKAGE).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        with_cuda = any(
            isinstance(node, ast.ImportFrom)
            and node.module == "numba"
            and any(alias.name == "cuda" for alias in node.names)
            for node in ast.walk(tree)
        )
        if not with_cuda or module in AROUND_KERNELS:
            continue
        seen.append(module)
        for node in ast.walk(tree):
            of_cuda = isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "cuda"
            assert not of_cuda or node.attr in INSIDE_OF_KERNELS, f"{module} uses cuda.{node.attr}"
            # A kernel is launched as kernel[blocks, threads](arguments).
            launched = isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript)
            assert not launched, f"{module}, line {node.lineno}, launches a kernel by itself"
    assert len(seen) > 4


def test_no_module_grows_beyond_500_lines():
    long = {
        p.name: n for p in MODULES if (n := len(p.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert not long


def test_the_runtime_keeps_its_modules_in_rooms():
    assert len(list((PACKAGE / "runtime").glob("*.py"))) <= 10


def test_the_public_names_resolve_and_importing_costs_nothing():
    for name in cellrt.__all__:
        assert getattr(cellrt, name) is not None
    code = "import sys, cellrt; print({'numpy', 'numba', 'openvino'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = cellrt.nonsense


def test_types_travel_with_the_package():
    assert (PACKAGE / "py.typed").exists()
