"""What is known of guides once they are fitted: a table of a recipe, kept in checkpoints."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from cellrt.models.tables import Positive, Table


class GuideTable(Table):
    """``[model.guides]``: what `cellrt train` finds before the network learns, or another run did.

    Frequencies are along (y, x) in cycles per pixel of the model's grid, phases in radians;
    distances are the smallest between any two objects of a training image.
    """

    frequencies: tuple[tuple[float, float], ...]
    phases: tuple[float, ...]
    margin: Positive
    smallest_l1: Annotated[float, Field(ge=0)] = 0.0
    smallest_l2: Annotated[float, Field(ge=0)] = 0.0
    hinge_loss: Annotated[float, Field(ge=0)] = 0.0
    close_pairs: Annotated[int, Field(ge=0)] = 0
    pairs: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_phase_each(self) -> GuideTable:
        if len(self.frequencies) != len(self.phases):
            raise ValueError("give as many phases as frequencies")
        return self
