"""What each score means, in one line, and where it comes from: given out with the numbers."""

from __future__ import annotations

from typing import NamedTuple


class Definition(NamedTuple):
    """Meaning of a score and the publication that defines it."""

    meaning: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.meaning} [{self.source}]" if self.source else self.meaning


_WANG = "Wang et al. 2022, doi:10.1038/s41598-021-04048-3"
_CTC = "Cell Tracking Challenge, Ulman et al. 2017, doi:10.1038/nmeth.4473"
_SCHARR = "Scharr et al. 2016, doi:10.1007/s00138-015-0737-3"
_ARGANDA = "Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142"
_MEILA = "Meila 2007, doi:10.1016/j.jmva.2006.11.013"
_COCO = "Lin et al. 2014, doi:10.1007/978-3-319-10602-1_48"
_CAICEDO = "Caicedo et al. 2019, doi:10.1038/s41592-019-0612-7"
_KIRILLOV = "Kirillov et al. 2019, doi:10.1109/CVPR.2019.00963"

DEFINITIONS: dict[str, Definition] = {
    "ignore_unlabelled": Definition(
        "if true, 0 in the truth means unknown: predicted cells mostly on it are left out, Rand "
        "and information scores use labelled voxels only, cells are not clipped"
    ),
    "mean_dice": Definition(
        "mean over true cells of the best match's Dice: 2 x shared voxels/(sum of both volumes)",
        _WANG,
    ),
    "median_dice": Definition("median over true cells of the same Dice", _WANG),
    "mean_jaccard": Definition(
        "mean over true cells of the best match's Jaccard: shared voxels/union of both", _WANG
    ),
    "dice_above_50": Definition("share of true cells with best Dice > 0.5", _WANG),
    "dice_above_70": Definition("share of true cells with best Dice > 0.7", _WANG),
    "jaccard_above_50": Definition("share of true cells with best Jaccard > 0.5", _WANG),
    "jaccard_above_70": Definition("share of true cells with best Jaccard > 0.7", _WANG),
    "seg": Definition(
        "mean over true cells of the Jaccard with the prediction that covers more than half, "
        "0 without one",
        _CTC,
    ),
    "symmetric_best_dice": Definition(
        "smaller one of best_dice_prediction and best_dice_truth", _SCHARR
    ),
    "best_dice_prediction": Definition("mean over predicted cells of the best Dice", _SCHARR),
    "best_dice_truth": Definition("mean over true cells of the best Dice", _SCHARR),
    "count_difference": Definition("|DiC|, absolute difference in the number of cells", _SCHARR),
    "adapted_rand_error": Definition(
        "1 - harmonic mean of rand_precision and rand_recall, over voxels labelled in the truth; "
        "1 where only the prediction has cells",
        _ARGANDA,
    ),
    "rand_precision": Definition(
        "share of the voxel pairs joined by the prediction that belong together", _ARGANDA
    ),
    "rand_recall": Definition(
        "share of the voxel pairs that belong together and are joined by the prediction", _ARGANDA
    ),
    "variation_of_information_split": Definition(
        "H(prediction|truth) in bits; background counts as a segment", _MEILA
    ),
    "variation_of_information_merge": Definition(
        "H(truth|prediction) in bits; background counts as a segment", _MEILA
    ),
    "coco_average_precision": Definition(
        "precision sampled at 101 recalls, all predictions ranked equal as labels carry no "
        "confidence; for the whole image the mean over IoU 0.5 to 0.95",
        _COCO,
    ),
    "mean_average_precision": Definition(
        "mean of TP/(TP+FP+FN) over the IoU thresholds listed", _CAICEDO
    ),
    "average_precision": Definition(
        "TP/(TP+FP+FN), cells matched one to one at IoU >= threshold", _CAICEDO
    ),
    "precision": Definition("TP/(TP+FP), same matching"),
    "recall": Definition("TP/(TP+FN), same matching"),
    "f1": Definition("2TP/(2TP+FP+FN), same matching"),
    "panoptic_quality": Definition("sum of the IoU of the matches/(TP+FP/2+FN/2)", _KIRILLOV),
    "mean_matched_iou": Definition("mean IoU of the matches", _KIRILLOV),
}
