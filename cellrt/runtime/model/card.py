"""The model card: what a cellrt model file says about itself.

The card travels inside the ONNX file as JSON under ``metadata_props["cellrt"]``. It is one typed
class, and :meth:`ModelCard.from_json` is the one place where a card is checked.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

from cellrt.errors import InputError
from cellrt.geometry import Shape, across_planes
from cellrt.runtime.model.card_parts import (
    LOCAL_BRIGHTNESS_VERSION,
    Confidence,
    Golden,
    Guides,
    LocalBrightness,
    Normalisation,
    Output,
    Score,
    TrainingData,
)

SCHEMA_VERSION = 1
METADATA_KEY = "cellrt"
INPUT, OUTPUT, TURNS = "image", "fields", "turns"
"""Names that exported graphs give their tensors. ``turns`` (n, guides), an input as well, is there
where a network has to know where a tile lies; see :mod:`cellrt.runtime.model.guides`."""
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
FLOW_OUTPUTS = ("flow_z", "flow_y", "flow_x", "foreground")
"""Fields of networks that predict flows."""


@dataclass(frozen=True)
class ModelCard:
    """Everything the runtime needs to know to use a network as its authors meant it.

    Parameters
    ----------
    name, summary : str
        Short name and one sentence on what the model is for.
    target : {"nuclei", "membranes"}
        What must be visible in the image.
    method, decoder : str
        How it was trained, in a word or more, and the decoder its outputs fit.
    decoder_parameters : dict
        Keyword arguments of the decoder's parameter class, in voxels of the model's grid.
    diameter_voxels : float
        Cell diameter on the model's (isotropic) grid that the network was trained around: that of
        the sphere with the median cell's volume.
    voxel_size_um : float
        Edge of a model voxel in µm for cells of ``diameter_um``; the first guess of the scale
        when an image states its voxel size and no diameter is given.
    diameter_range : (float, float)
        Relative cell sizes seen in training, as factors of ``diameter_voxels``.
    coarsest_slices : float
        Largest distance of an image's slices seen in training, in voxels of the model's grid.
    planar : bool
        The network looks at each plane by itself: multiple, receptive field, halo and blend hold
        along y and x only.
    views : bool
        The network looks at planes, and is asked about those along all three axes of a stack.
    multiple : int
        Tile edges and tile positions are multiples of this many voxels (total stride).
    output_stride : int
        Edge in voxels of what an output voxel covers: output voxel i covers input voxels
        ``output_stride * i`` and the following, so that a tile (z, y, x) gives fields of
        ``output_stride`` times fewer voxels along every axis.
    receptive_field_radius : int
        Largest distance in voxels at which an input voxel can influence an output voxel.
    activation_bytes : int
        Memory of the activations alive at once, in float32, per voxel of a tile.
    halo, blend : int
        Default voxels dropped at inner tile faces, and width of the weighted transition.
    tile : (int, int, int)
        Tile (z, y, x) for engines that are built for one shape.
    made_from : str
        SHA-256 of the fp32 file that a file in another precision was made from; else empty.
    unquantised : {"auto", "fp32"}
        Of an int8 file, how the layers are computed that are not int8: as fast as the CPU can, in
        bf16 where it has it, or in fp32 because their rounding would change cells.
    confidence : Confidence, optional
        For cells of the model's own decoder. Without it cells have no confidence.
    guides : Guides, optional
        Of a network that predicts harmonic embeddings.
    """

    name: str
    summary: str
    target: str
    method: str
    decoder: str
    decoder_parameters: dict[str, Any]
    diameter_voxels: float
    voxel_size_um: float
    outputs: tuple[Output, ...]
    diameter_range: tuple[float, float] = (0.6, 1.6)
    coarsest_slices: float = 4.0
    input_name: str = INPUT
    input_axes: str = "nczyx"
    channels: int = 1
    two_dimensional: bool = False
    normalisation: Normalisation | LocalBrightness = field(default_factory=Normalisation)
    planar: bool = False
    views: bool = False
    multiple: int = 8
    output_stride: int = 1
    receptive_field_radius: int = 44
    activation_bytes: int = 256
    halo: int = 8
    blend: int = 8
    tile: tuple[int, int, int] = (64, 96, 96)
    precision: str = "fp32"
    made_from: str = ""
    unquantised: str = "auto"
    confidence: Confidence | None = None
    guides: Guides | None = None
    training_data: tuple[TrainingData, ...] = ()
    scores: tuple[Score, ...] = ()
    golden: Golden | None = None
    recipe: str = ""
    licence: str = "BSD-3-Clause"
    schema_version: int = SCHEMA_VERSION

    @property
    def diameter_um(self) -> float:
        """Nominal cell diameter in µm."""
        return self.diameter_voxels * self.voxel_size_um

    @property
    def multiples(self) -> Shape:
        """What tile edges and tile positions are multiples of along (z, y, x)."""
        return across_planes(self.multiple, self.planar, 1)

    @property
    def predicts_flows(self) -> bool:
        """Whether the network says where each voxel's cell has its middle, as `--views` needs."""
        return self.outputs[0].channels == FLOW_OUTPUTS

    @property
    def told(self) -> Guides | None:
        """Guides of a network that is told where each tile lies.

        One whose outputs the decoder turns need not know.
        """
        if self.guides is None or len(self.outputs[0].channels) - 1 > len(self.guides.phases):
            return None
        return self.guides

    def to_json(self) -> str:
        """Serialise for ``metadata_props``."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, *, origin: str = "the model") -> ModelCard:
        """Parse and check a card.

        Parameters
        ----------
        text : str
            JSON as written by :meth:`to_json`.
        origin : str
            What error messages call the file.

        Raises
        ------
        InputError
            Not JSON, an unknown schema version, a missing or unknown field, a value out of range.
        """
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{origin}: the model card is not valid JSON ({error}); "
                "export the model again with `cellrt export`"
            ) from None
        if not isinstance(raw, dict):
            raise InputError(f"{origin}: the model card is not a JSON object; export it again")
        version = raw.get("schema_version")
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{origin}: model card of schema version {version!r}, this cellrt reads version "
                f"{SCHEMA_VERSION}; update cellrt, or export the model again with this version"
            )
        known = {f.name: f for f in dataclasses.fields(cls)}
        unknown = sorted(set(raw) - set(known))
        required = {
            name
            for name, f in known.items()
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        }
        missing = sorted(required - set(raw))
        if unknown or missing:
            what = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
            raise InputError(f"{origin}: the model card {what}; export the model again")
        try:
            card = cls(**_typed(raw))
            _check(card)
        except (TypeError, ValueError, KeyError) as error:
            raise InputError(
                f"{origin}: the model card is not valid ({error}); export the model again"
            ) from None
        return card


def _typed(raw: dict[str, Any]) -> dict[str, Any]:
    """Turn JSON's dicts and lists into the card's dataclasses and tuples."""
    values = dict(raw)
    values["outputs"] = tuple(
        Output(name=o["name"], channels=tuple(o["channels"])) for o in raw["outputs"]
    )
    if "normalisation" in raw:
        local = "diameter_voxels" in raw["normalisation"]
        values["normalisation"] = (LocalBrightness if local else Normalisation)(
            **raw["normalisation"]
        )
    values["training_data"] = tuple(TrainingData(**d) for d in raw.get("training_data", ()))
    values["scores"] = tuple(Score(**s) for s in raw.get("scores", ()))
    if raw.get("confidence") is not None:
        values["confidence"] = Confidence(**raw["confidence"])
    if raw.get("guides") is not None:
        guides = dict(raw["guides"])
        guides["frequencies"] = tuple((float(fy), float(fx)) for fy, fx in guides["frequencies"])
        guides["phases"] = tuple(map(float, guides["phases"]))
        values["guides"] = Guides(**guides)
    if raw.get("golden") is not None:
        golden = dict(raw["golden"])
        golden["shape"] = tuple(golden["shape"])
        golden["output_mean"] = tuple(golden["output_mean"])
        values["golden"] = Golden(**golden)
    for name in ("tile", "diameter_range"):
        if name in raw:
            values[name] = tuple(raw[name])
    return values


def _check(card: ModelCard) -> None:
    """Raise ValueError with the field's name where a value makes no sense."""

    def need(condition: bool, what: str) -> None:
        if not condition:
            raise ValueError(what)

    need(card.precision in PRECISIONS, f"precision {card.precision!r}")
    need(card.unquantised in ("auto", "fp32"), f"unquantised {card.unquantised!r}")
    need(card.channels == 1, f"channels is {card.channels}, only 1 is supported")
    need(card.input_axes == "nczyx", f"input_axes {card.input_axes!r}, expected 'nczyx'")
    for name in ("diameter_voxels", "voxel_size_um", "coarsest_slices"):
        value = getattr(card, name)
        need(math.isfinite(value) and value > 0, f"{name} must be above 0, is {value}")
    need(len(card.tile) == 3, "tile needs three edges (z, y, x)")
    need(card.multiple >= 1, "multiple must be at least 1")
    need(
        card.output_stride >= 1 and card.multiple % card.output_stride == 0,
        f"output_stride {card.output_stride} must divide multiple {card.multiple}",
    )
    need(
        all(edge > 0 and edge % n == 0 for edge, n in zip(card.tile, card.multiples, strict=True)),
        f"tile {card.tile} must be positive multiples of {card.multiple}"
        + (" along y and x" if card.planar else ""),
    )
    need(card.two_dimensional or not card.planar, "planar needs two_dimensional")
    need(card.output_stride == 1 or not card.planar, "planar needs an output_stride of 1")
    need(not (card.views and card.planar), "views are of whole stacks and exclude planar")
    need(not card.views or card.predicts_flows, "views need flows")
    need(card.activation_bytes >= 4, "activation_bytes must be at least 4")
    need(card.halo >= 0 and card.blend >= 0, "halo and blend must not be negative")
    need(len(card.outputs) >= 1, "outputs is empty")
    rule = card.normalisation
    if isinstance(rule, LocalBrightness):
        need(
            rule.version == LOCAL_BRIGHTNESS_VERSION,
            f"normalisation is local brightness of version {rule.version}, this cellrt knows "
            f"version {LOCAL_BRIGHTNESS_VERSION}",
        )
        need(rule.diameter_voxels > 0, "normalisation.diameter_voxels must be above 0")
    else:
        low, high = rule.low_percentile, rule.high_percentile
        need(0 <= low < high <= 100, f"normalisation percentiles {low}, {high}")
    if card.confidence is not None:
        for part in (card.confidence.cell, card.confidence.stack):
            terms_make_sense = all(
                name == "constant" or name.partition(" ")[0] in ("plain", "log", "logit")
                for name in part
            )
            need(terms_make_sense, f"confidence has the terms {', '.join(part)}")
            need(all(map(math.isfinite, part.values())), "confidence needs finite weights")
    if card.guides is not None:
        count = len(card.guides.phases)
        need(
            len(card.guides.frequencies) == count
            and len(card.outputs[0].channels) - 1 in (count, 2 * count),
            "guides must be as many as the embedding has channels, or pairs of channels",
        )
        numbers = (*sum(card.guides.frequencies, ()), *card.guides.phases)
        need(all(map(math.isfinite, numbers)), "guides need finite frequencies and phases")
        need(card.guides.margin > 0, f"guides.margin is {card.guides.margin}, must be above 0")
    smallest, largest = card.diameter_range
    need(0 < smallest <= 1 <= largest, f"diameter_range {card.diameter_range} must enclose 1")
