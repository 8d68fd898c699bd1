"""RTP: images after a training on which a network classifies the real images; back-propagation through time.

Zhiwei Deng, Olga Russakovsky: "Remember the Past: Distilling Datasets into Addressable Memories for Neural
Networks", NeurIPS 2022, https://arxiv.org/abs/2206.02916;
https://github.com/princetonvisualai/RememberThePast-DatasetDistillation.

The defaults are those of the public code, and the two commands that are published, both for CIFAR-10 at one
image a class, are rows of suites/cifar10.yaml. What the code leaves to a row is the whitening (`gcn-zca` for
plain images, none for memory addressing) and the training of networks on the set. Differences that remain:

- The public code measures the set every 200 iterations, by ten networks on the test images, and prints the
  accuracy. Which iteration the paper reports is not said. Here the set is that of the last iteration.
- It draws the initial network of an iteration, and the synthetic batches that follow, from a seed below
  100,000 that it takes from the clock. Here all draws depend on the row's seed and the iteration.
- It can augment both sides (`flip_rotate` in place of `none`), which neither of its commands does. Here
  nothing is augmented during the distillation.
- Its convolutions may round to TF32, which is PyTorch's default. Here they do
  with `precision: tf32`.
- It has an L2 norm of the coefficients in the loss of each inner step, times 0.0001. The term does not depend
  on the network's weights, and only the loss's gradient for the weights is used further on, so it has no
  effect. `l2` is 0 for that reason; a row that sets it gets weight decay of the coefficients.
- Updates that are not finite are skipped here.

Compared and found alike: the Xavier noise at the start; the initial networks; the classes, real images and
synthetic images of an iteration, drawn without replacement; SGD with momentum on both levels, at constant
learning rates; the gradient, also through the velocity; the common norm that it is clipped to; the size of an
addressable memory, and its bilinear enlargement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from stages.settings.section import Count, Positive, Precision, Section

if TYPE_CHECKING:
    from stages.distillation.backbone import Backbone, Problem

__all__ = ["Settings", "start"]


class Settings(Section):
    """Keys of a row's `distill:`.

    Published: 500,000 iterations of 150 steps, with 10 synthetic images of each class in a step, or 32 with
    memory addressing, and 64 real images of each class.
    """

    iterations: Count
    syn_steps: Count  # steps of training on the synthetic images
    batch_syn: Count | None  # synthetic images of each class in a step; null: all
    batch_real: Count = 64  # real images of each class that the trained network is judged on
    classes: Count | None = None  # that an iteration draws and works on alone; null: all
    lr_net: Positive = 0.01  # step size of the training on the synthetic images
    momentum_net: float = Field(0.9, ge=0, lt=1)  # and its momentum
    lr_img: Positive = 0.1  # learning rate of the synthetic images
    momentum: float = Field(0.5, ge=0, lt=1)  # and its momentum
    clip: Positive = 2.0  # largest norm of the images' gradient; a larger one is shrunk to it
    n_basis: Count | None = None  # basis images of half the side, for memory addressing; null: plain images
    l2: float = Field(0.0, ge=0)  # weight decay of the coefficients; that of the public code has no effect
    precision: Precision = "float32"  # of the products


def start(problem: Problem, settings: Settings) -> Backbone:
    """Start from noise: plain images, or basis images and the coefficients that combine them.

    Raises:
        UserError: the basis images alone take more room than `ipc` plain images of each class.
    """
    from stages.distillation.back_propagation_through_time import BackPropagationThroughTime

    return BackPropagationThroughTime(problem, settings).backbone()
