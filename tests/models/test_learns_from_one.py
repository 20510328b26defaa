"""Whether batch norm learns from a batch of one image."""

import torch

from utils import models


def test_whether_batch_norm_learns_from_one_image_is_found_without_computing():
    for name, size, found in [("se_resnext50_32x4d", 32, False), ("se_resnext50_32x4d", 64, True), ("gapnet_pl", 16, True),
                              ("timm:mobilenetv3_small_100", 32, False), ("conv_mil", 32, True)]:  # fmt: skip
        network = models.build(name, 3, 4, size)
        before, random = {key: value.clone() for key, value in network.state_dict().items()}, torch.get_rng_state()
        assert models.learns_from_one(network, 4, size) == found, name
        assert torch.equal(torch.get_rng_state(), random)
        assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
        try:
            network.train()(torch.zeros(1, 4, size, size))
            assert found
        except ValueError:
            assert not found
    network = models.build("se_resnext50_32x4d", 3, 4, 32)
    assert models.learns_from_one(network, 4, 32, layers="last"), "its batch norm keeps what it has"
