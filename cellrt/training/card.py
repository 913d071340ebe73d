"""The model card of a network that a recipe trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from cellrt.models.harmonic_embedding.guide_table import GuideTable
from cellrt.models.layers.network import Network
from cellrt.runtime.model.card import OUTPUT, ModelCard
from cellrt.runtime.model.card_parts import Guides, LocalBrightness, Output, Score, TrainingData
from cellrt.training.recipe import Recipe
from cellrt.wording import counted

# Tiles for engines that are built for one shape.
_TILE, _PLANAR_TILE = (64, 96, 96), (1, 512, 512)


def make_card(net: Network, recipe: Recipe, name: str, scores: Sequence[Score] = ()) -> ModelCard:
    """Describe a network with what its recipe says."""
    data = [TrainingData(t.name, t.source, t.licence) for t in recipe.data]
    data += [
        TrainingData(f"{t.name} ({counted(t.count, 'stack')})", "cellrt.simulation", "BSD-3-Clause")
        for t in recipe.simulate
    ]
    method = recipe.method()
    return ModelCard(
        name=name,
        summary=recipe.description,
        target=recipe.kind,
        method=recipe.model.method,
        decoder=method.decoder,
        decoder_parameters=method.decoder_parameters,
        diameter_voxels=recipe.model.nominal_diameter_voxels,
        voxel_size_um=recipe.model.voxel_size_um,
        outputs=(Output(OUTPUT, method.outputs),),
        diameter_range=recipe.augment.zoom,
        coarsest_slices=recipe.augment.coarse_z[1],
        normalisation=LocalBrightness(recipe.model.nominal_diameter_voxels),
        two_dimensional=recipe.model.two_dimensional,
        planar=net.planar,
        multiple=net.size_multiple,
        output_stride=net.output_stride,
        receptive_field_radius=net.receptive_radius,
        halo=net.halo,
        tile=_PLANAR_TILE if net.planar else _TILE,
        guides=_guides(getattr(recipe.model, "guides", None)),
        training_data=tuple(data),
        scores=tuple(scores),
        recipe=f"recipes/{recipe.name}.toml",
    )


def fitted_before(card: ModelCard) -> dict[str, Any]:
    """Return what a table of the recipe's ``[model]`` takes over from a model to start from."""
    return {} if card.guides is None else {"guides": GuideTable(**asdict(card.guides))}


def _guides(table: GuideTable | None) -> Guides | None:
    """What a card keeps of the guides that were fitted."""
    if table is None:
        return None
    return Guides(**{field.name: getattr(table, field.name) for field in fields(Guides)})
