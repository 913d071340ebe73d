"""ONNX Runtime on an NVIDIA GPU, through its CUDA provider."""

from __future__ import annotations

import base64
import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellrt.errors import EngineError, first_line
from cellrt.geometry import Shape
from cellrt.runtime.machine.driver import install, nvidia_driver, nvidia_gpus
from cellrt.runtime.machine.gpu import (
    Device,
    address,
    devices_alike,
    memory_errors,
    open_device,
    stream_handle,
)
from cellrt.runtime.model.file import ModelFile
from cellrt.runtime.model.golden import golden_difference, golden_input
from cellrt.runtime.network.engines.base import LayerTime
from cellrt.runtime.network.engines.gpu_session import (
    LARGEST_BATCH,
    DeviceSession,
    SpreadSession,
    on_all,
    tile_voxels,
)
from cellrt.runtime.network.engines.onnxruntime import import_library
from cellrt.runtime.network.engines.precision import of_fp32

PROVIDER = "CUDAExecutionProvider"
# An ONNX graph of one node, y = Identity(x) of one float: a provider is listed whether or not its
# libraries load, and only a session that was created proves it.
_SMALLEST_GRAPH = base64.b64decode(
    "CAo6MwoQCgF4EgF5IghJZGVudGl0eRIFcHJvYmVaCwoBeBIGCgQIARIAYgsKAXkSBgoECAESAEIECgAQDQ=="
)
# The package for GPUs is for CUDA 13 from this release on, and for CUDA 12 before.
_FIRST_FOR_CUDA_13 = [1, 27]
_ALWAYS_CUDA_12 = sys.version_info < (3, 11)  # for which there is no newer one
# With TF32 a product keeps 10 bits of each factor; the means over a tile agree far better.
_TF32_TOLERANCE = 5e-3
# Tiles in a batch may be computed by another kernel than alone, which rounds otherwise.
_BATCH_TOLERANCE = 0.01


def available(*, asked: bool = False) -> str:
    """Return ONNX Runtime's version and the GPU.

    Raises
    ------
    EngineError
        There is no GPU, ONNX Runtime is not installed or has no CUDA provider, or the provider
        does not load; the message says which.
    """
    gpus, reason = nvidia_gpus()
    if not gpus:
        raise EngineError(reason)
    library = import_library(_command())
    if PROVIDER not in library.get_available_providers():
        raise EngineError(
            "the onnxruntime that is installed is the one for CPUs; run `pip uninstall "
            f"-y onnxruntime && {_command()}`"
        )
    _create(library, _SMALLEST_GRAPH, {})
    return f"ONNX Runtime {library.__version__} on {gpus[0].name}"


def device_voxels(model: ModelFile) -> int | None:
    """Voxels of the largest tile for the GPUs here; None where the CPU merges, in its memory."""
    try:
        gpus = [open_device(index) for index in devices_alike()]
    except EngineError:
        return None
    return min(tile_voxels(gpu, model.card.activation_bytes) for gpu in gpus)


def check(model: ModelFile, tile: Shape | None, precision: str) -> None:
    """Refuse TF32 where the GPUs have none.

    Raises
    ------
    EngineError
    """
    _computed_in(model, precision)


def _computed_in(model: ModelFile, precision: str) -> str:
    if model.card.precision == "fp32":
        return of_fp32(precision, has_tf32=any(gpu.has_tf32 for gpu in nvidia_gpus()[0]))
    return {"int8": "fp32"}.get(model.card.precision, model.card.precision)


