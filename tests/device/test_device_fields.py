"""The network stage on a device gives what the host's gives, whatever the batch."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellrt.errors import EngineError, ResourceError
from cellrt.runtime.decoding.base import Outputs, Place, WholeCollector
from cellrt.runtime.decoding.classes.decoder import CLASS_OUTPUTS, TASCAN
from cellrt.runtime.decoding.classes.tascan import TascanParameters
from cellrt.runtime.decoding.flows import gpu_or_cpu
from cellrt.runtime.decoding.flows.cells import FlowParameters
from cellrt.runtime.decoding.flows.decoder import FlowDecoder
from cellrt.runtime.grid.model_image import prepare_image
from cellrt.runtime.machine import transfer
from cellrt.runtime.machine.gpu import Device, DeviceMemoryError, memory_errors, open_device
from cellrt.runtime.machine.transfer import host_array
from cellrt.runtime.model.card_parts import Normalisation
from cellrt.runtime.network import collect_cuda, merge_cuda, run_cuda
from cellrt.runtime.network.collect_cuda import InPieces, Whole
from cellrt.runtime.network.engines.gpu_session import DeviceSession, SpreadSession
from cellrt.runtime.network.hand_over import HandOver
from cellrt.runtime.network.merge import merge, merge_values, predict
from cellrt.runtime.network.run import network_fields
from cellrt.runtime.network.run_cuda import MEMORY_SHARE, _first_room, _Room, device_fields
from cellrt.runtime.network.tiles import plan_tiles
from cellrt.runtime.stages import Fields

TILE = (8, 16, 16)


def network(image):
    """Two channels that depend on the place in the tile, so that a mix-up shows."""
    place = np.arange(image[0].size, dtype=np.float32).reshape(image.shape[1:]) / image[0].size
    return np.concatenate([image + place, 2 * image - place], axis=1).astype(np.float32)


class Session(DeviceSession):
    """A network that the host computes between two copies; ``room`` tiles fit at once."""

    device, precision, output_channels = "test", "fp32", 2

    def __init__(self, largest_batch=4, room=4, compute=network):
        self.gpu = open_device()
        self.stream = self.gpu.stream()
        self.largest_batch = largest_batch
        self.room = room
        self.compute = compute
        self.batches = []

    def reserve(self, batch, tile):
        with memory_errors():
            if batch > self.room:
                raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")

    def enqueue(self, image, fields):
        self.batches.append(image.shape[0])
        fields.copy_to_device(self.compute(image.copy_to_host()))


class Plain:
    """The same network for the host's way."""

    device, precision = "CPU", "fp32"

    def infer(self, image):
        return network(image)


class Keep:
    """A decoder that keeps the fields as they are."""

    merging, merged = "weighted", slice(None)
    channels = 2

    def collector(self, shape):
        kept = np.full((*shape, self.channels), np.nan, np.float32)
        return WholeCollector(kept, lambda part, fields: np.copyto(part, np.moveaxis(fields, 0, 3)))


class KeepTiles(Keep):
    """A decoder that keeps every tile, too, and has the first of two channels merged."""

    merging, merged = "per tile", slice(0, 1)
    channels = 1

    def collector(self, shape):
        collector = super().collector(shape)
        blocks, tiles = collector.kept, []
        collector.add_tile = lambda tile: tiles.append((tile.start, tile.own, tile.fields.copy()))
        collector.kept = lambda: (blocks(), tiles)
        return collector


def volume(shape, seed=0):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 40), st.integers(1, 40)),
    halo=st.sampled_from([0, 1]),
    batch=st.integers(1, 4),
)
def test_the_device_merges_what_the_host_merges(shape, halo, batch):
    image = prepare_image(volume(shape), shape, Normalisation())
    grid = plan_tiles(shape, halo=halo, blend=2, multiple=4, tile=TILE)
    done = []
    there, seconds = network_fields(image, grid, Session(batch), Keep(), done.append)
    here, _ = network_fields(image, grid, Plain(), Keep())
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-6)
    assert sum(done) == np.prod(shape)
    assert seconds >= 0


