"""Promises about the package itself: layers, lean imports, module sizes, names."""

from __future__ import annotations

import ast
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
LAYERS = {
    "runtime": {"cli", "export", "graph", "models", "training", "simulation", "evaluation"},
    "simulation": {"cli", "export", "graph", "models", "training", "evaluation"},
    "evaluation": {"cli", "export", "graph", "models", "training", "simulation"},
    "graph": {"cli", "export", "models", "training", "simulation", "evaluation"},
    "models": {"cli", "export", "graph", "training"},
    "training": {"cli"},
    "export": {"cli"},
}


def imports(path, walk=ast.walk):
    """Yield the dotted names a module imports: anywhere in it, or where `walk` looks."""
    for node in walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("layer", LAYERS)
def test_dependencies_point_one_way(layer):
    for path in (PACKAGE / layer).rglob("*.py"):
        for name in imports(path):
            parts = name.split(".")
            assert not (parts[0] == "cellrt" and len(parts) > 1 and parts[1] in LAYERS[layer]), (
                f"{path.name} imports {name}"
            )


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


def test_no_module_grows_beyond_400_lines():
    long = {p.name: n for p in MODULES if (n := len(p.read_text().splitlines())) > 400}
    assert not long


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
