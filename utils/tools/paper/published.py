"""The numbers that the four papers print, as printed: the only place for them.

A table's first line names its columns, each other line a row; cells are separated by two or more spaces, "-" is not
printed. What the papers only draw is not here.
"""

import re
from collections import namedtuple

# source: where in the paper. columns: names. rows: {name: printed cells, None where nothing is printed}.
Table = namedtuple("Table", "source title columns rows")
Paper = namedtuple("Paper", "title recipes tables")


def _table(source, title, text):
    header, *lines = (re.split(r"\s{2,}", line.strip()) for line in text.strip().splitlines())
    rows = {name: [None if cell == "-" else cell for cell in cells] for name, *cells in lines}
    if len(rows) < len(lines) or any(len(cells) != len(header) for cells in rows.values()):
        raise ValueError(f"{source}: a row is printed twice, or has more or fewer cells than columns")
    return Table(source, title, header, rows)


def number(printed):
    """The value of a printed number: ``'96.87%' -> .9687``, ``'301,384' -> 301384.0``."""
    text = printed.replace(",", "")
    return float(text.replace("%", "e-2"))


_CHEN = (
    _table(
        "Sections III and IV",
        "Data and training",
        """
        machine
        images to train and validate on  31,072
        test images, never trained on    11,111
        images that a person labelled    203
        epochs                           40
        training F1                      0.75
        training precision               77.28%
        training recall                  75.28%
        threshold for all classes        0.268
        accuracy of the best class       79.68%
        accuracy of Nucleoli             79.68%
        """,
    ),
    _table(
        "Table I",
        "Best threshold of each class",
        """
        raw       smoothed
        All  0.2332    0.2196
        0    0.07007   0.1547
        1    0.965     0.1571
        2    0.8579    0.1798
        3    0.1662    0.1931
        4    0.7728    0.1324
        5    0.01001   0.1926
        6    0.01201   0.09215
        7    0.003003  0.1843
        8    0.7978    0.1669
        9    0.01602   0.09612
        10   0.1982    0.01602
        11   0.5325    0.1286
        12   0.2152    0.1722
        13   0.03103   0.1544
        14   0.004004  0.04645
        15   0.04304   0.06961
        16   0.005005  0.1499
        17   0.003003  0.06373
        18   0.0981    0.1001
        19   0.04204   0.1706
        20   0.01101   0.1264
        21   0.01101   0.1121
        22   0.01702   0.08679
        23   0         0
        24   0.03504   0.08634
        25   0.01502   0.1221
        26   0.005005  0.1943
        27   0.01502   0.118
        """,
    ),
    _table(
        "Table II",
        "Human and machine",
        """
        human   machine
        correct labels   5,360   301,384
        total labels     5,880   311,108
        binary accuracy  91.15%  96.87%
        F1, macro        0.1124  0.3407
        precision        44.67%  67.29%
        recall           27.46%  69.23%
        IoU              27.29%  63.07%
        """,
    ),
    _table(
        "Table III",
        "Seconds per image",
        """
        one P100, 16 vCPU
        4x1728x1728 .jpg, batch 1  1.16
        4x512x512 .npy, batch 64   0.0128
        4x512x512 .npy, batch 1    0.0769
        images per second          78.125
        images per minute          4,600
        """,
    ),
)