def test_tiles_go_to_the_device_in_batches():
    shape = (8, 16, 72)
    grid = plan_tiles(shape, halo=1, blend=2, multiple=4, tile=TILE)
    session = Session(largest_batch=4)
    image = prepare_image(volume(shape), shape, Normalisation())
    network_fields(image, grid, session, Keep())
    assert len(grid) == 6
    assert session.batches == [4, 2]


def test_too_little_memory_halves_the_batch_and_says_so():
    shape = (8, 16, 72)
    grid = plan_tiles(shape, halo=1, blend=2, multiple=4, tile=TILE)
    image = prepare_image(volume(shape), shape, Normalisation())
    session, notes, done = Session(largest_batch=4, room=1), [], []
    there, _ = network_fields(image, grid, session, Keep(), done.append, notes.append)
    here, _ = network_fields(image, grid, Plain(), Keep())
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-6)
    assert session.batches == [1] * 6
    assert [note.rsplit(";")[-1] for note in notes] == [
        " going on with 2 at a time",
        " going on with 1 at a time",
    ]
    assert sum(done) == np.prod(shape)


def test_memory_that_runs_out_halfway_starts_again_without_counting_twice():
    shape = (8, 16, 200)
    grid = plan_tiles(shape, halo=1, blend=2, multiple=4, tile=TILE)
    calls = []

    def compute(image):
        calls.append(len(image))
        if len(calls) == 3:
            with memory_errors():
                raise RuntimeError("Failed to allocate memory for requested buffer")
        return network(image)

    image = prepare_image(volume(shape), shape, Normalisation())
    done = []
    there, _ = network_fields(image, grid, Session(2, compute=compute), Keep(), done.append)
    here, _ = network_fields(image, grid, Plain(), Keep())
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-6)
    assert calls[:4] == [2, 2, 2, 1]
    assert sum(done) == np.prod(shape)


def test_a_decoder_of_tiles_gets_each_once_and_one_channel_merged():
    shape = (8, 16, 200)
    grid = plan_tiles(shape, halo=1, blend=2, multiple=4, tile=TILE)
    image = prepare_image(volume(shape), shape, Normalisation())
    calls = []

    def compute(image):
        calls.append(len(image))
        if len(calls) == 3:  # all tiles come again, and are kept once
            with memory_errors():
                raise RuntimeError("Failed to allocate memory for requested buffer")
        return network(image)

    (there, tiles), _ = network_fields(image, grid, Session(2, compute=compute), KeepTiles())
    (here, expected), _ = network_fields(image, grid, Plain(), KeepTiles())
    both, _ = network_fields(image, grid, Plain(), Keep())
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(here, both[..., :1])
    assert [tile[:2] for tile in tiles] == [tile[:2] for tile in expected]
    assert [tile[0] for tile in tiles] == [tile.start for tile in grid]
    for one, other in zip(tiles, expected, strict=True):
        np.testing.assert_array_equal(one[2], other[2])


def test_nan_in_a_channel_that_is_not_merged_is_an_error():
    image = prepare_image(volume(TILE), TILE, Normalisation())
    grid = plan_tiles(TILE, halo=0, multiple=4, tile=TILE)

    def compute(image):
        fields = network(image)
        fields[:, 1, 0, 0, 0] = np.nan
        return fields

    with pytest.raises(EngineError, match="NaN"):
        network_fields(image, grid, Session(compute=compute), KeepTiles())


def test_a_device_without_room_for_one_tile_ends_the_run_with_advice():
    grid = plan_tiles(TILE, halo=0, multiple=4, tile=TILE)
    out = HandOver(Keep(), grid, "fp32")
    with pytest.raises(DeviceMemoryError, match=r"smaller tile, or use engine openvino"):
        device_fields(lambda tile, into: None, grid, [Session(room=0)], out)
    assert issubclass(DeviceMemoryError, ResourceError)


