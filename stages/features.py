"""features: what a row's networks make of images of every kind -> maximum logits, probabilities, and maps of the blocks' outputs.

    python -m stages.features <row>

Test images, images from outside the distribution, the distilled images under masks: Sections 3.1, 3.3, 5.4 and 5.6 of the
paper, Figures 2, 4, 6, 7 and 12.
"""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import nn

from stages.shared.convnet import NetworkSettings
from stages.shared.device import pick_device
from stages.shared.errors import UserError, run_stage
from stages.shared.files import write_tensors
from stages.shared.flat import FlatNetwork, flat_convnet, predict
from stages.shared.images import NormalisedImages, load_set, load_split, load_transform
from stages.shared.masking import mask_images
from stages.shared.randomness import generator
from stages.shared.sampling import per_class
from stages.shared.settings import Count, Ratio, Section, find, param, parse, pick

__all__ = ["FeaturesRow", "FeaturesSettings", "block_outputs", "features"]


class FeaturesRow(Section):
    """`features.<row>` of a suite."""

    dataset: str  # the row's
    outside: str  # the data set whose test images are out of the distribution
    losses: list[str]  # groups of networks whose blocks are mapped


class FeaturesSettings(Section):
    """`inspect` of params.yaml."""

    ratios: list[Ratio]  # of the masks over the distilled images (Figures 7 and 12a)
    per_class: Count  # test images of each class on the maps
    perplexity: Annotated[float, Field(gt=1)]


def block_outputs(network: FlatNetwork, theta: torch.Tensor, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """`(N, C*H*W)` outputs of each block, by its name: "block 1" comes first."""
    found = {}

    def keep(_, __, out):
        found[f"block {len(found) + 1}"] = out.flatten(1)

    hooks = [module.register_forward_hook(keep) for module in network.module.modules() if isinstance(module, nn.AvgPool2d)]
    with torch.no_grad():
        network(theta, images)
    for hook in hooks:
        hook.remove()
    return found


def tsne(points: torch.Tensor, perplexity: float, seed: int) -> torch.Tensor:
    """A map `(n, 2)` of `(n, D)` points by scikit-learn; on one thread, as two that share a busy core wait for each other."""
    from sklearn.manifold import TSNE  # here, as it takes a second that `check` need not wait
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return torch.from_numpy(TSNE(perplexity=perplexity, random_state=seed).fit_transform(points.cpu().numpy()))


def features(
    row: FeaturesRow, settings: FeaturesSettings, network: NetworkSettings, prepared: Path, outside: Path, distilled: Path, trained: Path, file: Path, seed: int, device: torch.device
) -> None:  # fmt: skip
    """Write to `file`, of the networks trained with cross-entropy, one line a repeat:

    `inside.max_logit`, `inside.max_probability` (test images), `outside.max_probability` (whitened as the test images),
    `masked.<ratio>.max_logit` (the row's own training images under that mask); and of the first network of each of
    `losses`, `tsne.<loss>.<block>` `(n, 2)` with `tsne.labels` `(n,)`.

    Raises:
        UserError: images from outside of another shape than the row's.
    """
    data, _ = load_set(distilled, prepared)
    test, theta, logits = load_split(prepared, "test"), load_file(trained / "weights.safetensors"), load_file(trained / "logits.safetensors")
    flat, networks = flat_convnet(network, data, device), theta["cross_entropy"].to(device)
    beyond = NormalisedImages(load_file(outside / "test.safetensors")["images"], load_transform(prepared)).to(device)
    if beyond.shape[1:] != test.images.shape[1:]:
        raise UserError(f"{outside}: images {tuple(beyond.shape[1:])}; allowed as `outside` of this row: {tuple(test.images.shape[1:])}")

    def outputs(images, repeat: int) -> torch.Tensor:
        return predict(flat, networks[repeat], images).cpu()

    def masked(ratio: float, repeat: int) -> torch.Tensor:
        return mask_images(data.images[:], ratio, generator(seed, "features", ratio, repeat)).to(device)

    repeats = range(len(networks))
    found = {
        "inside.max_logit": logits["cross_entropy"].amax(2),
        "inside.max_probability": logits["cross_entropy"].softmax(2).amax(2),
        "outside.max_probability": torch.stack([outputs(beyond, repeat).softmax(1).amax(1) for repeat in repeats]),
    }
    found |= {f"masked.{ratio:g}.max_logit": torch.stack([outputs(masked(ratio, repeat), repeat).amax(1) for repeat in repeats]) for ratio in settings.ratios}
    shown = per_class(test.labels, test.classes, lambda size: min(size, settings.per_class), generator(seed, "features"))
    for loss in row.losses:
        for block, out in block_outputs(flat, theta[loss][0].to(device), test.images[shown].to(device)).items():
            found[f"tsne.{loss}.{block}"] = tsne(out, settings.perplexity, seed)
    write_tensors(file, found | {"tsne.labels": test.labels[shown]})


def main(name: str) -> None:
    values, suite = find("features", name)
    row = pick(FeaturesRow, values, f"features.{name}")
    features(
        row,
        parse(FeaturesSettings, param("inspect"), "params.yaml: inspect"),
        parse(NetworkSettings, suite["datasets"][row.dataset]["network"], f"datasets.{row.dataset}.network"),
        Path("data/prepare") / row.dataset,
        Path("data/prepare") / row.outside,
        Path("data/distill") / name / "set.safetensors",
        Path("data/train") / name,
        Path("data/features") / f"{name}.safetensors",
        param("seed"),
        pick_device(param("device")),
    )


if __name__ == "__main__":
    run_stage(main)