_GAPNET_PL = (
    _table(
        "Section 2",
        "Data",
        """
        images
        to train on                            15,004
        to validate on                         1,876
        to test on                             1,876
        of one class, to fine-tune on          11,848
        of one class, network against expert   200
        """,
    ),
    _table(
        "Table 1",
        "Mean and standard deviation (±) over classes; p of GapNet-PL being no better (one-sided paired Wilcoxon test)",
        """
        F1    F1 ±  p       precision  recall  AUC   AUC ±
        GapNet-PL               0.78  0.09  -       0.84       0.75    0.98  0.02
        M-CNN                   0.75  0.12  0.0232  0.90       0.66    0.97  0.02
        DenseNet-121            0.73  0.12  0.0434  0.75       0.74    0.97  0.02
        DeepLoc                 0.52  0.28  0.0009  0.79       0.45    0.91  0.07
        Convolutional MIL       0.47  0.31  0.0007  0.71       0.40    0.94  0.06
        Liimatainen et al.      0.51  -     -       0.45       0.68    -     -
        """,
    ),
    _table(
        "Table 2",
        "F1 of each class",
        """
        GapNet-PL  M-CNN  DenseNet-121  DeepLoc  Convolutional MIL
        Actin filaments         0.682  0.651  0.719  0.125  0.000
        Centrosome              0.659  0.522  0.598  0.039  0.000
        Cytosol                 0.776  0.805  0.789  0.784  0.735
        Endoplasmic reticulum   0.672  0.629  0.645  0.538  0.338
        Golgi apparatus         0.754  0.689  0.750  0.428  0.331
        Intermediate filaments  0.800  0.625  0.490  0.000  0.000
        Microtubules            0.767  0.901  0.853  0.696  0.712
        Mitochondria            0.866  0.818  0.843  0.758  0.608
        Nuclear membrane        0.922  0.907  0.756  0.675  0.692
        Nucleoli                0.873  0.816  0.826  0.613  0.802
        Nucleus                 0.949  0.945  0.943  0.925  0.945
        Plasma membrane         0.766  0.756  0.656  0.597  0.538
        Vesicles                0.683  0.685  0.682  0.551  0.435
        Mean                    0.782  0.750  0.735  0.517  0.472
        classes won             9      3      1      -      -
        """,
    ),
    _table(
        "Table 3",
        "Images of one class: network and expert",
        """
        accuracy  F1    precision  recall
        GapNet-PL     0.91      0.82  0.75       0.95
        human expert  0.61      0.58  0.73       0.58
        """,
    ),
    _table(
        "Table 4",
        "Both on the same images; p of McNemar's test",
        """
        images
        both right           121
        only GapNet-PL right  60
        only expert right     7
        neither right         12
        p                     2e-10
        """,
    ),
    _table(
        "Table 7",
        "Cost (one GTX 1080 Ti)",
        """
        seconds per epoch  parameters
        Convolutional MIL  413    593,143
        GapNet-PL          605    626,221
        M-CNN              895    34,193,853
        DenseNet-121       2,176  6,970,317
        DeepLoc            3,497  201,716,967
        """,
    ),
)

_MYLAVARAPU = (
    _table(
        "Architecture, 3",
        "Split",
        """
        images
        to train on     24,000
        to validate on  3,000
        to test on      4,072
        """,
    ),
    _table(
        "Models and Results",
        "Macro F1 of the test set",
        """
        macro F1
        model 1  0.16
        model 2  -
        model 3  -
        model 4  0.32
        """,
    ),
    _table(
        "Discussion",
        "Correct predictions of the rarest classes in the test set",
        """
        model 1  model 2  model 3  model 4
        Endosomes      0  0  0  0
        Lysosomes      0  0  0  0
        Rods & rings   0  0  0  0
        """,
    ),
)

_POSTER = (
    _table(
        "Results & Analysis",
        "Accuracy and loss",
        """
        train accuracy  validation accuracy  train loss  validation loss
        simple ConvNet, RGB 299²    0.122  0.121  0.8     0.78
        simple ConvNet, RGBY 1024²  0.942  0.9    0.22    0.21
        Xception, RGB 299²          0.99   0.96   0.1     0.02
        GapNet, RGBY 700²           0.942  0.94   0.0219  0.0218
        """,
    ),
    _table(
        "F1 Performance",
        "Macro F1 (a figure without numbers: GapNet above the rest, Xception above the ConvNets)",
        """
        macro F1
        simple ConvNet, RGB 299²    -
        simple ConvNet, RGBY 1024²  -
        Xception, RGB 299²          -
        GapNet, RGBY 700²           -
        """,
    ),
)

# recipes: {recipe: the name of its row or column}.
PAPERS = {
    "chen": Paper(
        "Chen, Extracting Cellular Location of Human Proteins Using Deep Learning", {"chen": "machine"}, _CHEN
    ),
    "gapnet_pl": Paper(
        "Rumetshofer et al., Human-level Protein Localization with Convolutional Neural Networks, ICLR 2019",
        {
            "gapnet_pl": "GapNet-PL",
            "m_cnn": "M-CNN",
            "densenet121": "DenseNet-121",
            "deeploc": "DeepLoc",
            "conv_mil": "Convolutional MIL",
            "liimatainen_fcn": "Liimatainen et al.",
        },
        _GAPNET_PL,
    ),
    "mylavarapu": Paper(
        "Mylavarapu, Classification of Subcellular Protein Localizations (poster)",
        {f"mylavarapu_{number}": f"model {number}" for number in range(1, 5)},
        _MYLAVARAPU,
    ),
    "poster": Paper(
        "A poster of simple ConvNets, Xception and GapNet",
        dict(zip(("poster_convnet_rgb", "poster_convnet_rgby", "poster_xception", "poster_gapnet"), _POSTER[0].rows)),
        _POSTER,
    ),
}