def test_nan_from_the_device_is_an_error():
    image = prepare_image(volume(TILE), TILE, Normalisation())
    grid = plan_tiles(TILE, halo=0, multiple=4, tile=TILE)
    broken = Session(compute=lambda image: network(image) * np.float32(np.nan))
    with pytest.raises(EngineError, match="NaN"):
        network_fields(image, grid, broken, Keep())


def test_an_error_of_the_network_reaches_the_caller_and_no_thread_is_left():
    def compute(image):
        raise EngineError("broken")

    image = prepare_image(volume(TILE), TILE, Normalisation())
    grid = plan_tiles(TILE, halo=0, multiple=4, tile=TILE)
    with pytest.raises(EngineError, match="broken"):
        network_fields(image, grid, Session(compute=compute), Keep())


def test_single_tiles_can_be_inferred_from_the_host():
    image = volume((3, 1, *TILE))
    np.testing.assert_array_equal(Session().infer(image), network(image))


def test_the_batch_follows_from_the_free_memory():
    grid = plan_tiles((8, 16, 200), halo=1, blend=2, multiple=4, tile=TILE)
    session = Session(largest_batch=4)
    voxels = int(np.prod(TILE))

    class Small:
        free_bytes = 0.0

    session.gpu = Small()
    row, carried = (4 * 2 * values for values in merge_values(grid))
    # Labels are found beside what is kept.
    enough = (376 * voxels + 3 * row + carried + 8 * np.prod(grid.shape)) / MEMORY_SHARE
    for free, keep, expected in (
        (0, 4, _Room(1, False, False)),
        (1400 * voxels, 0, _Room(2, False, True)),
        (enough - 10, 4, _Room(1, False, True)),
        (enough + 10, 4, _Room(1, True, True)),
        (1e12, 0, _Room(4, False, True)),
        (1e12, 4, _Room(4, True, True)),
    ):
        Small.free_bytes = free
        assert _first_room(session, grid, 2, keep) == expected


def test_nothing_is_queued_in_the_default_stream_nor_sliced_by_rows(monkeypatch):
    """Either has host and device wait for one another, or the host count rows in Python."""
    shape = (20, 30, 40)
    grid = plan_tiles(shape, halo=1, blend=2, multiple=4, tile=TILE)
    image = prepare_image(volume(shape), shape, Normalisation())
    session = Session()
    array = type(session.gpu.empty((1,), np.float32, session.stream))
    queued = []

    def in_a_stream(name):
        copy = getattr(array, name)

        def checked(self, *arguments, stream=0, **options):
            assert stream or self.stream, f"{name} in the default stream"
            return copy(self, *arguments, stream=stream, **options)

        monkeypatch.setattr(array, name, checked)

    def launch(kernel, count, *arguments, stream=0):
        queued.append(stream)
        real_launch(kernel, count, *arguments, stream=stream)

    def getitem(self, key):
        part = real_getitem(self, key)
        assert np.ndim(part) == 0 or part.is_c_contiguous(), f"sliced by rows: {key}"
        return part

    def setitem(self, key, value):
        raise AssertionError("assigned by numba")

    real_launch, real_getitem = merge_cuda.launch, array.__getitem__
    for name in ("copy_to_device", "copy_to_host"):
        in_a_stream(name)
    # In kernels the simulator reads and writes elements through these two; they run in `launch`.
    with monkeypatch.context() as outside:

        def out_of_kernels(kernel, count, *arguments, stream=0):
            with monkeypatch.context() as inside:
                inside.setattr(array, "__getitem__", real_getitem)
                inside.setattr(array, "__setitem__", real_setitem)
                launch(kernel, count, *arguments, stream=stream)

        real_setitem = array.__setitem__
        outside.setattr(merge_cuda, "launch", out_of_kernels)
        outside.setattr(array, "__getitem__", getitem)
        outside.setattr(array, "__setitem__", setitem)
        there, _ = network_fields(image, grid, session, Keep())
    here, _ = network_fields(image, grid, Plain(), Keep())
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-6)
    assert set(queued) == {session.stream}


