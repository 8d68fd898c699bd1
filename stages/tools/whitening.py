"""whitening: how the images of a distilled set were normalised, which its files do not say.

    python -m stages.tools.whitening <set> --dataset cifar10 --against cifar10-plain

<set> is `released/<name>`, or a folder of a form that the backbone `file` reads. Its images are what a
network saw, so networks are trained on them as they are. Real images are normalised as each of the data sets
says, and the accuracy of the networks on them is shown beside the published one, which was measured on test
images. The real images are training images, so nothing is chosen by test images. The user decides.

The data sets have to be prepared: `python -m stages.prepare <dataset>`. Networks are trained as `train` of
params.yaml says, and a training that was killed goes on where it was.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from stages.distillation.backbone import Problem
from stages.distillation.imported_files import ImportedSet
from stages.distillation.imported_set import images_of_a_class, read_set
from stages.images.archives import data_root
from stages.images.distilled import DistilledSet
from stages.images.prepared import LabelledImages
from stages.images.real import Real, fitting_rows
from stages.images.released import PREFIX, Published, SoftKind, folder_of, released_set
from stages.losses import cross_entropy
from stages.runtime.checkpoint import scratch
from stages.runtime.errors import UserError, run_stage
from stages.runtime.randomness import generator
from stages.settings.project import param
from stages.settings.rows import Dataset
from stages.settings.section import parse
from stages.settings.train import TrainKeys
from stages.training.flat import flat_convnet
from stages.training.groups import Group, Setup, schedule_of, train_groups, train_settings
from stages.training.objective import Loss

__all__ = ["Asked", "Candidate", "whitening"]


DEFAULT_LR = 0.01  # where the set came without a step size


class Asked(NamedTuple):
    """What the command line asks for."""

    set: str  # `released/<name>` or a folder
    datasets: list[str]  # the candidates
    networks: int = 2
    epochs: int = 1000
    images: int = 10_000  # real training images, as many of each class
    lr: float | None = None  # None: the step size that came with the set, or DEFAULT_LR
    augment: bool = True
    labels: SoftKind | None = None  # what soft labels are


class Candidate(NamedTuple):
    """A data set, and how the networks do on its images."""

    dataset: str
    accuracies: list[float]  # shares in [0, 1], one a network


class SetAndFolder(NamedTuple):
    folder: Path
    kind: SoftKind | None  # of soft labels
    published: Published | None


def whitening(asked: Asked) -> list[Candidate]:
    """Train the networks, and measure them on training images under each of the data sets.

    Raises:
        UserError: a data set is not prepared; the set cannot be read, or does not fit the data sets.
    """
    datasets = [Dataset(name) for name in asked.datasets]
    reals = [real_images(dataset, asked) for dataset in datasets]
    imported = set_of(asked, datasets[0])
    setup = setup_of(asked, imported, datasets[0], reals)
    network = flat_convnet(datasets[0].network, setup.data, setup.device)
    groups = {"cross_entropy": Group(network, Loss(cross_entropy))}
    about = [asked._asdict(), train_settings().model_dump(), datasets[0].network.model_dump(), setup.seed]
    files = [file for file in where_is(asked).folder.rglob("*") if file.is_file()]
    files += [file for dataset in datasets for file in dataset.prepared.glob("*.safetensors")]
    with scratch(f"whitening-{Path(asked.set).name}", about, files) as folder:
        logits = train_groups(groups, setup, folder).logits["cross_entropy"]
    candidates = []
    for dataset, real, of_dataset in zip(datasets, reals, logits.chunk(len(datasets), dim=1)):
        is_right = of_dataset.argmax(2) == real.labels
        candidates.append(Candidate(dataset.name, is_right.float().mean(1).tolist()))
    return candidates


def real_images(dataset: Dataset, asked: Asked) -> LabelledImages:
    """The same training images of each data set, normalised as it says.

    Raises:
        UserError: the data set is not prepared.
    """
    if not (dataset.prepared / "info.json").exists():
        advice = f"python -m stages.prepare {dataset.name} makes it"
        raise UserError(f"{dataset.prepared} is not there yet; {advice}")
    real = Real.load(dataset.prepared)
    nothing = torch.tensor([], dtype=torch.int64)
    draws = generator(dataset.seed, "whitening", "images")
    return real.at(fitting_rows(real, nothing, real.each(asked.images), draws))


def where_is(asked: Asked) -> SetAndFolder:
    """The folder of the set, which is fetched if it is a released one and not there."""
    if not asked.set.startswith(PREFIX):
        return SetAndFolder(Path(asked.set), asked.labels, None)
    released = released_set(asked.set, "set")
    folder = folder_of(asked.set, data_root(param("data_root")), "set")
    return SetAndFolder(folder, asked.labels or released.soft_kind, released.published)


def set_of(asked: Asked, dataset: Dataset) -> ImportedSet:
    """The set, which has as many images per class as it has."""
    folder, kind, _ = where_is(asked)
    real = Real.load(dataset.prepared)
    labelled = LabelledImages(real.images, real.labels, real.classes)
    problem = Problem(
        real=labelled,
        network=flat_convnet(dataset.network, labelled, torch.device("cpu")),
        ipc=0,
        mdt=0,
        reads=folder,
        seed=dataset.seed,
        prepared=dataset.prepared,
    )
    return read_set(replace(problem, ipc=images_of_a_class(problem)), kind)


def setup_of(asked: Asked, imported: ImportedSet, dataset: Dataset, reals: list[LabelledImages]) -> Setup:
    """Networks on the set, which are shown the real images of all data sets, one data set after the other.

    Raises:
        UserError: the data sets have images of different shapes or classes.
    """
    kinds = {(tuple(real.images.shape), real.classes) for real in reals}
    if len(kinds) > 1:
        raise UserError(f"--against: {', '.join(asked.datasets)}; allowed: data sets of the same images")
    classes = reals[0].classes
    data = LabelledImages(imported.images, imported.labels, classes, imported.targets)
    distilled = DistilledSet(data, imported.step_size, None, imported.number)
    lr = asked.lr if asked.lr is not None else imported.step_size or DEFAULT_LR
    values = {"epochs": asked.epochs, "lr": lr, "augment": asked.augment, "train": {}}
    return Setup(
        row=asked.set,
        title=asked.set,
        data=data,
        rows=distilled.rows_of(asked.networks),
        test=LabelledImages(
            torch.cat([real.images[:] for real in reals]),
            torch.cat([real.labels for real in reals]),
            classes,
        ),
        schedule=schedule_of(parse(TrainKeys, values, "whitening"), train_settings(), distilled, asked.set),
        repeats=asked.networks,
        seed=dataset.seed,
        device=dataset.device,
        purpose="whitening",
    )


def show(asked: Asked, candidates: list[Candidate]) -> None:
    """Print the accuracies in percent, beside the published one."""
    width = max(len(candidate.dataset) for candidate in candidates) + len("published")
    print(f"{asked.set}: accuracy in percent on training images, one number a network")
    for dataset, accuracies in candidates:
        numbers = "  ".join(f"{100 * accuracy:.1f}" for accuracy in accuracies)
        print(f"{dataset:<{width}}{numbers}")
    published = where_is(asked).published
    if published is not None:
        print(f"{'published':<{width}}{published.accuracy:.1f}  (on test images; {published.source})")


def _count(word: str) -> int:
    """A number of the command line that is at least 1."""
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}; allowed: 1 or more")
    return number


def parsed(words: list[str]) -> Asked:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.tools.whitening",
        description="Accuracy of networks on a set, on real images normalised in several ways.",
    )
    parser.add_argument("set", help="released/<name>, or a folder")
    parser.add_argument("--dataset", required=True, help="a data set of the suites")
    parser.add_argument("--against", nargs="+", default=[], help="others, of the same images")
    parser.add_argument("--networks", type=_count, default=2)
    parser.add_argument("--epochs", type=_count, default=1000)
    parser.add_argument("--images", type=_count, default=10_000, help="real training images")
    parser.add_argument("--lr", type=float, help="step size; default: that of the set, or 0.01")
    parser.add_argument("--no-augment", action="store_true", help="as networks on sets of DC are trained")
    parser.add_argument("--labels", choices=["probabilities", "logits"], help="what soft labels are")
    given = parser.parse_args(words)
    return Asked(
        set=given.set,
        datasets=[given.dataset, *given.against],
        networks=given.networks,
        epochs=given.epochs,
        images=given.images,
        lr=given.lr,
        augment=not given.no_augment,
        labels=given.labels,
    )


def main(*words: str) -> None:
    asked = parsed(list(words))
    show(asked, whitening(asked))


if __name__ == "__main__":
    run_stage(main)
