"""Every published system: its options are the paper's, and it learns."""

import sys

import numpy as np
import pytest
import torch
from conftest import succeed

import train
from utils import models
from utils.data.images import parse_channels
from utils.engine import losses
from utils.engine.recipes import RECIPES
from utils.engine.trainer import Trainer
from utils.runs.config import RunConfig

# Rumetshofer et al., sections 2, 3 and 3.1; the plateau from the authors' public code
PROTOCOL = {"size": 1024, "fit": "crop", "normalise": "image", "loss": "1:bce", "optimiser": "sgd", "momentum": 0.9}
PROTOCOL |= {"clip": 5.0, "l1": 1e-7, "weight_decay": 1e-5, "weights": "none", "augment": "none"}
PROTOCOL |= {"plateau": "epoch", "patience": 30, "min_gain": 0.01, "min_gain_mode": "rel", "score_threshold": "0.5"}
PROTOCOL |= {"valid_tta": 1, "tta": 1}  # patches only
ADAM = {"optimiser": "adam", "loss": "1:bce", "weights": "none", "fit": "resize"}  # Mylavarapu, "Architecture"
CHEN = {"model": "se_resnext50_32x4d", "weights": "imagenet", "channels": "rgby", "size": 512, "batch_size": 64}
CHEN |= {"optimiser": "adadelta", "lr": 0.1, "weight_decay": 1e-4, "plateau": "step", "patience": 4, "epochs": 40}
CHEN |= {"early_stop": 5, "augment": "1:chen 21:chen_strong", "valid_tta": 4, "tta": 4}
CHEN |= {"loss": "1:bce 11:soft_f1+weighted_bce step10000:soft_f1+10*weighted_bce"}
PAPERS = {
    "chen": CHEN,
    "chen_101": CHEN | {"model": "se_resnext101_quarters", "stem": "random", "size": 224},
    "gapnet_pl": PROTOCOL | {"model": "gapnet_pl", "loss": "1:bce_sum", "lr": 0.01, "batch_size": 40},
    "m_cnn": PROTOCOL | {"model": "m_cnn", "lr": 0.01, "batch_size": 22},
    "densenet121": PROTOCOL | {"model": "densenet121", "lr": 0.1, "batch_size": 3},
    "deeploc": PROTOCOL | {"model": "deeploc", "loss": "1:bce_sum", "lr": 0.001, "batch_size": 2},
    "conv_mil": PROTOCOL | {"model": "conv_mil", "lr": 0.01, "batch_size": 32},
    "liimatainen_fcn": PROTOCOL | {"model": "liimatainen_fcn", "size": 512, "single_label": True},
    "mylavarapu_1": ADAM | {"model": "resnet50", "channels": "green", "size": 128},
    "mylavarapu_2": ADAM | {"model": "resnet50_enhanced", "channels": "green", "size": 256},
    "mylavarapu_3": ADAM | {"model": "resnet50_enhanced", "channels": "gbr"},
    "mylavarapu_4": ADAM | {"model": "resnet50_enhanced", "channels": "gbry"},
    "poster_convnet_rgb": {"model": "convnet", "channels": "rgb", "size": 299},
    "poster_convnet_rgby": {"model": "convnet", "channels": "rgby", "size": 1024},
    "poster_xception": {"model": "xception", "channels": "rgb+y/3", "size": 299, "weights": "imagenet"},
    "poster_gapnet": {"model": "gapnet_pl", "channels": "rgby", "size": 700},
}


def effective(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["train.py", "--fold", "0", *words])
    return vars(train.parse_args())


@pytest.mark.parametrize("recipe", PAPERS)
def test_effective_options_are_the_papers(recipe, monkeypatch):
    options = effective(monkeypatch, "--recipe", recipe)
    assert {key: options[key] for key in PAPERS[recipe]} == PAPERS[recipe]
    assert set(RECIPES[recipe]) >= set(RECIPES["chen"]), "options without a default of their own"
    assert effective(monkeypatch, "--recipe", recipe, "--lr", "0.5")["lr"] == 0.5


def test_the_kits_own_options_fit_together():
    """Published ones are trained in small by `bash run.sh paper`."""
    own = set(RECIPES) - set(PAPERS)
    assert own == {"best", "best_1024", "best_t4"}
    for recipe in own:
        assert set(RECIPES[recipe]) >= set(RECIPES["chen"]), "options without a default of their own"
        assert f"run=runs/{recipe}" in succeed("train", "--recipe", recipe, "--fold", 0, "--check").out


class Labels:
    """What a Trainer asks of a training set."""

    def __init__(self, channels, targets):
        self.channels, self.targets = parse_channels(channels), targets


@pytest.mark.parametrize("recipe", RECIPES)
def test_one_step_lowers_the_loss(recipe):
    """On its own batch, without dropout: the network, its loss, its optimiser and the clipping fit together."""
    torch.manual_seed(0)
    channels = parse_channels(RECIPES[recipe]["channels"])
    moments = {"mean": [0.5] * channels.planes, "std": [0.3] * channels.planes}
    config = RunConfig(**RECIPES[recipe] | moments, class_names=list("abcdef"))
    network = models.build(config.model, 6, channels.planes, 128, config.head)
    for layer in network.modules():
        if isinstance(layer, (torch.nn.Dropout, torch.nn.AlphaDropout)):
            layer.p = 0.0
        if hasattr(layer, "drop_rate"):
            layer.drop_rate = 0.0
    targets = (np.random.default_rng(0).random((4, 6)) < 0.4).astype(np.uint8)
    images = torch.randint(0, 256, (4, len(channels.names), 128, 128), dtype=torch.uint8)
    batch = {"images": images, "tiles": torch.ones(4, dtype=torch.int64), "rows": torch.arange(4)}
    batch |= {"mean": torch.full((4, channels.planes), 0.5), "std": torch.full((4, channels.planes), 0.3)}
    batch["targets"] = torch.tensor(targets).float()
    schedule = losses.parse_schedule(config.loss)
    trainer = Trainer(network, Labels(config.channels, targets), config, schedule, torch.device("cpu"), None, 10)
    trainer.begin_epoch()
    first, second = (trainer.train_step(batch)["loss"] for _ in range(2))
    assert second < first
