"""Published systems as tables of train.py's options. A flag on the command line overrides the recipe's value.

Options a paper leaves open keep train.py's own choice, marked "open" here.
"""

# Chen, "Extracting Cellular Location of Human Proteins Using Deep Learning": sections III.A to III.C and Fig. 5.
# Optimiser details beside the learning rate and the plateau's patience are from the author's public code.
CHEN = {
    "model": "se_resnext50_32x4d",  # III.B, Fig. 4
    "weights": "imagenet",  # III.C
    "stem": "mean",  # open
    "channels": "rgby",  # Fig. 1
    "size": 512,  # Table III
    "fit": "resize",
    "normalise": "dataset",  # open
    "augment": "1:chen 20:chen_strong",  # Fig. 3; numbers and the change at epoch 20 from the author's code
    "epochs": 40,  # IV.A
    "batch_size": 64,  # III.C
    # III.C: 10 epochs of BCE, then soft F1 + negatively weighted BCE. Fig. 5: weighted BCE scaled up at step 10k, which is
    # the end of epoch 23 with 27,965 images in batches of 64. By how much is open.
    "loss": "1:bce 11:soft_f1+weighted_bce 24:soft_f1+10*weighted_bce",
    "optimiser": "adadelta",  # III.C
    "lr": 0.1,  # III.C
    "momentum": 0.0,
    "weight_decay": 1e-4,  # author's code
    "l1": 0.0,
    "clip": 0.0,
    "plateau": "step",  # III.C: "decrease it on each step", by a factor of 0.5, on the training F1 loss
    "patience": 4.0,  # author's code
    "min_gain": 1e-4,  # open
    "early_stop": 5,  # III.C
}

# Rumetshofer et al., "Human-level Protein Localization with Convolutional Neural Networks", ICLR 2019: sections 2, 3
# and 3.1. Patience and threshold of the plateau are from the authors' public code.
GAPNET_PL = {
    "model": "gapnet_pl",  # 3, Fig. 4
    "weights": "none",
    "stem": "mean",
    "channels": "bgry",  # the order of the published weights
    "size": 1024,  # 3.1: random 1024² crops, prediction by patches that cover the image
    "fit": "crop",
    "normalise": "image",  # 2: zero mean, unit variance
    "augment": "none",  # 3.1: nothing but the crop
    "epochs": 200,  # "until convergence"; Fig. 9 shows 200 epochs
    "batch_size": 40,  # 3
    "loss": "1:bce",  # 3.1
    "optimiser": "sgd",  # 3.1
    "lr": 0.01,  # 3
    "momentum": 0.9,  # 3.1
    "weight_decay": 1e-5,  # 3.1, "L2 norm of 1e-5"
    "l1": 1e-7,  # 3.1
    "clip": 5.0,  # 3.1
    "plateau": "epoch",  # 3.1: halved when validation performance plateaus
    "patience": 30.0,  # authors' code
    "min_gain": 0.01,  # authors' code
    "early_stop": 0,  # the best checkpoint counts, training goes on
}

RECIPES = {"chen": CHEN, "gapnet_pl": GAPNET_PL}
