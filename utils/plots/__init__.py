"""The kit's pictures. Functions with a `path` draw one figure and write it there, as PNG or JPEG."""

from utils.plots.benchmark_figure import benchmark
from utils.plots.comparison import confusion, learning_curves, methods_by_class, mistakes
from utils.plots.decisions import f1_curves, precision_recall_by_class, reliability
from utils.plots.explore import (
    channels,
    class_distribution,
    classes_per_image,
    co_occurrence,
    image_sizes,
    intensity_shift,
    twin_pairs,
)
from utils.plots.image_sheets import contact_sheet, gallery, in_colour, operations, overlay, stretch
from utils.plots.samples import class_maps, class_samples, rare_classes
from utils.plots.style import BLUE, COLOURS, GREY, ORANGE, save, tidy
from utils.plots.table_figures import class_shares, fold_split, realism, thresholds
from utils.plots.training_curves import (
    NINE,
    class_curves,
    nine_curves,
    person_and_machine,
    precision_recall,
    split,
    validation,
)

__all__ = [
    "BLUE", "COLOURS", "GREY", "NINE", "ORANGE", "benchmark", "channels", "class_curves", "class_distribution",
    "class_maps", "class_samples", "class_shares", "classes_per_image", "co_occurrence", "confusion", "contact_sheet",
    "f1_curves", "fold_split", "gallery", "image_sizes", "in_colour", "intensity_shift", "learning_curves", "methods_by_class",
    "mistakes", "nine_curves", "operations", "overlay", "person_and_machine", "precision_recall",
    "precision_recall_by_class", "rare_classes", "realism", "reliability", "save", "split", "stretch", "thresholds",
    "tidy", "twin_pairs", "validation",
]  # fmt: skip
