"""Which file an engine takes, and what it is said to compute in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cellrt.errors import EngineError, InputError
from cellrt.runtime.model.file import bundled_models, open_model
from cellrt.runtime.network.engines.base import PRECISIONS
from cellrt.runtime.network.engines.ladder import engine_named, ladder
from cellrt.runtime.network.engines.precision import file_for

NVIDIA = [spec.name for spec in ladder() if spec.needs == "nvidia"]
OTHERS = [spec.name for spec in ladder() if spec.needs != "nvidia"]


@pytest.fixture
def mine(tmp_path):
    """A user's own model, without an fp16 file."""
    path = tmp_path / "mine.onnx"
    path.write_bytes(bundled_models()["nuclei"].read_bytes())
    return open_model(path)


def in_precision(model, precision):
    """As if the file were in another precision."""
    return replace(model, card=replace(model.card, precision=precision))


@pytest.mark.parametrize("model", bundled_models())
@pytest.mark.parametrize("engine", NVIDIA)
def test_nvidia_gpus_take_the_fp16_file_that_ships_unless_asked_otherwise(engine, model):
    opened, spec = open_model(model), engine_named(engine)
    for precision in ("auto", "fp16"):
        assert file_for(opened, spec, precision).path.name == f"{model}.fp16.onnx"
    for precision in ("fp32", "tf32"):
        assert file_for(opened, spec, precision) is opened


@pytest.mark.parametrize("engine", OTHERS)
def test_other_engines_take_the_fp32_file_and_cpus_refuse_what_they_would_not_compute(engine):
    model, spec = open_model("nuclei"), engine_named(engine)
    for precision in ("auto", "fp32", "bf16"):  # bf16 is theirs to refuse, where a CPU has none
        assert file_for(model, spec, precision) is model
    with pytest.raises(EngineError, match=r"does not compute nuclei\.onnx in tf32"):
        file_for(model, spec, "tf32")
    if spec.needs == "intel":  # it computes in fp16 itself
        assert file_for(model, spec, "fp16") is model
        return
    for file in (model, model.variant("fp16")):
        with pytest.raises(EngineError, match=r"does not compute nuclei.* in fp16"):
            file_for(file, spec, "fp16")
    assert file_for(model.variant("fp16"), spec, "auto").card.precision == "fp16"


def test_an_own_model_without_an_fp16_file_runs_and_says_how_to_make_one(mine):
    notes = []
    assert file_for(mine, engine_named("onnxruntime-cuda"), "auto", notes.append) is mine
    assert notes == [
        f"no fp16 file of mine.onnx for GPUs; run `cellrt export {mine.path} --precision fp16`"
    ]
    with pytest.raises(EngineError, match=r"no mine\.fp16\.onnx beside mine\.onnx; run `cellrt"):
        file_for(mine, engine_named("tensorrt"), "fp16", notes.append)
    assert len(notes) == 1


def test_an_fp16_file_of_former_weights_is_refused_where_it_would_be_taken(mine):
    mine.variant_path("fp16").write_bytes(open_model("membranes").variant("fp16").content)
    spec = engine_named("tensorrt-rtx")
    with pytest.raises(InputError, match=r"mine\.fp16\.onnx is not the fp16 file of mine\.onnx"):
        file_for(mine, spec, "auto")
    assert file_for(mine, spec, "fp32") is mine
    assert file_for(mine, engine_named("openvino"), "auto") is mine


@pytest.mark.parametrize("own", ["fp16", "bf16", "int8"])
@pytest.mark.parametrize("engine", [spec.name for spec in ladder()])
def test_a_file_in_another_precision_is_computed_in_it_or_the_wish_is_refused(engine, own):
    file, spec = in_precision(open_model("nuclei"), own), engine_named(engine)
    assert file_for(file, spec, "auto") is file
    for asked in sorted(set(PRECISIONS) - {"auto"}):
        in_file = own in spec.file_precisions
        known = {own} if in_file else {"fp32"} | spec.own_precisions
        if asked in known:
            assert file_for(file, spec, asked) is file
        else:
            with pytest.raises(EngineError, match=r"use --precision auto|use precision auto"):
                file_for(file, spec, asked)
