"""Run the command line as a user does, in this process or in a fresh one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest

from cellrt.cli.main import _run


@dataclass(frozen=True)
class Finished:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def cellrt(capfd):
    """Call ``cellrt`` with arguments in this process."""

    def call(*arguments):
        capfd.readouterr()
        code = _run([str(a) for a in arguments], debug=False)
        out, err = capfd.readouterr()
        return Finished(code, out, err)

    return call


@pytest.fixture
def cellrt_process():
    """Call ``cellrt`` in a fresh interpreter."""

    def call(*arguments, **options):
        done = subprocess.run(
            [sys.executable, "-m", "cellrt", *(str(a) for a in arguments)],
            capture_output=True,
            text=True,
            check=False,
            **options,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def write_network():
    """Write a model file: a graph of nodes from ``image`` to the only output of a card."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def write(path, card, nodes, weights):
        value = helper.make_tensor_value_info
        output = card.outputs[0]
        graph = helper.make_graph(
            nodes,
            card.name,
            [value("image", TensorProto.FLOAT, ["n", 1, "z", "y", "x"])],
            [value(output.name, TensorProto.FLOAT, ["n", len(output.channels), "d", "h", "w"])],
            [numpy_helper.from_array(array, name) for name, array in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        helper.set_model_props(model, {"cellrt": card.to_json()})
        onnx.save(model, path)
        return path

    return write