def test_blocks_come_back_in_pieces_of_any_size(monkeypatch):
    shape = (20, 30, 40)
    grid = plan_tiles(shape, halo=1, blend=2, multiple=4, tile=TILE)
    image = prepare_image(volume(shape), shape, Normalisation())
    here, _ = network_fields(image, grid, Plain(), Keep())
    for size in (1, 16_000, 10**9):
        monkeypatch.setattr(collect_cuda, "PIECE_BYTES", size)
        done = []
        there, _ = network_fields(image, grid, Session(), Keep(), done.append)
        np.testing.assert_allclose(there, here, rtol=0, atol=1e-6)
        assert sum(done) == np.prod(shape)


def test_an_error_while_a_piece_is_stored_reaches_the_caller():
    class Full(Keep):
        def collector(self, shape):
            def store(part, fields):
                raise OSError("no space left")

            return WholeCollector(np.empty((*shape, 2), np.float32), store)

    shape = (20, 30, 40)
    grid = plan_tiles(shape, halo=1, blend=2, multiple=4, tile=TILE)
    image = prepare_image(volume(shape), shape, Normalisation())
    with pytest.raises(OSError, match="no space"):
        network_fields(image, grid, Session(), Full())


def test_what_is_carried_lies_in_the_hosts_memory_where_the_device_has_no_room(monkeypatch):
    shape = (20, 30, 40)
    grid = plan_tiles(shape, halo=1, blend=2, multiple=4, tile=TILE)
    image = prepare_image(volume(shape), shape, Normalisation())
    here, _ = network_fields(image, grid, Plain(), Keep())
    made, real = [], Device.in_host_memory
    monkeypatch.setattr(
        Device, "in_host_memory", lambda *arguments: made.append(arguments[1]) or real(*arguments)
    )
    # As planned, when the memory that is free is measured.
    with monkeypatch.context() as patch:
        patch.setattr(Device, "free_bytes", 0.0)
        there, _ = network_fields(image, grid, Session(), Keep())
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-6)
    assert len(made) == 1

    # And where one tile does not fit beside it after all.
    class Beside(Session):
        def reserve(self, batch, tile):
            with memory_errors():
                if not self.batches and len(refused) < 3:  # at 4, 2 and 1 at a time
                    refused.append(batch)
                    raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")

    refused, notes = [], []
    there, _ = network_fields(image, grid, Beside(), Keep(), note=notes.append)
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-6)
    assert refused == [4, 2, 1]
    assert "in the host's memory" in notes[-1]
    assert len(made) == 2


def test_several_gpus_share_the_layers_in_batches_and_merge_them(monkeypatch):
    shape = (40, 30, 40)
    grid = plan_tiles(shape, halo=1, blend=2, multiple=4, tile=TILE)
    image = prepare_image(volume(shape), shape, Normalisation())
    one, _ = network_fields(image, grid, Session(), Keep())
    for count in (2, 3):
        sessions, done = [Session() for _ in range(count)], []
        spread = SpreadSession(sessions)
        monkeypatch.setattr(spread, "infer", None)  # the host's way
        there, _ = network_fields(image, grid, spread, Keep(), done.append)
        np.testing.assert_array_equal(there, one)
        assert sum(done) == np.prod(shape)
        # Each computes less than half, or a third and its neighbours' layers.
        computed = [sum(session.batches) for session in sessions]
        assert max(computed) <= len(grid) / count + len(grid) / len(grid.axes[0].starts)
        assert all(session.batches[0] == 4 for session in sessions)


def test_one_of_several_gpus_with_little_memory_has_all_go_on_with_smaller_batches():
    shape = (40, 30, 40)
    grid = plan_tiles(shape, halo=1, blend=2, multiple=4, tile=TILE)
    image = prepare_image(volume(shape), shape, Normalisation())
    one, _ = network_fields(image, grid, Session(), Keep())
    notes, done = [], []
    spread = SpreadSession([Session(), Session(room=2)])
    there, _ = network_fields(image, grid, spread, Keep(), done.append, notes.append)
    np.testing.assert_array_equal(there, one)
    assert sum(done) == np.prod(shape)
    assert len(notes) == 1
    assert "going on with 2 at a time" in notes[0]


