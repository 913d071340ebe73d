"""``cellrt evaluate``: score a label image against ground truth."""

from __future__ import annotations

from typing import Annotated, Optional

import typer


def evaluate(
    labels: Annotated[
        str,
        typer.Argument(help="Label image to score: TIFF, .npy, .npz, file.h5:dataset or .zarr."),
    ],
    truth: Annotated[str, typer.Argument(help="Ground truth of the same shape, 0 = background.")],
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with all scores and definitions.")
    ] = False,
    ignore_unlabelled: Annotated[
        bool,
        typer.Option(
            "--ignore-unlabelled",
            help="For sparse ground truth: 0 means unknown, and predicted cells that lie mostly "
            "there are left out.",
        ),
    ] = False,
    threshold: Annotated[
        Optional[list[float]],  # noqa: UP045 (typer evaluates it on Python 3.10)
        typer.Option(
            "--threshold",
            metavar="IOU",
            help="IoU threshold of the one-to-one matching; can be repeated. "
            "Default: 0.5 to 0.95 in steps of 0.05.",
        ),
    ] = None,
) -> None:
    """Score a label image against ground truth, cell by cell and as a whole.

    Channels of a TIFF are layers of cells that may overlap, as segment --overlaps and simulate
    worms write them; scores that compare partitions of the image have no value then.
    """
    import sys
    import warnings

    from cellrt.evaluation import IOU_THRESHOLDS
    from cellrt.evaluation import evaluate as score
    from cellrt.evaluation.overlap import as_layers, without_single_axes
    from cellrt.runtime.image.reading import read_array_with_axes

    (image, axes), (true_image, true_axes) = map(read_array_with_axes, (labels, truth))
    layers = axes.startswith("C") or true_axes.startswith("C")
    if layers:
        image, true_image = as_layers(image, axes), as_layers(true_image, true_axes)
    else:
        image, true_image = without_single_axes(image, true_image)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = score(
            image,
            true_image,
            ignore_unlabelled=ignore_unlabelled,
            layers=layers,
            thresholds=threshold or IOU_THRESHOLDS,
        )
    told = [str(warning.message) for warning in caught]
    for text in told:
        print(f"warning: {text}", file=sys.stderr)
    if json:
        from json import dumps

        result = {"prediction": labels, "truth": truth, "warnings": told, **scores.to_dict()}
        print(dumps(result, indent=2, allow_nan=False))
    else:
        from cellrt.evaluation.report import print_scores

        print_scores(scores, title=f"{labels} against {truth}")
