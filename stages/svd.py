"""svd: accuracy of networks trained on a row's images after their largest singular values are dropped.

    python -m stages.svd [<row> ...]

Images are decomposed as standardised pixels, so that rows of any whitening can be compared: ZCA whitening
makes the singular values of the same images more alike. Sections 3.2 and 5.5 and Appendix B.2 of the paper,
equations (2) and (3); Figures 3, 5 and 13.
"""

import torch

from stages.images.standardised import StandardisedPixels, standardised_pixels
from stages.losses import cross_entropy
from stages.metrics.scores import accuracy
from stages.runtime.checkpoint import scratch
from stages.runtime.errors import run_stage
from stages.runtime.files import write_result
from stages.runtime.reuse import code_version, fingerprint, former_result, input_hash
from stages.settings.rows import Row, finished_rows
from stages.settings.section import parse
from stages.settings.svd import SvdKeys
from stages.settings.train import TrainKeys
from stages.tools.records import recorded
from stages.training.flat import flat_convnet
from stages.training.groups import Group, GroupResults, Setup, description, train_groups, train_settings
from stages.training.objective import Loss
from stages.training.repeats import input_files, setup_of

__all__ = ["dropped", "svd", "without_largest"]


def dropped(images: torch.Tensor, count: int) -> torch.Tensor:
    """`(N, C, H, W)` images without the `count` largest singular values of their `(N, C*H*W)` matrix."""
    u, s, v = torch.linalg.svd(images.flatten(1), full_matrices=False)
    largest = u[:, :count] * s[:count] @ v[:count]
    return images - largest.view(images.shape)


def svd(row: Row) -> None:
    """Write the singular values of a row's images, and the accuracy without the largest, as JSON.

    `{"singular_values": [...], "dropped": [{"share", "count", "accuracy": [one a repeat]}]}`

    Where a row has several sets, the singular values are those of the first, and each repeat is trained on
    what is left of its own set. Networks are trained with cross-entropy as those of the row, but for the
    epochs of `svd.<row>`.

    Raises:
        UserError: `lr: learned` without a learned step size; a network has weights that are not finite.
    """
    settings = train_settings()
    svd_keys = row.analysis("svd", SvdKeys)
    keys = train_keys(row, svd_keys.epochs)
    made_from = fingerprint(
        description(row, keys, settings),
        [input_hash(path) for path in input_files(row)],
        [svd_keys.drop, settings.repeats, code_version("svd")],
    )
    if former_result(row.singular_values).get("made_from") == made_from:
        return
    setup = setup_of(row, keys, settings)
    space = standardised_pixels(row.prepared).to(setup.device)
    singular_values = singular_values_of(setup, space)
    network = flat_convnet(row.network, setup.data, setup.device)
    groups = {"cross_entropy": Group(network, Loss(cross_entropy))}
    points = []
    with scratch(f"svd-{row.name}", description(row, keys, settings), input_files(row)) as folder:
        for share in svd_keys.drop:
            count = round(share * len(singular_values))
            part = folder / str(count)
            part.mkdir(exist_ok=True)
            reduced = without_largest(setup, space, count)
            title = f"{row.name} without {share:.0%}"
            results = train_groups(groups, reduced._replace(title=title), part)
            accuracies = group_accuracies(results, setup.test.labels)
            points.append({"share": share, "count": count, "accuracy": accuracies})
        result = {"singular_values": singular_values, "dropped": points, "made_from": made_from}
        write_result(row.singular_values, result)


def singular_values_of(setup: Setup, space: StandardisedPixels) -> list[float]:
    """The singular values of the set of the first repeat, the largest first."""
    first = positions(setup)[0]
    images = setup.data.images[first].to(setup.device)
    standardised = space.enter(images)
    return torch.linalg.svdvals(standardised.flatten(1)).tolist()


def without_largest(setup: Setup, space: StandardisedPixels, count: int) -> Setup:
    """The setup with images that have lost the `count` largest singular values of their repeat's set.

    Images that lose nothing are left as they are, to the last bit.
    """
    if count == 0:
        return setup
    images = setup.data.images[:].to(setup.device)
    reduced = images.clone()
    for of_repeat in positions(setup):
        standardised = space.enter(images[of_repeat])
        reduced[of_repeat] = space.leave(dropped(standardised, count))
    return setup._replace(data=setup.data._replace(images=reduced))


def positions(setup: Setup) -> list[torch.Tensor] | list[slice]:
    """The images of each repeat, or all images at once where the repeats have the same."""
    return setup.rows or [slice(None)]


def train_keys(row: Row, epochs: int) -> TrainKeys:
    """How the networks of the row are trained, but for the epochs."""
    values = {key: row.value(key) for key in ("lr", "augment", "train")}
    return parse(TrainKeys, {"epochs": epochs, **values}, f"runs.{row.name}")


def group_accuracies(results: GroupResults, labels: torch.Tensor) -> list[float]:
    """The test accuracy of each repeat."""
    logits = results.logits["cross_entropy"].numpy()
    return [accuracy(of_repeat, labels.numpy()) for of_repeat in logits]


def main(*names: str) -> None:
    for row in finished_rows("svd", names, lambda row: row.distilled, kind="svd"):
        svd(row)


if __name__ == "__main__":
    run_stage(recorded(main))
