"""The CUDA provider as far as no GPU is needed: what it says when it cannot be had, and IO binding.

The binding runs on the CPU provider here; on a GPU only the name of the device differs.
"""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import numpy as np
import pytest

from cellrt.errors import EngineError, ResourceError
from cellrt.runtime.machine.driver import Gpu
from cellrt.runtime.model.file import open_model
from cellrt.runtime.model.golden import golden_input
from cellrt.runtime.network.engines import onnxruntime_cuda
from cellrt.runtime.network.engines.ladder import choose_engine
from cellrt.runtime.network.engines.onnxruntime_cuda import HostMergedSession

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")

CARD = Gpu("NVIDIA RTX A4000", "16376 MiB", "560.35", "8.6")


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(onnxruntime_cuda, "nvidia_gpus", lambda: ((CARD,), ""))


def library(providers, session=None, error=None):
    """ONNX Runtime with providers that are listed, and what creating a session does."""

    def create(model, options, providers):
        if error is not None:
            raise error
        return session

    return types.SimpleNamespace(
        __version__="1.31.1",
        get_available_providers=lambda: providers,
        SessionOptions=onnxruntime.SessionOptions,
        set_default_logger_severity=lambda severity: None,
        InferenceSession=create,
    )


def use(monkeypatch, fake):
    monkeypatch.setattr(onnxruntime_cuda, "import_library", lambda command: fake)


def test_without_a_gpu_the_driver_is_named(monkeypatch):
    monkeypatch.setattr(onnxruntime_cuda, "nvidia_gpus", lambda: ((), "no driver here"))
    with pytest.raises(EngineError, match="no driver here"):
        choose_engine("onnxruntime-cuda")


def test_the_package_for_cpus_is_told_from_the_one_for_gpus(gpu, monkeypatch):
    use(monkeypatch, library(["CPUExecutionProvider"]))
    with pytest.raises(EngineError, match=r"pip install 'cellrt\[cuda\]'"):
        choose_engine("onnxruntime-cuda")
    choice = choose_engine()
    assert choice.name == "openvino"
    assert "the one for CPUs" in dict(choice.skipped)["onnxruntime-cuda"]


@pytest.mark.parametrize(
    "fake",
    [
        # What ONNX Runtime does when a library of the provider is missing: it goes on without it.
        library(
            ["CUDAExecutionProvider", "CPUExecutionProvider"],
            session=types.SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"]),
        ),
        library(["CUDAExecutionProvider"], error=RuntimeError("libcudnn.so.9: cannot open\nmore")),
    ],
)
def test_a_provider_that_is_listed_but_does_not_load_is_skipped_with_the_reason(
    gpu, monkeypatch, fake
):
    use(monkeypatch, fake)
    with pytest.raises(EngineError, match="does not load") as raised:
        choose_engine("onnxruntime-cuda")
    assert "\n" not in str(raised.value)
    assert choose_engine().name == "openvino"


@pytest.mark.parametrize(
    ("version", "cuda", "mends"),
    [
        ("1.31.1", 12040, r"driver 580.*cellrt\[cu12\]' 'onnxruntime-gpu\[cuda,cudnn\]<1.27'"),
        ("1.26.0", 12040, r"cellrt\[cu12\]' 'onnxruntime-gpu\[cuda,cudnn\]<1.27'"),
        ("1.23.2", 11080, "driver 525"),
        ("1.31.1", 13000, r"pip install 'cellrt\[cuda\]'"),
    ],
)
def test_what_mends_a_provider_follows_from_the_driver(
    gpu, monkeypatch, stub_driver, version, cuda, mends
):
    monkeypatch.setattr(onnxruntime_cuda, "_ALWAYS_CUDA_12", False)
    fake = library(["CUDAExecutionProvider"], error=RuntimeError("libcudart: cannot open"))
    fake.__version__ = version
    use(monkeypatch, fake)
    stub_driver.says(CUDA=cuda, DRIVER="1.0", GPUS="NVIDIA RTX A4000/8.6/48/16376")
    with pytest.raises(EngineError, match=mends):
        choose_engine("onnxruntime-cuda")


