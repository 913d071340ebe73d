"""Networks that have to know where a tile lies: told so by every engine, whatever the tiles."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from cellrt.errors import EngineError, UsageError  # noqa: E402
from cellrt.export.precision_variant import make_variant  # noqa: E402
from cellrt.export.trace import build_graph  # noqa: E402
from cellrt.graph.activations import activation_bytes  # noqa: E402
from cellrt.graph.file import embed_card, write_graph  # noqa: E402
from cellrt.models.harmonic_embedding.network import HarmonicEmbedding  # noqa: E402
from cellrt.models.layers.fold import fold_batch_norm  # noqa: E402
from cellrt.runtime.decoding.base import Outputs  # noqa: E402
from cellrt.runtime.decoding.embedding.decoder import (  # noqa: E402
    EMBEDDING,
    EmbeddingParameters,
    embedding_outputs,
    wave_outputs,
)
from cellrt.runtime.grid.model_image import prepare_image  # noqa: E402
from cellrt.runtime.model.card import ModelCard  # noqa: E402
from cellrt.runtime.model.card_parts import Guides, Normalisation, Output  # noqa: E402
from cellrt.runtime.model.file import open_model  # noqa: E402
from cellrt.runtime.model.guides import turns_at  # noqa: E402
from cellrt.runtime.network.engines import ladder  # noqa: E402
from cellrt.runtime.network.engines.choice import EngineChoice  # noqa: E402
from cellrt.runtime.network.run import network_fields  # noqa: E402
from cellrt.runtime.network.tiles import plan_tiles  # noqa: E402

GUIDES = Guides(((0.013, -0.02), (0.0, 0.017), (0.019, 0.004)), (0.3, 2.0, 5.5), 0.5, 0.6, 0.3, 0.0)
ENGINES = ("openvino", "onnxruntime")


def network_of(position):
    torch.manual_seed(0)
    net = HarmonicEmbedding(
        (4, 8), GUIDES.frequencies, GUIDES.phases, position=position, sinconv_size=5
    )
    return fold_batch_norm(net.eval())


def model_of(network, outputs, path):
    card = ModelCard(
        name="placed",
        summary="",
        target="nuclei",
        method="harmonic_embedding",
        decoder="embedding",
        decoder_parameters={},
        diameter_voxels=9.0,
        voxel_size_um=1.0,
        outputs=(Output("fields", outputs),),
        normalisation=Normalisation(),
        two_dimensional=True,
        planar=True,
        multiple=network.size_multiple,
        tile=(1, 64, 64),
        guides=GUIDES,
    )
    graph = build_graph(network, network.size_multiples)
    assert activation_bytes(graph, network.size_multiple) > 4
    embed_card(graph, card)
    write_graph(graph, path)
    return open_model(path), [value.name for value in graph.graph.input]


@pytest.fixture(scope="module")
def network():
    return network_of("sinconv")


@pytest.fixture(scope="module")
def model(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "placed.onnx"
    model, inputs = model_of(network, embedding_outputs(3), path)
    assert inputs == ["image", "turns"]
    assert model.card.told == GUIDES
    return model


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "placed.onnx"
    model, inputs = model_of(network_of("turn"), wave_outputs(3), path)
    assert inputs == ["image"]
    return model


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("start", [(0, 0, 0), (5, 30, 3002)])
def test_engines_tell_the_network_where_a_tile_lies(network, model, engine, start):
    tile = np.random.default_rng(0).random((1, 1, 1, 32, 48), np.float32)
    session = ladder.choose_engine(engine).load(model, (1, 32, 48), "fp32")
    assert session.takes_place
    with torch.inference_mode():
        turned = torch.from_numpy(turns_at(GUIDES, [start]))
        expected = network(torch.from_numpy(tile), turned).numpy()
    np.testing.assert_allclose(session.infer(tile, start), expected, atol=1e-4)
    if start == (0, 0, 0):
        np.testing.assert_allclose(session.infer(tile), expected, atol=1e-4)


def kept_of_image_and_of_tiles(model, engine, outputs, halo):
    """What the decoder keeps of an image in one piece, and of the same in many."""
    image = np.random.default_rng(0).random((2, 40, 300)).astype(np.float32)
    decoder = EMBEDDING.make(EmbeddingParameters(), outputs, "")
    for tile, width in (((1, 40, 300), 0), ((1, 40, 96), halo)):
        grid = plan_tiles(image.shape, halo=width, blend=4, multiple=2, tile=tile, planar=True)
        session = ladder.choose_engine(engine).load(model, tile, "fp32")
        prepared = prepare_image(image, image.shape, Normalisation())
        yield network_fields(prepared, grid, session, decoder)[0].astype(int)
    assert len(grid) > 6


@pytest.mark.parametrize("engine", ENGINES)
def test_tiles_say_what_the_whole_image_says(network, model, engine):
    outputs = Outputs(embedding_outputs(3))
    whole, tiled = kept_of_image_and_of_tiles(model, engine, outputs, network.receptive_radius)
    assert np.abs(whole - tiled).max() <= 2


def test_engines_that_cannot_are_refused(model):
    spec = next(spec for spec in ladder.ladder() if spec.needs == "nvidia")
    with pytest.raises(EngineError, match="does not tell placed where a tile lies yet; use"):
        EngineChoice(spec, "", True).refuse(model, None, "auto")


def test_other_precisions_are_refused(model):
    for precision in ("bf16", "int8"):
        with pytest.raises(UsageError, match="where tiles lie"):
            make_variant(model, precision)


def test_places_are_never_rounded_to_bf16(network, model):
    engine = ladder.choose_engine("openvino")
    # Far from the corner a place has more digits than bf16.
    tile, start = np.random.default_rng(0).random((1, 1, 1, 32, 48), np.float32), (0, 901, 3002)
    session = engine.load(model, (1, 32, 48), "auto")
    assert session.precision == "fp32"
    with torch.inference_mode():
        turned = torch.from_numpy(turns_at(GUIDES, [start]))
        expected = network(torch.from_numpy(tile), turned).numpy()
    np.testing.assert_allclose(session.infer(tile, start), expected, atol=1e-4)
    with pytest.raises(EngineError, match="where tiles lie, which bf16 cannot tell"):
        engine.load(model, (1, 32, 48), "bf16")


@pytest.mark.parametrize("engine", ENGINES)
def test_waves_that_the_decoder_turns_need_no_place(turned, engine):
    assert turned.card.told is None
    session = ladder.choose_engine(engine).load(turned, (1, 32, 48), "auto")
    assert not session.takes_place
    outputs = Outputs(wave_outputs(3), guides=GUIDES)
    whole, tiled = kept_of_image_and_of_tiles(turned, engine, outputs, halo=16)
    assert np.abs(whole - tiled).max() <= 2


def test_such_networks_run_on_every_engine_in_every_precision(turned):
    spec = next(spec for spec in ladder.ladder() if spec.needs == "nvidia")
    said = ""
    try:
        EngineChoice(spec, "", True).refuse(turned, None, "auto")
    except EngineError as error:  # for want of a GPU
        said = str(error)
    assert "lies" not in said
    tile = np.random.default_rng(0).random((1, 1, 1, 32, 48), np.float32)
    fields = [
        ladder.choose_engine("openvino").load(turned, (1, 32, 48), precision).infer(tile)
        for precision in ("auto", "fp32")
    ]
    np.testing.assert_allclose(*fields, atol=0.05)
