"""Bundles of an engine and its model, without a GPU."""

from __future__ import annotations

from cellrt.runtime.model.file import open_model
from cellrt.runtime.network.engines.tensorrt.build import Profile
from cellrt.runtime.network.engines.tensorrt.bundle import open_bundle, write_bundle
from cellrt.runtime.network.engines.tensorrt.cache import EngineKey


def test_a_model_whose_weights_lie_in_another_file_is_bundled_with_them(tmp_path):
    half = open_model("nuclei").variant("fp16")
    key = EngineKey(
        half.card.name,
        half.sha256,
        *("0", "fp16", "tensorrt-rtx 1", "RTX GPUs", "any", "any", "any", "any"),
        profile=Profile((16, 32, 32)),
    )
    path = tmp_path / "nuclei.engine"
    write_bundle(path, half, b"an engine", key)
    with open_bundle(path) as bundle:
        assert bundle.model.card == half.card
        assert bundle.model.sha256 == key.model_sha256
        assert bundle.model.content == half.content