@pytest.mark.parametrize("cuda", [12040, 13000])
def test_the_package_to_install_follows_from_the_driver(gpu, monkeypatch, stub_driver, cuda):
    stub_driver.says(CUDA=cuda, DRIVER="1.0", GPUS="NVIDIA RTX A4000/8.6/48/16376")
    wanted = r"cellrt\[cu12\]' 'onnxruntime-gpu\[cuda,cudnn\]<1.27'"
    monkeypatch.setattr(onnxruntime_cuda, "_ALWAYS_CUDA_12", False)
    for missing in (True, False):
        if missing:
            monkeypatch.setitem(sys.modules, "onnxruntime", None)
        else:
            use(monkeypatch, library(["CPUExecutionProvider"]))
        with pytest.raises(EngineError, match=wanted if cuda < 13000 else r"'cellrt\[cuda\]'"):
            choose_engine("onnxruntime-cuda")
    monkeypatch.setattr(onnxruntime_cuda, "_ALWAYS_CUDA_12", True)
    with pytest.raises(EngineError, match=r"'cellrt\[cuda\]'"):
        choose_engine("onnxruntime-cuda")


def test_a_provider_that_loads_is_taken_and_the_gpu_named(gpu, monkeypatch):
    session = types.SimpleNamespace(get_providers=lambda: ["CUDAExecutionProvider"])
    use(monkeypatch, library(["CUDAExecutionProvider"], session=session))
    choice = choose_engine()
    assert choice.name == "onnxruntime-cuda"
    assert "NVIDIA RTX A4000" in choice.reason


def test_the_graph_that_probes_the_provider_is_valid():
    session = onnxruntime.InferenceSession(
        onnxruntime_cuda._SMALLEST_GRAPH, providers=["CPUExecutionProvider"]
    )
    (result,) = session.run(None, {"x": np.array(3.0, np.float32)})
    assert result == 3.0


def on_cpu(model):
    session = onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])
    return HostMergedSession(session, "cpu", "fp32")


def test_bound_input_and_output_give_what_copies_give():
    model = open_model("nuclei")
    bound = on_cpu(model)
    copied = choose_engine("onnxruntime").load(model, (16, 24, 32), "fp32")
    rng = np.random.default_rng(0)
    previous = None
    for shape in ((16, 24, 32), (16, 24, 32), (8, 16, 16)):
        image = rng.random((1, 1, *shape), dtype=np.float32)
        result = bound.infer(image)
        np.testing.assert_array_equal(result, copied.infer(image))
        if previous is not None:
            # A result is the caller's own: the next tile must not change it.
            np.testing.assert_array_equal(previous[0], previous[1])
        previous = (result, result.copy())


def test_several_tiles_at_once_give_what_single_ones_give():
    bound = on_cpu(open_model("nuclei"))
    tiles = np.concatenate([golden_input((16, 16, 16)), 1 - golden_input((16, 16, 16))])
    single = np.concatenate([bound.infer(tile[None]) for tile in tiles])
    np.testing.assert_allclose(bound.infer(tiles), single, atol=1e-5)


@pytest.mark.parametrize(
    ("said", "error", "advice"),
    [
        ("CUDA failure 2: out of memory", ResourceError, "smaller tile"),
        ("Failed to allocate memory for requested buffer of size 9", ResourceError, "smaller tile"),
        ("CUDNN_STATUS_NOT_SUPPORTED", EngineError, "engine openvino"),
    ],
)
def test_what_goes_wrong_on_the_device_is_one_line_with_advice(said, error, advice):
    bound = on_cpu(open_model("nuclei"))
    bound.infer(golden_input((16, 16, 16)))

    def fail(binding):
        raise RuntimeError(said + "\nmore")

    bound._session = types.SimpleNamespace(run_with_iobinding=fail)
    with pytest.raises(error, match=advice) as raised:
        bound.infer(golden_input((16, 16, 16)))
    assert "\n" not in str(raised.value)


def test_a_gpu_that_computes_nonsense_is_refused(gpu, monkeypatch):
    model = open_model("nuclei")
    other = onnxruntime.InferenceSession(
        str(open_model("membranes").path), providers=["CPUExecutionProvider"]
    )
    monkeypatch.setattr(onnxruntime_cuda, "_create", lambda *_: other)
    monkeypatch.setattr(
        onnxruntime_cuda,
        "HostMergedSession",
        lambda session, device, precision: HostMergedSession(session, "cpu", precision),
    )
    with pytest.raises(EngineError, match="computes something else"):
        onnxruntime_cuda.load(model, (16, 16, 16))
    right = onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime_cuda, "_create", lambda *_: right)
    assert onnxruntime_cuda.load(model, (16, 16, 16)).precision == "tf32"
    assert onnxruntime_cuda.load(model, (16, 16, 16), precision="fp32").precision == "fp32"


