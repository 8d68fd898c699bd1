"""What networks need of a GPU's memory while they are trained side by side. For a CPU nothing is planned.

This is a plan from the shapes of the layers, not a measurement. `tests/test_needs.py` holds it beside the
bytes that are counted while the training itself runs on shapes.
"""

import torch

from stages.networks.convnet import ConvNet
from stages.training.flat import FlatNetwork

__all__ = ["bytes_of_image", "bytes_of_network"]

# Weights, velocity, gradient, weight decay, the next weights and velocity, and one on the way.
WEIGHT_COPIES = 7
IMAGE_COPIES = 6  # an image, and what its augmentation makes of it
BY_VMAP = 2  # what `vmap` keeps and copies, in outputs of all layers


def bytes_of_image(network: FlatNetwork, image: torch.Tensor) -> int:
    """For one image of a batch, from its augmentation to the gradient; 0 on a CPU.

    Args:
        image: `(1, C, H, W)`, any image to train on.
    """
    if image.device.type == "cpu":
        return 0
    factor = 1 if isinstance(network.module, ConvNet) else BY_VMAP
    return factor * network.all_layers(image) + IMAGE_COPIES * image.numel() * image.element_size()


def bytes_of_network(network: FlatNetwork, image: torch.Tensor, batch: int, snapshots: int = 0) -> int:
    """For one network with its batch; 0 on a CPU.

    Args:
        image: `(1, C, H, W)`, any image to train on.
        batch: images of a batch.
        snapshots: of the weights, which the training keeps. At its end there are two of each.
    """
    if image.device.type == "cpu":
        return 0
    weights = network.size * image.element_size()
    return (WEIGHT_COPIES + 2 * snapshots) * weights + batch * bytes_of_image(network, image)
