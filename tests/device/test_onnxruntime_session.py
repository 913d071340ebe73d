"""ONNX Runtime on memory that is already there; its CPU provider stands in for the CUDA one."""

from __future__ import annotations

import types

import numpy as np
import pytest
from numba import config

from cellrt.errors import EngineError, ResourceError
from cellrt.runtime.decoding.registry import decoder_for
from cellrt.runtime.grid.model_image import prepare_image
from cellrt.runtime.machine.gpu import open_device
from cellrt.runtime.model.card_parts import Normalisation
from cellrt.runtime.model.file import open_model
from cellrt.runtime.model.golden import golden_input
from cellrt.runtime.network.engines import onnxruntime_cuda
from cellrt.runtime.network.engines.ladder import choose_engine
from cellrt.runtime.network.engines.onnxruntime_cuda import CudaSession, HostMergedSession
from cellrt.runtime.network.run import network_fields
from cellrt.runtime.network.tiles import plan_tiles

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")

pytestmark = pytest.mark.skipif(
    not config.ENABLE_CUDASIM,
    reason="device addresses are read on the host, which only the simulator's can be",
)

TILE = (8, 16, 16)


def create(model):
    return onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])


def on_cpu(model):
    gpu = open_device()
    return CudaSession(create(model), "cpu", "fp32", gpu, gpu.stream())


def test_tiles_are_read_and_written_in_place():
    model = open_model("nuclei")
    tiles = np.concatenate([golden_input(TILE), 1 - golden_input(TILE)])
    plain = choose_engine("onnxruntime").load(model, TILE, "fp32")
    expected = np.concatenate([plain.infer(tile[None]) for tile in tiles])
    np.testing.assert_allclose(on_cpu(model).infer(tiles), expected, atol=1e-6)


def test_the_device_way_gives_the_fields_of_the_hosts():
    model = open_model("nuclei")
    shape = (8, 30, 24)
    image = prepare_image(golden_input(shape)[0, 0], shape, Normalisation())
    grid = plan_tiles(shape, halo=0, blend=2, tile=TILE)
    decoder = decoder_for(model.card)
    there, _ = network_fields(image, grid, on_cpu(model), decoder)
    here, _ = network_fields(
        image, grid, choose_engine("onnxruntime").load(model, TILE, "fp32"), decoder
    )
    # One byte per component: where a value lies between two, the last bit decides.
    parts = (there.view(np.uint8), here.view(np.uint8))
    assert np.abs(parts[0].astype(int) - parts[1]).max() <= 1
    assert (parts[0] != parts[1]).mean() < 1e-3


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("CUDA failure 2: out of memory", ResourceError),
        ("CUDNN_STATUS_NOT_SUPPORTED", EngineError),
    ],
)
def test_what_goes_wrong_on_the_device_is_one_line_with_advice(said, error):
    session = on_cpu(open_model("nuclei"))
    real = session._session

    def fail(binding):
        raise RuntimeError(said + "\nmore")

    session._session = types.SimpleNamespace(run_with_iobinding=fail, io_binding=real.io_binding)
    with pytest.raises(error, match="engine openvino") as raised:
        session.infer(golden_input(TILE))
    assert "\n" not in str(raised.value)


def test_runs_are_ended_as_onnxruntime_ends_them():
    # Told not to wait, it keeps staging memory and aborts the process when the session ends.
    session, told = on_cpu(open_model("nuclei")), []
    real = session._session

    def run(binding, settings=None):
        told.append(settings)
        real.run_with_iobinding(binding)

    session._session = types.SimpleNamespace(run_with_iobinding=run, io_binding=real.io_binding)
    session.infer(golden_input(TILE))
    assert told == [None]


def test_without_numba_on_the_gpu_the_cpu_merges_and_says_so(monkeypatch):
    model, notes = open_model("nuclei"), []

    def none():
        raise EngineError("numba finds no CUDA driver or device")

    monkeypatch.setattr(onnxruntime_cuda, "devices_alike", none)
    monkeypatch.setattr(onnxruntime_cuda, "_create", lambda *_: create(model))
    monkeypatch.setattr(
        onnxruntime_cuda,
        "HostMergedSession",
        lambda session, where, precision: HostMergedSession(session, "cpu", precision),
    )
    session = onnxruntime_cuda.load(model, TILE, note=notes.append)
    assert isinstance(session, HostMergedSession)
    assert notes == ["tiles are merged by the CPU: numba finds no CUDA driver or device"]


def test_every_gpu_is_checked_and_not_the_first_alone(monkeypatch):
    right, other = open_model("nuclei"), open_model("membranes")
    made = iter([on_cpu(right), on_cpu(other)])
    gpu = open_device()
    monkeypatch.setattr(onnxruntime_cuda, "devices_alike", lambda: [0, 1])
    monkeypatch.setattr(onnxruntime_cuda, "open_device", lambda index: gpu)
    monkeypatch.setattr(onnxruntime_cuda, "_on_gpu", lambda *_: next(made))
    with pytest.raises(EngineError, match="computes something else than the card"):
        onnxruntime_cuda.load(right, TILE)