def test_a_decoder_of_tiles_gets_them_in_order_from_several_gpus():
    shape = (20, 16, 72)
    grid = plan_tiles(shape, halo=1, blend=2, multiple=4, tile=TILE)
    image = prepare_image(volume(shape), shape, Normalisation())
    (there, tiles), _ = network_fields(
        image, grid, SpreadSession([Session(), Session()]), KeepTiles()
    )
    (here, expected), _ = network_fields(image, grid, Plain(), KeepTiles())
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-6)
    assert [tile[0] for tile in tiles] == [tile[0] for tile in expected]


def test_several_devices_share_the_tiles_in_turn():
    shape = (8, 30, 40)
    grid = plan_tiles(shape, halo=1, blend=2, multiple=4, tile=TILE)
    image = volume(shape)
    counts = [0, 0, 0]

    def device(index):
        def infer(tile):
            counts[index] += 1
            return network(tile)

        return infer

    def read(tile):
        padded = np.pad(image, [(0, 16)] * 3)
        z, y, x = tile.start
        return np.ascontiguousarray(padded[z : z + 8, y : y + 16, x : x + 16])

    def run(networks):
        out = np.empty((2, *shape), np.float32)
        for block in merge(grid, predict(grid, read, networks)):
            out[:, block.z, block.y] = block.fields
        return out

    three = run([device(0), device(1), device(2)])
    np.testing.assert_array_equal(three, run([network]))
    assert max(counts) - min(counts) <= 1


class Words(Session):
    """A network whose fields are flows and a probability, somewhat out of range."""

    output_channels = 4

    def __init__(self, largest_batch=4, room=4, compute=None):
        super().__init__(largest_batch, room, compute or words)


class PlainWords(Plain):
    def infer(self, image):
        return words(image)


def words(image):
    first = network(image)
    return np.concatenate([2.2 * first - 1.1, first[:, ::-1]], axis=1).astype(np.float32)


def classes(image):
    """Equal values are frequent: the first of them counts."""
    return np.round(3 * words(image)[:, :3]) / np.float32(3)


DECODERS = {
    "flows": (FlowDecoder(FlowParameters()), words),
    "classes": (TASCAN.make(TascanParameters(), Outputs(CLASS_OUTPUTS), ""), classes),
}


class OnHost:
    """A decoder that is given all merged channels on the host, whatever it could do with less."""

    merging, merged = "weighted", slice(None)

    def __init__(self, decoder):
        self.decoder = decoder

    def collector(self, shape):
        collector = self.decoder.collector(shape)
        collector.reduction = None
        return collector


@pytest.fixture(params=["whole", "in pieces"])
def way(request, monkeypatch):
    """What is kept lies on the device, or goes to the host in pieces; says which was done."""
    taken = []
    for name, kind in (("whole", Whole), ("in pieces", InPieces)):
        real = kind.make_room
        monkeypatch.setattr(
            kind, "make_room", lambda self, real=real, name=name: taken.append(name) or real(self)
        )
    if request.param == "in pieces":
        monkeypatch.setattr(collect_cuda, "PIECE_BYTES", 3000)
        real_room = run_cuda._first_room
        monkeypatch.setattr(
            run_cuda,
            "_first_room",
            lambda *arguments: dataclasses.replace(real_room(*arguments), kept=False),
        )
    yield request.param
    assert request.param in taken


