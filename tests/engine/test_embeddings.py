"""Embeddings: the network's last layer makes its logits of them."""

import numpy as np
import pytest
import torch
from conftest import write_images

from utils import models
from utils.data.dataset import Normaliser, Samples
from utils.data.image_files import find_files
from utils.data.images import parse_channels
from utils.data.loader import make_loader
from utils.engine import embeddings
from utils.errors import InputError

CPU = torch.device("cpu")
NAMES = [(name, "own") for name in models.NETWORKS if name != "liimatainen_fcn"]
NAMES += [("densenet121", "avg_max"), ("pretrainedmodels:resnet18", "own")]
NAMES += [
    (f"timm:{name}", "own")
    for name in ("test_resnet", "convnext_atto", "vit_tiny_patch16_224", "mobilenetv3_small_050")
]


def build(name, size, head="own"):
    torch.manual_seed(0)
    return models.build(name, 3, 4, size, head).eval()


def loader_of(folder, size, fit="resize", crops=1, images=3, pixels=140):
    ids = [f"i{number}" for number in range(images)]
    write_images(folder, ids, size=pixels)
    channels = parse_channels("rgby")
    samples = Samples(find_files([folder], ids, channels), channels, size, fit, "none", crops=crops)
    return make_loader(samples, 2, 0, CPU), Normaliser(None, "none", None, None, CPU)


@pytest.mark.parametrize("name, head", NAMES)
def test_the_last_layer_of_the_embedding_gives_the_logits(name, head, tmp_path):
    size = 128 if name == "m_cnn" else 64
    network = build(name, size, head)
    loader, normaliser = loader_of(tmp_path, size)
    layer = embeddings.last_linear(network, 4, size)
    found = embeddings.embed(network, layer, normaliser, loader, CPU, chunk=1)
    with torch.inference_mode():
        expected = torch.cat([network(normaliser(batch)) for batch in loader])
        own = network.get_submodule(layer)(torch.from_numpy(found))
    assert found.dtype == np.float32 and found.std(axis=0).max() > 0
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fit, crops", [("crop", 1), ("zoom", 5)])
def test_tiles_and_crops_are_averaged(fit, crops, tmp_path):
    """So that the last layer gives the mean of their logits; a large image has more tiles than a small one."""
    network = build("convnet", 64)
    write_images(tmp_path, ["j"], size=64)
    loader, normaliser = loader_of(tmp_path, 64, fit, crops)
    loader.dataset.images.files += find_files([tmp_path], ["j"], parse_channels("rgby"))
    layer = embeddings.last_linear(network, 4, 64)
    found = embeddings.embed(network, layer, normaliser, loader, CPU, chunk=2)
    expected = []
    with torch.inference_mode():
        for batch in loader:
            expected += [part.mean(0) for part in network(normaliser(batch)).split(batch["tiles"].tolist())]
        own = network.get_submodule(layer)(torch.from_numpy(found))
    torch.testing.assert_close(own, torch.stack(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name, head",
    [("liimatainen_fcn", "own"), ("timm:test_resnet", "attention"), ("timm:deit_tiny_distilled_patch16_224", "own")],
)
def test_a_network_without_a_last_linear_layer_is_refused(name, head):
    with pytest.raises(InputError, match="does not end in one linear layer"):
        embeddings.last_linear(build(name, 64, head), 4, 64)


def test_files_hold_ids_embeddings_and_probabilities(tmp_path):
    rng = np.random.default_rng(0)
    found, probabilities = rng.random((3, 5), np.float32), rng.random((3, 2), np.float32)
    ids, classes = ["a", "é", "c"], ["Golgi apparatus", "Rods/rings"]
    about = {"fold": 1, "run": "runs/chen/fold1", "model": "convnet", "layer": "head"}
    embeddings.write(tmp_path / "e.npz", ids, found, probabilities, classes, **about)
    with np.load(tmp_path / "e.npz") as file:
        assert np.array_equal(file["X"], found) and np.array_equal(file["probabilities"], probabilities)
        assert file["Id"].tolist() == ids and file["classes"].tolist() == classes
    anndata = pytest.importorskip("anndata")
    embeddings.check_file(tmp_path / "e.h5ad")
    embeddings.write(tmp_path / "e.h5ad", ids, found, probabilities, classes, **about)
    read = anndata.read_h5ad(tmp_path / "e.h5ad")
    assert np.array_equal(read.X, found) and read.obs_names.tolist() == ids
    assert np.array_equal(read.obsm["probabilities"].to_numpy(), probabilities)
    assert read.obsm["probabilities"].columns.tolist() == ["Golgi apparatus", "Rods-rings"]
    assert read.obs["fold"].tolist() == ["1"] * 3 and read.uns["model"] == "convnet"


def test_a_missing_package_and_another_ending_are_told_before_the_work(monkeypatch):
    with pytest.raises(InputError, match=r"should end in .h5ad or .npz"):
        embeddings.check_file("e.csv")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install anndata"):
        embeddings.check_file("e.h5ad")
    embeddings.check_file("e.npz")