@pytest.mark.parametrize("wrong", [[0, 0, 0, 0], [1, 0, 2, 3], [0, 1, 2, 2]])
def test_a_gpu_that_takes_tiles_of_a_batch_for_one_another_is_refused(gpu, monkeypatch, wrong):
    model = open_model("nuclei")
    session = onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])

    class Mixed(HostMergedSession):
        def __init__(self, session, device, precision):
            super().__init__(session, "cpu", precision)

        def infer(self, image):
            return super().infer(image)[wrong if len(image) == 4 else [0]]

    monkeypatch.setattr(onnxruntime_cuda, "_create", lambda *_: session)
    monkeypatch.setattr(onnxruntime_cuda, "HostMergedSession", Mixed)
    with pytest.raises(EngineError, match=r"four tiles of .* at once otherwise"):
        onnxruntime_cuda.load(model, (16, 16, 16))


@pytest.fixture
def created(gpu, monkeypatch):
    """The options of the sessions that were created, which compute on the CPU."""
    found = []

    nuclei = open_model("nuclei")
    names = {file.content: file.path.name for file in (nuclei, nuclei.variant("fp16"))}

    def create(library, model, options):
        found.append((names[model], options["use_tf32"]))
        return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    session = types.SimpleNamespace(get_providers=lambda: ["CUDAExecutionProvider"])
    use(monkeypatch, library(["CUDAExecutionProvider"], session=session))
    choose = choose_engine("onnxruntime-cuda")
    monkeypatch.setattr(onnxruntime_cuda, "_create", create)
    monkeypatch.setattr(
        onnxruntime_cuda,
        "HostMergedSession",
        lambda session, device, precision: HostMergedSession(session, "cpu", precision),
    )
    return choose, found


@pytest.mark.parametrize(
    ("asked", "file", "tf32", "computed"),
    [
        # Without TF32 cuDNN is refused the tensor cores, which fp16 is for.
        ("auto", "nuclei.fp16.onnx", "1", "fp16"),
        ("fp16", "nuclei.fp16.onnx", "1", "fp16"),
        ("tf32", "nuclei.onnx", "1", "tf32"),
        ("fp32", "nuclei.onnx", "0", "fp32"),
    ],
)
def test_a_gpu_takes_the_fp16_file_that_ships_and_says_what_it_computes_in(
    created, asked, file, tf32, computed
):
    choice, found = created
    session = choice.load(open_model("nuclei"), (16, 16, 16), asked)
    assert (session.precision, found) == (computed, [(file, tf32)])


def test_a_gpu_without_tf32_is_not_said_to_compute_in_it(created, monkeypatch):
    choice, found = created
    turing = replace(CARD, name="Tesla T4", compute_capability="7.5")
    monkeypatch.setattr(onnxruntime_cuda, "nvidia_gpus", lambda: ((turing,), ""))
    model = open_model("nuclei")
    with pytest.raises(EngineError, match=r"have no TF32; use precision"):
        choice.load(model, (16, 16, 16), "tf32")
    assert onnxruntime_cuda.load(model, (16, 16, 16), precision="auto").precision == "fp32"
    assert found == [("nuclei.onnx", "0")]


def test_int8_files_are_not_said_to_be_computed_in_int8(created):
    choice, _ = created
    model = open_model("nuclei")
    quantised = replace(model, card=replace(model.card, precision="int8"))
    assert choice.load(quantised, (16, 16, 16), "auto").precision == "fp32"
    with pytest.raises(EngineError, match="does not compute"):
        choice.load(quantised, (16, 16, 16), "int8")


def test_bf16_of_an_fp32_model_is_refused_with_what_to_do(created):
    choice, found = created
    with pytest.raises(EngineError, match=r"cellrt export nuclei --precision bf16 -o"):
        choice.load(open_model("nuclei"), (16, 16, 16), "bf16")
    assert not found


def test_layers_that_only_queue_are_not_timed():
    with pytest.raises(EngineError, match="how long they took to queue, not to run"):
        onnxruntime_cuda.layers(open_model("nuclei"), golden_input((8, 16, 16)), "auto", 3)