def reduced_case(name, shape=(20, 30, 40), session=None):
    decoder, compute = DECODERS[name]
    session = session or Words(compute=compute)
    session.output_channels = 4 if name == "flows" else 3
    grid = plan_tiles(shape, halo=1, blend=2, multiple=4, tile=TILE)
    return decoder, session, grid, prepare_image(volume(shape), shape, Normalisation())


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_kept_is_made_on_the_device_in_the_hosts_bits(name, way):
    decoder, session, grid, image = reduced_case(name)
    done = []
    kept, _ = network_fields(image, grid, session, decoder, done.append)
    expected, _ = network_fields(image, grid, session, OnHost(decoder))
    # Only the decoder of flows works on GPUs.
    assert isinstance(kept, np.ndarray) == (way == "in pieces" or name == "classes")
    kept = host_array(kept)
    assert kept.dtype == expected.dtype
    np.testing.assert_array_equal(kept, expected)
    assert len(np.unique(kept)) > 2
    assert sum(done) == np.prod(grid.shape)


@pytest.mark.parametrize("gpu", [True, False])
def test_a_field_stays_on_the_gpu_and_is_decoded_wherever_that_is_done(monkeypatch, gpu):
    decoder, session, grid, image = reduced_case("flows", (6, 12, 14))
    from cellrt.runtime.decoding.flows.cuda.steps import CudaSteps

    place = Place("a GPU" if gpu else "CPU", "as a test says")
    monkeypatch.setattr(gpu_or_cpu, "find_gpu", lambda: (CudaSteps() if gpu else None, place))
    kept, _ = network_fields(image, grid, session, decoder)
    expected, _ = network_fields(image, grid, session, OnHost(decoder))
    assert not isinstance(kept, np.ndarray)
    assert kept.shape == grid.shape
    np.testing.assert_array_equal(kept.copy_to_host(), expected)
    found, cells = (decoder.decode(each, mode="fast") for each in (kept, expected))
    assert found.place == place
    np.testing.assert_array_equal(found.labels, cells.labels)
    assert decoder.agreement(found, kept) == decoder.agreement(cells, expected)
    # Who takes the fields elsewhere takes them from the GPU: in a file, and with them in a process.
    fields = pickle.loads(pickle.dumps(Fields(None, kept)))
    np.testing.assert_array_equal(fields.kept, expected)
    assert isinstance(fields.kept, np.ndarray)
    # Where the CPU was asked for, the field comes to it.
    kept, _ = network_fields(image, grid, session, FlowDecoder(FlowParameters(), "as asked"))
    assert isinstance(kept, np.ndarray)
    np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_found_on_the_device(name, value, way):
    decoder, session, grid, image = reduced_case(name)
    compute, calls = session.compute, []

    def broken(image):
        fields = compute(image)
        calls.append(len(image))
        if sum(calls) == len(grid):  # the last tile, so that nothing comes after it
            fields[-1, -1, 2, 3, 4] = value
        return fields

    session.compute = broken
    with pytest.raises(EngineError, match="NaN"):
        network_fields(image, grid, session, decoder)
    # It is said of that image, not of the next one.
    session.compute = compute
    kept, _ = network_fields(image, grid, session, decoder)
    expected, _ = network_fields(image, grid, session, OnHost(decoder))
    np.testing.assert_array_equal(host_array(kept), expected)


def test_memory_that_runs_out_halfway_starts_again_with_what_is_kept(way):
    decoder, session, grid, image = reduced_case("flows")
    calls, done = [], []

    def compute(image):
        calls.append(len(image))
        if len(calls) == 3:
            with memory_errors():
                raise RuntimeError("Failed to allocate memory for requested buffer")
        return words(image)

    session.compute = compute
    kept, _ = network_fields(image, grid, session, decoder, done.append)
    session.compute = words
    expected, _ = network_fields(image, grid, session, OnHost(decoder))
    np.testing.assert_array_equal(host_array(kept), expected)
    assert calls[:4] == [4, 4, 4, 2]
    assert sum(done) == np.prod(grid.shape)


def test_what_is_kept_goes_to_the_host_where_one_tile_does_not_fit_beside_it():
    class Beside(Words):
        def reserve(self, batch, tile):
            with memory_errors():
                if len(refused) < 3:  # at 4, 2 and 1 at a time
                    refused.append(batch)
                    raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY")

    refused, notes = [], []
    decoder, session, grid, image = reduced_case("flows", session=Beside())
    kept, _ = network_fields(image, grid, session, decoder, note=notes.append)
    assert refused == [4, 2, 1]
    assert "kept of finished tiles in the host's memory" in notes[-1]
    expected, _ = network_fields(image, grid, session, OnHost(decoder))
    np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize("name", DECODERS)
