"""Embeddings: the input of a network's last linear layer, of which its logits are a linear function."""

import importlib.util
import io

import numpy as np
import pandas as pd
import torch
from torch import nn

from utils.data.loader import batches
from utils.device import autocast, prefetch_to_device
from utils.distributed import SINGLE_PROCESS
from utils.engine.inference import of_samples
from utils.errors import InputError
from utils.files import whole_file
from utils.parallel import closing

ENDINGS = (".h5ad", ".npz")


def check_file(path):
    """Raise InputError unless `write` can write such a file."""
    if not str(path).endswith(ENDINGS):
        raise InputError(f"--embed {path} should end in {' or '.join(ENDINGS)}")
    if str(path).endswith(".h5ad") and importlib.util.find_spec("anndata") is None:
        raise InputError(
            f"--embed {path} needs the package anndata: pip install anndata, or give a file ending in .npz"
        )


def find_layer(networks, config):
    """The name of the layer whose inputs are the embeddings. Raises InputError for several networks, and as
    `last_linear`."""
    if len(networks) > 1:
        raise InputError(
            f"--embed takes one network, not {len(networks)}, whose embeddings differ; name one fold's folder"
        )
    return last_linear(networks[0], config.planes, config.size)


@torch.inference_mode()
def last_linear(network, planes, size):
    """The name of the nn.Linear whose output are the network's logits, found by one random image of size².

    Raises InputError if there is none: a network may end in a convolution (`liimatainen_fcn`), in a mean over linear
    layers (the head `attention`), or in the mean of two heads.
    """
    outputs, handles = {}, []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear):
            handles.append(layer.register_forward_hook(lambda _, inputs, out, name=name: outputs.update({name: out})))
    device = next(network.parameters()).device
    image = torch.rand(1, planes, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        with autocast(device, None):
            logits = network.eval()(image)
    finally:
        for handle in handles:
            handle.remove()
    for name, output in outputs.items():
        if output.shape == logits.shape and torch.equal(output, logits):
            return name
    kind = type(network).__name__
    raise InputError(
        f"the network ({kind}) does not end in one linear layer, so it has no embedding; leave out --embed"
    )


@torch.inference_mode()
def embed(network, layer, normaliser, loader, device, amp=None, chunk=64, context=SINGLE_PROCESS):
    """The inputs of the linear layer of this name: -> (N, F) float32 of all processes, in the loader's order.

    Of the images as they are, not of their flipped copies; the mean over the tiles or crops of an image, so that the
    layer's output is the mean of their logits. chunk: most images in one forward pass.
    """
    inputs, rows, values = [], [np.zeros(0, np.int64)], []
    handle = network.get_submodule(layer).register_forward_pre_hook(lambda _, given: inputs.append(given[0].float()))
    try:
        with closing(prefetch_to_device(batches(loader), device)) as source:
            for batch in source:
                parts = normaliser(batch).split(chunk)
                with autocast(device, amp):
                    for part in parts:
                        network(part)
                values.append(of_samples(torch.cat(inputs), batch["tiles"], "mean").cpu().numpy())
                rows.append(batch["rows"].numpy())
                inputs.clear()
    finally:
        handle.remove()
    return context.gather_rows(np.concatenate(rows), np.concatenate(values) if values else np.zeros((0, 0)))[1]


def write(path, ids, embeddings, probabilities, classes, fold, **about):
    """Write embeddings (N, F) with the images' Ids and probabilities (N, C).

    .h5ad: X, `obs_names`, `obs["fold"]` of the network, `obsm["probabilities"]` (a DataFrame with the classes as
    columns), and `about` in `uns`. .npz: arrays X, Id, probabilities, classes, and a text for each of `about`.
    """
    with whole_file(path, "wb") as file:
        if str(path).endswith(".npz"):
            named = {"Id": np.array(ids, str), "classes": np.array(classes, str)}
            np.savez(file, X=embeddings, probabilities=probabilities, **named, **about)
        else:
            file.write(_h5ad(ids, embeddings, probabilities, classes, fold, about))


def _h5ad(ids, embeddings, probabilities, classes, fold, about):
    """The bytes of an .h5ad file."""
    import anndata  # here, since few need it
    import h5py

    index = pd.Index(ids, name="Id")
    columns = [name.replace("/", "-") for name in classes]  # HDF5 would take / for a path
    obsm = {"probabilities": pd.DataFrame(probabilities, index, columns)}
    obs = pd.DataFrame({"fold": "" if fold is None else str(fold)}, index)
    table, content = anndata.AnnData(embeddings, obs=obs, obsm=obsm, uns=about), io.BytesIO()
    with h5py.File(content, "w") as file:
        anndata.io.write_elem(file, "/", table)
    return content.getbuffer()
