"""features: what a row's networks make of several kinds of images -> logits, probabilities and maps.

    python -m stages.features [<row> ...]

Logits and probabilities are those of the likeliest class, and the maps are of the outputs of each block. The
images are test images, images from outside the distribution, and those that the networks were trained on, as
they are and under masks: Sections 3.1, 3.3, 5.4 and 5.6 of the paper, Figures 2, 4, 6, 7 and 12.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from stages.images.distilled import DistilledSet, load_set
from stages.images.masking import mask_images
from stages.images.prepared import (
    LabelledImages,
    NormalisedImages,
    class_names,
    load_split,
    load_transform,
)
from stages.images.sampling import per_class
from stages.machine.cores import on_all_cores
from stages.runtime.errors import UserError, run_stage
from stages.runtime.files import read_tensors, write_tensors
from stages.runtime.randomness import generator
from stages.runtime.reuse import code_version, fingerprint, input_hash, is_made_from
from stages.settings.features import FeaturesKeys
from stages.settings.rows import Dataset, Row, finished_rows
from stages.tools.records import recorded
from stages.training.flat import FlatNetwork, flat_convnet, predict, predict_each

__all__ = ["block_outputs", "features"]


class Networks(NamedTuple):
    """Networks of one loss, one a repeat."""

    network: FlatNetwork
    weights: torch.Tensor  # (repeats, P), on the device that they run on

    def logits(self, repeat: int, images: torch.Tensor | NormalisedImages) -> torch.Tensor:
        """`(N, K)` on the CPU."""
        return predict(self.network, self.weights[repeat], images.to(self.weights.device)).cpu()


def features(row: Row) -> None:
    """Write what the networks of a row make of images: tensors with one line a repeat, and maps.

    - `inside.max_logit`, `inside.max_probability`: of the test images
    - `outside.max_probability`: of the images from outside, whitened as the test images
    - `own.max_logit`: of the images that each network was trained on
    - `masked.<ratio>.max_logit`: of the same images under a mask of that ratio
    - `tsne.<loss>.<block>` `(n, 2)`: maps of test images by the first network of each of `losses`
    - `tsne.labels` `(n,)`: the labels of these test images

    All but the maps are of the networks that were trained with cross-entropy. The names of the classes are in
    the metadata of the file.

    Raises:
        UserError: the images from outside have another shape than the row's, or no networks were trained with
            one of the losses.
    """
    keys = row.analysis("features", FeaturesKeys)
    made_from = fingerprint(
        [input_hash(path) for path in input_files(row, keys)],
        [keys.model_dump(), row.network.model_dump(), row.seed, code_version("features")],
    )
    if is_made_from(row.features, made_from):
        return
    about = {"made_from": made_from, "classes": class_names(row.prepared)}
    write_tensors(row.features, feature_tensors(row, keys), about)


def feature_tensors(row: Row, keys: FeaturesKeys) -> dict[str, torch.Tensor]:
    """What `features` writes."""
    device = row.device
    distilled = load_set(row.distilled, row.prepared)
    test = load_split(row.prepared, "test")
    weights = read_tensors(row.weights)
    check_losses(row, keys, weights)
    logits = read_tensors(row.logits)["cross_entropy"]
    network = flat_convnet(row.network, distilled.data, device)
    networks = Networks(network, weights["cross_entropy"].to(device))
    outside = outside_images(row, keys, test).to(device)

    tensors = {
        "inside.max_logit": logits.amax(2),
        "inside.max_probability": logits.softmax(2).amax(2),
        "outside.max_probability": predict_each(network, networks.weights, outside).softmax(2).amax(2),
        "own.max_logit": own_max_logits(networks, distilled),
    }
    for ratio in keys.ratios:
        tensors[f"masked.{ratio:g}.max_logit"] = masked_max_logits(networks, distilled, ratio, row.seed)
    shown = shown_images(test, keys.per_class, row.seed)
    check_perplexity(row, keys, len(shown))
    images = test.images[shown].to(device)
    points = {}
    for loss in keys.losses:
        first = weights[loss][0].to(device)
        for block, outputs in block_outputs(network, first, images).items():
            points[f"tsne.{loss}.{block}"] = outputs.cpu().numpy()
    maps = on_all_cores(partial(tsne, keys.perplexity, row.seed), list(points.values()))
    for name, positions in zip(points, maps):
        tensors[name] = torch.from_numpy(positions)
    tensors["tsne.labels"] = test.labels[shown]
    return tensors


def check_perplexity(row: Row, keys: FeaturesKeys, images: int) -> None:
    """
    Raises:
        UserError: the maps have too few images for the neighbours that t-SNE is to look at.
    """
    if keys.perplexity >= images:
        where = f"features.{row.name}.perplexity"
        raise UserError(
            f"{where}: {keys.perplexity:g} with {images} images on a map; allowed: less than that"
        )


def check_losses(row: Row, keys: FeaturesKeys, weights: dict[str, torch.Tensor]) -> None:
    """
    Raises:
        UserError: one of the losses has no networks, because it needs a class for each image and the labels
            of the row's set are soft.
    """
    for loss in keys.losses:
        if loss not in weights:
            allowed = ", ".join(name for name in weights if name != "holdout")
            problem = f"{loss!r}, but the row has no networks that were trained with it"
            raise UserError(f"features.{row.name}.losses: {problem}; allowed: {allowed}")


def input_files(row: Row, keys: FeaturesKeys) -> list[Path]:
    """The files that the features of a row are made from."""
    outside = Dataset(keys.outside).prepared / "test.safetensors"
    own_images = sorted(row.prepared.glob("[!.]*.safetensors"))
    return [row.distilled, row.weights, row.logits, outside, *own_images]


def outside_images(row: Row, keys: FeaturesKeys, test: LabelledImages) -> NormalisedImages:
    """The test images of another data set, with the transform of the row's own.

    Raises:
        UserError: they have another shape than the row's.
    """
    folder = Dataset(keys.outside).prepared
    pixels = read_tensors(folder / "test.safetensors")["images"]
    images = NormalisedImages(pixels, load_transform(row.prepared))
    shape = tuple(images.shape[1:])
    allowed = tuple(test.images.shape[1:])
    if shape != allowed:
        where = f"features.{row.name}.outside"
        raise UserError(f"{where}: {keys.outside!r} has images of {shape}; allowed: images of {allowed}")
    return images


def own_max_logits(networks: Networks, distilled: DistilledSet) -> torch.Tensor:
    """`(repeats, N)` of the images of each repeat, or of the training split with backbone `full`."""
    largest = []
    for repeat in range(len(networks.weights)):
        images = distilled.of_repeat(repeat).images
        largest.append(networks.logits(repeat, images).amax(1))
    return torch.stack(largest)


def masked_max_logits(networks: Networks, distilled: DistilledSet, ratio: float, seed: int) -> torch.Tensor:
    """`(repeats, N)` of images under a mask that each repeat draws anew."""
    largest = []
    for repeat in range(len(networks.weights)):
        draws = generator(seed, "features", ratio, repeat)
        masked = mask_images(distilled.of_repeat(repeat).images[:], ratio, draws)
        largest.append(networks.logits(repeat, masked).amax(1))
    return torch.stack(largest)


def shown_images(test: LabelledImages, count: int, seed: int) -> torch.Tensor:
    """Positions of the test images on the maps: at most `count` of each class."""
    draws = generator(seed, "features")
    return per_class(test.labels, test.classes, lambda size: min(size, count), draws)


def block_outputs(network: FlatNetwork, theta: torch.Tensor, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The output `(N, C*H*W)` of each block by its name, from "block 1" on."""
    outputs: dict[str, torch.Tensor] = {}

    def keep(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        outputs[f"block {len(outputs) + 1}"] = output.flatten(1)

    last_layers = [module for module in network.module.modules() if isinstance(module, nn.AvgPool2d)]
    hooks = [layer.register_forward_hook(keep) for layer in last_layers]
    with torch.no_grad():
        network(theta, images)
    for hook in hooks:
        hook.remove()
    return outputs


def tsne(perplexity: float, seed: int, points: np.ndarray) -> np.ndarray:
    """A map `(n, 2)` of `(n, D)` points.

    It is made by scikit-learn on one thread, as two threads that share a busy core wait for each other.
    """
    from sklearn.manifold import TSNE  # not at the start: it takes a second, which only maps need
    from threadpoolctl import threadpool_limits

    method = TSNE(perplexity=perplexity, random_state=seed)
    with threadpool_limits(1):
        return method.fit_transform(points)


def main(*names: str) -> None:
    for row in finished_rows("features", names, lambda row: row.weights, kind="features"):
        features(row)


if __name__ == "__main__":
    run_stage(recorded(main))
