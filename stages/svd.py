"""svd: accuracy of networks trained on a row's images after their largest singular values are dropped.

    python -m stages.svd <row>

Sections 3.2 and 5.5 and Appendix B.2 of the paper, equations (2) and (3); Figures 3, 5 and 13.
"""

from pathlib import Path

import torch

from stages.losses import cross_entropy
from stages.metrics.scores import accuracy
from stages.shared.checkpoint import scratch
from stages.shared.convnet import NetworkSettings
from stages.shared.device import pick_device
from stages.shared.errors import run_stage
from stages.shared.files import write_json
from stages.shared.flat import flat_convnet
from stages.shared.images import load_set, load_split
from stages.shared.repeats import Group, train_groups
from stages.shared.settings import Count, Ratio, Section, find, param, parse, pick
from stages.train import TrainRow, TrainSettings, schedule_of

__all__ = ["SvdSettings", "dropped", "svd"]


class SvdSettings(Section):
    """`svd.<row>` of a suite."""

    dataset: str  # the row's
    drop: list[Ratio]  # shares of the singular values, the largest first; none: the singular values alone
    epochs: Count  # of training on what is left; the paper: 300


def dropped(images: torch.Tensor, count: int) -> torch.Tensor:
    """`(N, C, H, W)` images rebuilt without the `count` largest singular values of the `(N, C*H*W)` matrix."""
    if count == 0:
        return images
    u, s, v = torch.linalg.svd(images.flatten(1), full_matrices=False)
    return images - (u[:, :count] * s[:count] @ v[:count]).view(images.shape)


def svd(
    settings: SvdSettings, row: TrainRow, name: str, train: TrainSettings, network: NetworkSettings, prepared: Path, distilled: Path, file: Path, seed: int, device: torch.device, root: Path = Path("scratch")
) -> None:  # fmt: skip
    """Write `{"singular_values": [...], "dropped": [{"share", "count", "accuracy": [one a repeat]}]}` to `file`.

    Networks are trained with cross-entropy as the row's, but for `epochs`.

    Raises:
        UserError: `lr: learned` without a learned step size; weights that are not finite.
    """
    data, step_size = load_set(distilled, prepared)
    test, images = load_split(prepared, "test"), data.images[:].to(device)
    values = torch.linalg.svdvals(images.flatten(1)).tolist()
    schedule = schedule_of(row, train, step_size, name)._replace(epochs=settings.epochs)
    groups = {"cross_entropy": Group(flat_convnet(network, data, device), cross_entropy)}
    work = {"row": row.model_dump(), "svd": settings.model_dump(exclude={"drop"}), "train": train.model_dump(exclude={"losses", "repeats"}), "network": network.model_dump(), "seed": seed}  # fmt: skip
    with scratch(f"svd-{name}", work, [distilled, *prepared.glob("*.safetensors")], root) as here:
        found = []
        for share in settings.drop:
            count = round(share * len(values))
            (here / str(count)).mkdir(exist_ok=True)
            left = data._replace(images=dropped(images, count))
            _, logits = train_groups(groups, train.repeats, train, left, test.images, schedule, seed, f"{name} without {share:.0%}", here / str(count), device)
            accuracies = [accuracy(one.numpy(), test.labels.numpy()) for one in logits["cross_entropy"]]
            found.append({"share": share, "count": count, "accuracy": accuracies})
        write_json(file, {"singular_values": values, "dropped": found})


def main(name: str) -> None:
    values, suite = find("svd", name)
    settings = pick(SvdSettings, values, f"svd.{name}")
    svd(
        settings,
        pick(TrainRow, suite["runs"][name], f"runs.{name}"),
        name,
        parse(TrainSettings, param("train"), "params.yaml: train"),
        parse(NetworkSettings, suite["datasets"][settings.dataset]["network"], f"datasets.{settings.dataset}.network"),
        Path("data/prepare") / settings.dataset,
        Path("data/distill") / name / "set.safetensors",
        Path("data/svd") / f"{name}.json",
        param("seed"),
        pick_device(param("device")),
    )


if __name__ == "__main__":
    run_stage(main)