def test_several_gpus_send_what_is_kept_to_the_host(name):
    decoder, session, grid, image = reduced_case(name, (40, 30, 40))
    one, _ = network_fields(image, grid, session, decoder)
    others = [Words(compute=session.compute) for _ in range(2)]
    for each in others:
        each.output_channels = session.output_channels
    done = []
    there, _ = network_fields(image, grid, SpreadSession(others), decoder, done.append)
    assert isinstance(there, np.ndarray)
    np.testing.assert_array_equal(there, host_array(one))
    assert sum(done) == np.prod(grid.shape)


def test_pinned_memory_stays_for_the_next_image_but_not_for_one_after_a_failure(monkeypatch):
    decoder, session, grid, image = reduced_case("flows")
    made, real = [], Device.pinned
    monkeypatch.setattr(Device, "pinned", lambda *a: made.append(np.prod(a[1])) or real(*a))
    network_fields(image, grid, session, decoder)
    large = [size for size in made if size > 1]
    assert large
    made.clear()
    network_fields(image, grid, session, decoder)
    assert [size for size in made if size > 1] == []
    session.compute = lambda image: words(image) * np.float32(np.nan)
    with pytest.raises(EngineError, match="NaN"):
        network_fields(image, grid, session, decoder)
    session.compute = words
    made.clear()
    network_fields(image, grid, session, decoder)
    assert [size for size in made if size > 1] == large


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_large_arrays_come_to_the_host_in_pieces(monkeypatch, dtype):
    monkeypatch.setattr(transfer, "CHUNK_BYTES", 64)
    array = np.random.default_rng(0).integers(0, 200, (7, 5, 9)).astype(dtype)
    there = open_device().cuda.to_device(array)
    np.testing.assert_array_equal(transfer.to_host(there), array)
    np.testing.assert_array_equal(host_array(there), array)
    assert host_array(array) is array


class HalfSession(Session):
    """A network whose output has half as many voxels along each axis."""

    output_stride = 2

    def __init__(self, **options):
        super().__init__(compute=halved, **options)


def halved(image):
    n, _, z, y, x = image.shape
    mean = image.reshape(n, 1, z // 2, 2, y // 2, 2, x // 2, 2).mean(axis=(3, 5, 7))
    place = np.arange(mean[0].size, dtype=np.float32).reshape(mean.shape[1:]) / mean[0].size
    return np.concatenate([mean + place, 2 * mean - place], axis=1).astype(np.float32)


@pytest.mark.parametrize("decoder", [Keep, KeepTiles])
def test_outputs_with_a_stride_are_the_hosts(decoder):
    shape = (13, 17, 45)

    class Strided(decoder):
        def collector(self, shape):
            return super().collector(tuple(-(-n // 2) for n in shape))

    class Host(Plain):
        def infer(self, image):
            return halved(image)

    grid = plan_tiles(shape, halo=0, blend=2, multiple=4, stride=2, tile=TILE)
    image = prepare_image(volume(shape), shape, Normalisation())
    done = []
    there, _ = network_fields(image, grid, HalfSession(), Strided(), done.append)
    here, _ = network_fields(image, grid, Host(), Strided())
    assert sum(done) == np.prod(shape)
    if decoder is KeepTiles:
        for (start, own, fields), (start_, own_, fields_) in zip(there[1], here[1], strict=True):
            assert (start, own) == (start_, own_)
            np.testing.assert_allclose(fields, fields_, atol=1e-6)
        there, here = there[0], here[0]
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-6)
    golden = HalfSession().infer(image.read((0, 0, 0), TILE)[None, None])
    assert golden.shape == (1, 2, *(n // 2 for n in TILE))