def load(
    model: ModelFile,
    tile: Shape,
    *,
    precision: str = "auto",
    note: Callable[[str], None] = lambda text: None,
) -> DeviceSession | SpreadSession | HostMergedSession:
    """Create a session per GPU and check that it computes what the model's card says.

    Files are computed in their own types, fp32 ones see `of_fp32`. int8 is computed in fp32, as
    ONNX Runtime has no int8 convolutions on GPUs. Where numba cannot use the GPU, tiles are merged
    by the CPU.

    Raises
    ------
    EngineError
        The provider does not load, the session cannot be created, or it computes something else.
    ResourceError
        Too little device memory for one tile.
    """
    words = _computed_in(model, precision)
    tf32 = words == "tf32"
    options = {
        # Without it, cuDNN is refused the tensor cores for fp16 as well, and has no plan for it
        # (ONNX Runtime 1.31): 404 instead of 586 million voxels a second.
        "use_tf32": str(int(words != "fp32")),
        # The exhaustive search of the default takes seconds for every new shape.
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        # Channels last: 586 instead of 431 million voxels a second in fp16 on an H100.
        "prefer_nhwc": "1",
    }
    library, content = import_library(_command()), model.content
    loaded: DeviceSession | SpreadSession | HostMergedSession
    try:
        gpus = [open_device(index) for index in devices_alike()]
    except EngineError as error:
        note(f"tiles are merged by the CPU: {error.message}")
        loaded = HostMergedSession(_create(library, content, options), "cuda", words)
    else:
        loaded = on_all([_on_gpu(library, content, options, gpu, words) for gpu in gpus])
    for session in loaded.sessions if isinstance(loaded, SpreadSession) else (loaded,):
        if isinstance(session, DeviceSession):
            session.output_stride = model.card.output_stride
        _verify(session, model, _TF32_TOLERANCE if tf32 else 0.0)
    return loaded


def layers(
    model: ModelFile, image: NDArray[np.float32], precision: str, runs: int
) -> list[LayerTime]:
    """Refuse: the layers of a GPU run later than ONNX Runtime looks at its watch."""
    raise EngineError(
        "ONNX Runtime tells of a GPU's layers how long they took to queue, not to run; use "
        "--engine tensorrt, or NVIDIA's Nsight Systems"
    )


def _verify(session: DeviceSession | HostMergedSession, model: ModelFile, tolerance: float) -> None:
    """Refuse what computes something else than the card says, or than itself in a batch.

    The four tiles of the batch differ, so that one in another's place, or of another kernel that
    is wrong, shows.
    """
    golden = model.card.golden
    if golden is None:
        return
    difference = golden_difference(model.card, session.infer)
    if not difference <= max(golden.tolerance, tolerance):
        raise EngineError(
            f"the CUDA provider computes something else than the card of {model.path.name} "
            f"says (means differ by {difference:.2g}); use --engine openvino"
        )
    image = golden_input(golden.shape)
    tiles = np.concatenate([image, image[..., ::-1], image[..., ::-1, :], 1 - image])
    alone = np.concatenate([session.infer(np.ascontiguousarray(tile[None])) for tile in tiles])
    difference = float(np.abs(session.infer(tiles) - alone).mean(axis=(2, 3, 4)).max())
    if not difference <= _BATCH_TOLERANCE:
        raise EngineError(
            f"the CUDA provider computes four tiles of {model.path.name} at once otherwise than "
            f"one by one (they differ by {difference:.2g}); use --engine openvino"
        )


def _on_gpu(
    library: Any, model: bytes, options: dict[str, str], gpu: Device, precision: str
) -> CudaSession:
    gpu.activate()
    stream = gpu.stream()
    here = {"device_id": str(gpu.index), "user_compute_stream": str(stream_handle(stream))}
    return CudaSession(_create(library, model, options | here), "cuda", precision, gpu, stream)


