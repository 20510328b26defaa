"""Published systems, and the kit's own, as tables of train.py's options. A flag on the command line overrides the recipe's value.

What a paper leaves open is marked "open" here, and is our choice.
"""

# Chen, "Extracting Cellular Location of Human Proteins Using Deep Learning": sections III.A to III.C and Fig. 5.
# Optimiser details beside the learning rate and the plateau's patience are from the author's public code.
CHEN = {
    "model": "se_resnext50_32x4d",  # III.B, Fig. 4; how deep is open
    "weights": "imagenet",  # III.C
    "stem": "mean",  # open; the author's code leaves the filters random
    "channels": "rgby",  # Fig. 1
    "size": 512,  # Table III
    "fit": "resize",
    "normalise": "dataset",  # open
    "augment": "1:chen 21:chen_strong",  # Fig. 3; numbers and the change after epoch 20 from the author's code
    "epochs": 40,  # IV.A
    "batch_size": 64,  # III.C
    # III.C: 10 epochs of BCE, then soft F1 + negatively weighted BCE. Fig. 5: weighted BCE scaled up at step 10k. By how much is open.
    "loss": "1:bce 11:soft_f1+weighted_bce step10000:soft_f1+10*weighted_bce",
    "optimiser": "adadelta",  # III.C
    "lr": 0.1,  # III.C
    "momentum": 0.0,
    "weight_decay": 1e-4,  # author's code
    "l1": 0.0,
    "clip": 0.0,
    "plateau": "step",  # III.C: "decrease it on each step", by a factor of 0.5, on the training F1 loss
    "patience": 4.0,  # author's code
    "min_gain": 1e-4,  # open
    "min_gain_mode": "abs",  # open
    "early_stop": 5,  # III.C
    "score_threshold": "best",  # III.C: one threshold chosen on the evaluation set
    "valid_tta": 4,  # III.C: "epoch evaluation" with test-time augmentation
    "tta": 4,  # III.C
    "single_label": False,
}

# The network of the commit of the author's public code whose thresholds Table I prints: the text and Fig. 4 name neither its depth
# nor its head. It loads only weights of equal shape, so not those of the first layer. Its predictions' file is named after images
# of 224²; Table III has 512², of which a batch of 64 takes 69 GB, and the author's P100 has 16.
CHEN_101 = CHEN | {"model": "se_resnext101_quarters", "stem": "random", "size": 224}

# Rumetshofer et al., "Human-level Protein Localization with Convolutional Neural Networks", ICLR 2019: sections 2, 3
# and 3.1, one protocol for the five networks compared. Patience and threshold of the plateau are from the authors' public code.
PROTOCOL = {
    "weights": "none",
    "stem": "mean",
    "channels": "bgry",  # the order of the published weights
    "size": 1024,  # 3.1: random 1024² crops, prediction by patches that cover the image
    "fit": "crop",
    "normalise": "image",  # 2: zero mean, unit variance
    "augment": "none",  # 3.1: nothing but the crop
    "epochs": 200,  # "until convergence"; Fig. 9 shows 200 epochs
    "loss": "1:bce",  # 3.1: "cross entropy loss"; the mean over classes, see below
    "optimiser": "sgd",  # 3.1
    "momentum": 0.9,  # 3.1
    "weight_decay": 1e-5,  # 3.1, "L2 norm of 1e-5"
    "l1": 1e-7,  # 3.1
    "clip": 5.0,  # 3.1
    "plateau": "epoch",  # 3.1: halved when validation performance plateaus
    "patience": 30.0,  # authors' code
    "min_gain": 0.01,  # authors' code
    "min_gain_mode": "rel",  # authors' code
    "early_stop": 0,  # the best checkpoint counts, training goes on
    "score_threshold": "0.5",  # authors' code
    "valid_tta": 1,  # 3.1: patches, nothing else
    "tta": 1,
    "single_label": False,
}
# Section 3: a model, a learning rate and a batch size each. (The authors' public code trains M-CNN at 0.1.) Their TensorFlow code,
# of GapNet-PL and DeepLoc, sums the loss over the classes: only then is a gradient norm of 5 ever reached.
GAPNET_PL = PROTOCOL | {"model": "gapnet_pl", "loss": "1:bce_sum", "lr": 0.01, "batch_size": 40}
M_CNN = PROTOCOL | {"model": "m_cnn", "lr": 0.01, "batch_size": 22}
DENSENET121 = PROTOCOL | {"model": "densenet121", "lr": 0.1, "batch_size": 3}
DEEPLOC = PROTOCOL | {"model": "deeploc", "loss": "1:bce_sum", "lr": 0.001, "batch_size": 2}
CONV_MIL = PROTOCOL | {"model": "conv_mil", "lr": 0.01, "batch_size": 32}
# Liimatainen et al. 2018, of which the paper says: crops with several cells at high resolution (3.1; section 4 says single
# cells) of images of one class (4), a confidence map a class, a threshold of its own each (threshold.py --method per_class). The
# rest is open.
LIIMATAINEN_FCN = PROTOCOL | {
    "model": "liimatainen_fcn",
    "size": 512,
    "lr": 0.01,
    "batch_size": 16,
    "single_label": True,
}

