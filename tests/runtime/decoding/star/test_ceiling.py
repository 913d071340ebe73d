"""What is left of cells after encoding and drawing them again at the paper's order 5."""

from __future__ import annotations

import pytest

from cellrt.evaluation.cells import best_matches, cell_overlaps
from cellrt.evaluation.overlap import overlap_table
from cellrt.runtime.decoding.star.shapes import decode, encode
from cellrt.simulation.paper_nuclei import simulate_paper_nuclei


def ceiling(labels, *, whole=False):
    """Mean Dice of all cells, or of those that the image does not cut."""
    shapes = encode(labels, order=5)
    cells = best_matches(cell_overlaps(overlap_table(decode(shapes), labels)))
    assert cells.truth_ids.tolist() == shapes.ids.tolist()
    return cells.dice[~shapes.flagged("border")].mean() if whole else cells.dice.mean()


def test_nuclei_of_the_paper():
    labels = simulate_paper_nuclei("noise", (70, 70, 140), seed=1).labels
    assert labels.max() > 5
    assert ceiling(labels) >= 0.95


def test_plant_tissue(pytestconfig):
    file = pytestconfig.rootpath / "../shared/data/labels_only/plant_tissue_labels.h5"
    if not file.exists():
        pytest.skip("the shared data folder with plant_tissue_labels.h5 is not here")
    h5py = pytest.importorskip("h5py", reason="h5py is an extra")
    with h5py.File(file) as opened:
        labels = opened["label"][:100, 60:220, 180:380]
    # The crop cuts many more cells than the image does.
    assert ceiling(labels, whole=True) >= 0.91
