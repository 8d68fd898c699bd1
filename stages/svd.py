"""svd: accuracy of networks trained on a row's images after their largest singular values are dropped.

    python -m stages.svd [<row> ...]

Sections 3.2 and 5.5 and Appendix B.2 of the paper, equations (2) and (3); Figures 3, 5 and 13.
"""

import torch

from stages.losses import cross_entropy
from stages.metrics.scores import accuracy
from stages.runtime.checkpoint import scratch
from stages.runtime.errors import run_stage
from stages.runtime.files import write_json
from stages.runtime.reuse import code_version, file_hash, fingerprint, read_json
from stages.settings.rows import Row, finished_rows
from stages.settings.section import parse
from stages.settings.svd import SvdKeys
from stages.settings.train import TrainKeys
from stages.training.flat import flat_convnet
from stages.training.objective import Loss
from stages.training.repeats import (
    Group,
    GroupResults,
    description,
    input_files,
    setup_of,
    train_groups,
    train_settings,
)

__all__ = ["dropped", "svd"]


def dropped(images: torch.Tensor, count: int) -> torch.Tensor:
    """`(N, C, H, W)` images without the `count` largest singular values of their `(N, C*H*W)` matrix."""
    if count == 0:
        return images
    u, s, v = torch.linalg.svd(images.flatten(1), full_matrices=False)
    largest = u[:, :count] * s[:count] @ v[:count]
    return images - largest.view(images.shape)


def svd(row: Row) -> None:
    """Write the singular values of a row's images, and the accuracy without the largest, as JSON.

    `{"singular_values": [...], "dropped": [{"share", "count", "accuracy": [one a repeat]}]}`

    Networks are trained with cross-entropy as those of the row, but for the epochs of `svd.<row>`.

    Raises:
        UserError: `lr: learned` without a learned step size; a network has weights that are not finite.
    """
    settings = train_settings()
    svd_keys = row.analysis("svd", SvdKeys)
    keys = train_keys(row, svd_keys.epochs)
    made_from = fingerprint(
        description(row, keys, settings),
        [file_hash(path) for path in input_files(row)],
        [svd_keys.drop, settings.repeats, code_version("svd")],
    )
    if read_json(row.singular_values).get("made_from") == made_from:
        return
    setup = setup_of(row, keys, settings)
    images = setup.data.images[:].to(setup.device)
    singular_values = torch.linalg.svdvals(images.flatten(1)).tolist()
    network = flat_convnet(row.network, setup.data, setup.device)
    groups = {"cross_entropy": Group(network, Loss(cross_entropy))}
    points = []
    with scratch(f"svd-{row.name}", description(row, keys, settings), input_files(row)) as folder:
        for share in svd_keys.drop:
            count = round(share * len(singular_values))
            data = setup.data._replace(images=dropped(images, count))
            part = folder / str(count)
            part.mkdir(exist_ok=True)
            reduced = setup._replace(data=data, title=f"{row.name} without {share:.0%}")
            results = train_groups(groups, reduced, part)
            accuracies = group_accuracies(results, setup.test.labels)
            points.append({"share": share, "count": count, "accuracy": accuracies})
        result = {"singular_values": singular_values, "dropped": points, "made_from": made_from}
        write_json(row.singular_values, result)


def train_keys(row: Row, epochs: int) -> TrainKeys:
    """How the networks of the row are trained, but for the epochs."""
    values = {"epochs": epochs, "lr": row.value("lr"), "augment": row.value("augment")}
    return parse(TrainKeys, values, f"runs.{row.name}")


def group_accuracies(results: GroupResults, labels: torch.Tensor) -> list[float]:
    """The test accuracy of each repeat."""
    logits = results.logits["cross_entropy"].numpy()
    return [accuracy(of_repeat, labels.numpy()) for of_repeat in logits]


def main(*names: str) -> None:
    for row in finished_rows("svd", names, lambda row: row.distilled, kind="svd"):
        svd(row)


if __name__ == "__main__":
    run_stage(main)