# Mylavarapu, "Classification of Subcellular Protein Localizations" (poster): "Architecture" and the figure of four models.
MYLAVARAPU = {
    "model": "resnet50_enhanced",
    "weights": "none",  # "Future": transfer learning
    "stem": "mean",
    "size": 256,  # models 3 and 4: open, as model 2
    "fit": "resize",
    "normalise": "none",  # open: pixels from 0 to 1
    "augment": "none",  # "Discussion": helped two classes; which and where is open
    "epochs": 40,  # open
    "batch_size": 32,  # open
    "loss": "1:bce",
    "optimiser": "adam",
    "lr": 0.001,  # open: Adam's usual
    "momentum": 0.0,
    "weight_decay": 0.0,
    "l1": 0.0,
    "clip": 0.0,
    "plateau": "none",
    "patience": 0.0,
    "min_gain": 0.0,
    "min_gain_mode": "abs",
    "early_stop": 0,
    "score_threshold": "best",  # open
    "valid_tta": 1,
    "tta": 1,
    "single_label": False,
}
MYLAVARAPU_1 = MYLAVARAPU | {"model": "resnet50", "channels": "green", "size": 128}
MYLAVARAPU_2 = MYLAVARAPU | {"channels": "green"}
MYLAVARAPU_3 = MYLAVARAPU | {"channels": "gbr"}
MYLAVARAPU_4 = MYLAVARAPU | {"channels": "gbry"}

# The poster of simple ConvNets, Xception and GapNet: sizes and channels from its table of results, the rest is open.
POSTER = MYLAVARAPU | {"normalise": "dataset", "epochs": 30}
POSTER_CONVNET_RGB = POSTER | {"model": "convnet", "channels": "rgb", "size": 299}
POSTER_CONVNET_RGBY = POSTER | {"model": "convnet", "channels": "rgby", "size": 1024}
# "Challenge": 1/3 of yellow combined with RGB, for weights of ImageNet ("transfer learning from Xception").
POSTER_XCEPTION = POSTER | {"model": "xception", "channels": "rgb+y/3", "size": 299, "weights": "imagenet"}
POSTER_GAPNET = POSTER | {"model": "gapnet_pl", "channels": "rgby", "size": 700}

# The kit's own, for the competition's images with HPAv18's rows beside them, on a card of 80 GB. "E1" to "E8" are the experiments of
# utils.tools.ablate, whose results the README has; "2018" are public figures of that competition's teams. Where neither shows that
# something is better, the simpler stays. None of it has been measured on the competition's images.
BEST = {
    "model": "densenet121",  # 2018: of single networks at 512², private macro F1: DenseNet-121 .509, ResNet34 .502, ResNet50 .497
    # Its head, a global average and a linear layer, gives exact class maps (utils/models/class_maps.py). E4, EfficientNet-Lite0: average
    # and maximum are worse by .057 ± .002 of average precision.
    "weights": "imagenet",  # HEp-2, EfficientNet-Lite0: 76 % -> 91 % ("Starting from published weights" in the README)
    "stem": "mean",
    "channels": "rgby",
    "size": 512,  # 2018: from 256²: +.048 DenseNet-121, +.024 ResNet50
    "fit": "resize",  # E7: zoom crops bring nothing
    "normalise": "image",  # E6: on a darker test set +.021 ± .007 of average precision, with another laboratory's rows +.087 ± .006
    "augment": "d4",
    "epochs": 30,  # not measured
    "batch_size": 64,
    "loss": "1:bce",  # E1: every other one is worse
    "optimiser": "adamw",  # not measured, like the rate
    "lr": 3e-4,
    "momentum": 0.0,
    "weight_decay": 1e-4,  # E5: .02 on weights alone is no better
    "l1": 0.0,
    "clip": 0.0,
    "warmup": 1.0,
    # E5, on HEp-2: +.009 ± .004 of average precision over a constant rate; a moving average of the weights adds +.001 ± .001 to it.
    "lr_schedule": "cosine",
    "plateau": "none",
    "patience": 0.0,
    "min_gain": 0.0,
    "min_gain_mode": "abs",
    "early_stop": 0,
    "keep": "last",  # E5: the best epoch of a constant rate is no better; so that oof.csv is of no epoch chosen on it
    "score_threshold": "best",
    "valid_tta": 4,
    "tta": 4,  # E8: their maximum and crops are worse; eight are better by .002, not yet measured on HEp-2
    "single_label": False,
}
# Six epochs from the weights of `best` (--weights runs/best/fold0) where the images are there in full. 2018: more at 1024², no clean
# comparison.
BEST_1024 = BEST | {"size": 1024, "epochs": 6, "batch_size": 16, "lr": 1e-4, "warmup": 0.5}
# For a T4 of 16 GB, five folds within the 30 hours a week of a Kaggle account (estimated).
BEST_T4 = BEST | {"size": 384, "epochs": 18, "batch_size": 32, "valid_tta": 1}

RECIPES = {
    "best": BEST,
    "best_1024": BEST_1024,
    "best_t4": BEST_T4,
    "chen": CHEN,
    "chen_101": CHEN_101,
    "gapnet_pl": GAPNET_PL,
    "m_cnn": M_CNN,
    "densenet121": DENSENET121,
    "deeploc": DEEPLOC,
    "conv_mil": CONV_MIL,
    "liimatainen_fcn": LIIMATAINEN_FCN,
    "mylavarapu_1": MYLAVARAPU_1,
    "mylavarapu_2": MYLAVARAPU_2,
    "mylavarapu_3": MYLAVARAPU_3,
    "mylavarapu_4": MYLAVARAPU_4,
    "poster_convnet_rgb": POSTER_CONVNET_RGB,
    "poster_convnet_rgby": POSTER_CONVNET_RGBY,
    "poster_xception": POSTER_XCEPTION,
    "poster_gapnet": POSTER_GAPNET,
}
