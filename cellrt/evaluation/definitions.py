"""What each score means, in one line, with its source: printed and written with the numbers."""

from __future__ import annotations

DEFINITIONS: dict[str, str] = {
    "ignore_unlabelled": (
        "true: label 0 of the ground truth means unknown; predicted cells mostly on it are not "
        "counted, Rand and information scores take in labelled voxels only; cells are not clipped"
    ),
    "mean_dice": (
        "mean over the true cells of the Dice 2|A∩B|/(|A|+|B|) with the predicted cell that fits "
        "best; DSC of Wang et al. 2022 (3DCellSeg), eq. 2"
    ),
    "median_dice": "median over the true cells of the same Dice",
    "mean_jaccard": "the same with Jaccard |A∩B|/|A∪B|; JI of Wang et al. 2022, eq. 1",
    "dice_above_50": "share of true cells with best Dice above 0.5; Wang et al. 2022",
    "dice_above_70": "share of true cells with best Dice above 0.7; Wang et al. 2022",
    "jaccard_above_50": "share of true cells with best Jaccard above 0.5; Wang et al. 2022",
    "jaccard_above_70": "share of true cells with best Jaccard above 0.7; Wang et al. 2022",
    "seg": (
        "mean over the true cells of the Jaccard with the predicted cell that covers more than "
        "half of it, 0 without one; Cell Tracking Challenge, Ulman et al. 2017, "
        "doi:10.1038/nmeth.4473"
    ),
    "symmetric_best_dice": (
        "smaller one of best_dice_prediction and best_dice_truth; Scharr et al. 2016, "
        "doi:10.1007/s00138-015-0737-3"
    ),
    "best_dice_prediction": "mean over the predicted cells of the best Dice with a true cell",
    "best_dice_truth": "mean over the true cells of the best Dice with a predicted cell",
    "count_difference": "|DiC|, absolute difference of the numbers of cells; Scharr et al. 2016",
    "adapted_rand_error": (
        "1 - harmonic mean of rand_precision and rand_recall over pairs of voxels labelled in the "
        "truth; Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142"
    ),
    "rand_precision": "share of the voxel pairs joined by the prediction that belong together",
    "rand_recall": "share of the voxel pairs that belong together which the prediction joins",
    "variation_of_information_split": (
        "H(prediction|truth) in bits, over all voxels, background as one segment; Meila 2007, "
        "doi:10.1016/j.jmva.2006.11.013"
    ),
    "variation_of_information_merge": (
        "H(truth|prediction) in bits, over all voxels, background as one segment; Meila 2007"
    ),
    "coco_average_precision": (
        "precision-recall curve sampled at 101 recalls, all predictions ranked equal as labels "
        "carry no confidence; top level: mean over IoU 0.5 to 0.95; Lin et al. 2014, "
        "doi:10.1007/978-3-319-10602-1_48"
    ),
    "mean_average_precision": "mean of average_precision over the thresholds listed",
    "average_precision": (
        "TP/(TP+FP+FN) of the one-to-one matching at IoU >= threshold; Caicedo et al. 2019, "
        "doi:10.1038/s41592-019-0612-7"
    ),
    "precision": "TP/(TP+FP)",
    "recall": "TP/(TP+FN)",
    "f1": "2TP/(2TP+FP+FN)",
    "panoptic_quality": (
        "sum of the IoU of the matches/(TP+FP/2+FN/2); Kirillov et al. 2019, "
        "doi:10.1109/CVPR.2019.00963"
    ),
    "mean_matched_iou": "mean IoU of the matches; segmentation quality of Kirillov et al. 2019",
}