class CudaSession(DeviceSession):
    """A session on a GPU that reads and writes memory which is already there.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        Created for `stream`.
    where : str
        ONNX Runtime's name of the kind of device.
    precision : str
    gpu : Device
    stream : numba.cuda stream
    """

    def __init__(self, session: Any, where: str, precision: str, gpu: Device, stream: Any) -> None:
        self._session = session  # first, so that it goes before the stream that it ends in
        self.device = where.upper()
        self.precision = precision
        self.gpu = gpu
        self.stream = stream
        self.largest_batch = LARGEST_BATCH
        self.output_channels = int(session.get_outputs()[0].shape[1])
        self._where = where
        self._names = (session.get_inputs()[0].name, session.get_outputs()[0].name)

    def reserve(self, batch: int, tile: Shape) -> None:
        """ONNX Runtime takes its working memory when it runs."""

    def enqueue(self, image: Any, fields: Any) -> None:
        """See `DeviceSession`."""
        binding = self._session.io_binding()
        place = (self._where, self.gpu.index, np.float32)
        binding.bind_input(self._names[0], *place, image.shape, address(image))
        binding.bind_output(self._names[1], *place, fields.shape, address(fields))
        # The host waits for the end: without that ("disable_synchronize_execution_providers"), ONNX
        # Runtime 1.31 keeps each run's staging memory until the session ends, and then frees the
        # last of it in a callback of the driver, which may not, and the process is aborted.
        with _run_errors(), memory_errors():
            self._session.run_with_iobinding(binding)


class HostMergedSession:
    """A session whose input and output stay in place on the device from tile to tile."""

    def __init__(self, session: Any, device: str, precision: str) -> None:
        self.device = device.upper()
        self.precision = precision
        self._session = session
        self._where = device
        self._names = (session.get_inputs()[0].name, session.get_outputs()[0].name)
        self._shape: tuple[int, ...] = ()

    def infer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network on (n, 1, z, y, x) tiles."""
        with _run_errors(), memory_errors():
            if image.shape != self._shape:
                self._bind(image)
            self._input.update_inplace(np.ascontiguousarray(image))
            self._session.run_with_iobinding(self._binding)
            # A copy of its own: the next run may write into the same memory.
            result: NDArray[np.float32] = np.array(self._binding.copy_outputs_to_cpu()[0])
        return result

    def _bind(self, image: NDArray[np.float32]) -> None:
        import onnxruntime

        self._input = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            image.shape, np.float32, self._where, 0
        )
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(self._names[0], self._input)
        self._binding.bind_output(self._names[1], self._where)
        self._shape = image.shape


@contextlib.contextmanager
def _run_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise EngineError(
            f"ONNX Runtime failed ({first_line(error)}); use --engine openvino"
        ) from error


def _create(library: Any, model: bytes, provider_options: dict[str, str]) -> Any:
    """Create a session and make sure that it is on the GPU."""
    options = library.SessionOptions()
    # It prints what the errors below say, and warns of what is no fault.
    options.log_severity_level = 4
    library.set_default_logger_severity(4)
    preload = getattr(library, "preload_dlls", None)
    try:
        if preload is not None:
            preload()  # finds the CUDA libraries that pip installed
        session = library.InferenceSession(model, options, providers=[(PROVIDER, provider_options)])
    except Exception as error:  # the library raises its own untyped errors
        raise EngineError(
            f"the CUDA provider does not load ({first_line(error)}); {_advice(library)}"
        ) from error
    if session.get_providers()[:1] != [PROVIDER]:
        raise EngineError(
            "the CUDA provider is listed but does not load, most likely for want of CUDA or cuDNN "
            f"libraries; {_advice(library)}"
        )
    return session


def _advice(library: Any) -> str:
    """What to do where the provider does not load: fit the driver, or bring what is missing."""
    numbers = [int(part) for part in str(library.__version__).split(".")[:2]]
    major = 13 if numbers >= _FIRST_FOR_CUDA_13 else 12
    return nvidia_driver().misfit(major, _command) or f"run `{_command()}`"


def _command(extra: str = "") -> str:
    """How this machine gets the package for GPUs, for the CUDA of an extra or the driver's own."""
    if (extra or nvidia_driver().extra) == "cu12" and not _ALWAYS_CUDA_12:
        return f"{install('cu12')} 'onnxruntime-gpu[cuda,cudnn]<1.27'"
    return install("cuda")
