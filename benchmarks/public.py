"""The public implementations themselves, beside ours: same machine, same settings, same images.

    python -m benchmarks.public <folder> [runs] [case ...]

`<folder>` holds clones: `mtt` of https://github.com/GeorgeCazenavette/mtt-distillation, `tesla` of
https://github.com/justincui03/tesla (MTT in constant memory, by leaving the weights' own history out of
the gradient), `dc` of https://github.com/VICO-UoE/DatasetCondensation and `rtp` of
https://github.com/princetonvisualai/RememberThePast-DatasetDistillation. Cases of a clone that is not
there are left out; results of cases that are not named stay.

The programs run as they are, each in a process of its own. This file stands in for what they load (data
sets, expert files) and report to (wandb), keeps them from evaluating, and takes the times between their
iterations. Their draws are their own, so nothing is compared but time and memory; the other benchmarks
check that the same work gives the same numbers. Images are random: their content changes no time.
"""

import argparse
import contextlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import scipy.ndimage
import torch

from benchmarks import buffer, train
from benchmarks.distill import CIFAR, DIGITS, Shape
from benchmarks.measure import (
    FOLDER,
    compared,
    device_of,
    in_process,
    main_or_measure,
    peak_mib,
    report,
)
from stages.networks.convnet import ConvNet

__all__ = ["CASES"]

DSA = "color_crop_cutout_flip_scale_rotate"
CLASSES = 10
TEST_IMAGES = 256


class Images(NamedTuple):
    """Random images, as the programs' own data sets give them."""

    train: Any  # a list of pairs, each an image and its label; data loaders take it as a data set
    test: Any

    def dataset(self, *_: object, **__: object) -> tuple:
        """What `get_dataset` of MTT's and TESLA's code returns."""
        channels, side = self.train[0][0].shape[:2]
        names = [str(label) for label in range(CLASSES)]
        mean = [0.0] * channels
        deviation = [1.0] * channels
        loader: Any = torch.utils.data.DataLoader(self.test, 128)
        class_map = {label: label for label in range(CLASSES)}
        head = (channels, (side, side), CLASSES, names, mean, deviation)
        return *head, self.train, self.test, loader, None, class_map, None

    def dataset_of_dc(self, *_: object, **__: object) -> tuple:
        """What `get_dataset` of DC's code returns."""
        return self.dataset()[:9]

    def dataset_of_rtp(self, *_: object, **__: object) -> tuple:
        """What `get_dataset` of RTP's code returns."""
        channels, size, classes = self.dataset()[:3]
        return channels, size, classes, classes, self.train, self.test


def images(channels: int, side: int, count: int) -> Images:
    draws = torch.Generator().manual_seed(0)
    made = []
    for number in range(count + TEST_IMAGES):
        made.append((torch.randn(channels, side, side, generator=draws), number % CLASSES))
    return Images(made[:count], made[count:])


class Clock:
    """The moments at which iterations begin; the first iteration is there to warm up."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def tick(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.moments.append(time.perf_counter())

    def before(self, function: Callable) -> Callable:
        """The function, which ticks before it works."""

        def ticking(*words: object, **options: object) -> object:
            self.tick()
            return function(*words, **options)

        return ticking

    def seconds(self) -> list[float]:
        return [end - begin for begin, end in zip(self.moments[1:], self.moments[2:])]


# What stands in for the programs' surroundings


def stand_ins(clock: Clock) -> None:
    """Replace modules that are gone or report to the internet, and a GPU where there is none."""
    sys.modules["wandb"] = wandb(clock)
    sys.modules["scipy.ndimage.interpolation"] = scipy.ndimage
    if not torch.cuda.is_available():  # the programs have no option for that
        torch.Tensor.cuda = lambda self, *_: self  # type: ignore[assignment, method-assign]
    set_item = torch.Tensor.__setitem__

    def set_copy(self: torch.Tensor, key: Any, value: Any) -> None:
        """DSA writes a tensor's first row over all of it, which PyTorch now refuses."""
        set_item(self, key, value.clone() if isinstance(value, torch.Tensor) else value)

    torch.Tensor.__setitem__ = set_copy  # type: ignore[assignment, method-assign]


def wandb(clock: Clock) -> Any:
    """A module that does nothing but to tick when an iteration tells its progress."""
    settings = types.SimpleNamespace()

    def init(config: argparse.Namespace, **_: object) -> None:
        settings._items = vars(config)

    def log(values: dict[str, Any], **_: object) -> None:
        if "Progress" in values:
            clock.tick()

    def ignore(*_: object, **__: object) -> None:
        pass

    return types.SimpleNamespace(
        init=init,
        log=log,
        finish=ignore,
        Histogram=ignore,
        Image=ignore,
        run=types.SimpleNamespace(name="run"),
        config=settings,
    )


class FirstLayer(torch.nn.Conv2d):
    """A layer that takes images in any layout.

    The program's crops of one channel count as channels-last, which its network does not take.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.flatten(1).view(images.shape))


def replace_network(utils: Any, shape: Shape) -> None:
    """Have the program make a ConvNet of this shape.

    It pads images of one channel, as MNIST's; so it is asked for three, and the first layer is made here.
    """
    make = utils.get_network

    def get_network(name: str, *_: object, **__: object) -> torch.nn.Module:
        network = make(name, 3, CLASSES, (shape.side, shape.side))
        if shape.channels == 1:
            network.features[0] = FirstLayer(1, shape.width, 3, padding=1)
        return network

    settings = (shape.width, shape.depth, "relu", "instancenorm", "avgpooling")
    utils.get_default_convnet_setting = lambda: settings
    utils.get_network = get_network


def command(name: str, settings: dict[str, Any]) -> list[str]:
    words = [name]
    for key, value in settings.items():
        words += [f"--{key}", str(value)]
    return words


def program(clone: Path, name: str, settings: dict[str, Any]) -> None:
    """Run one of a clone's files as if it were called in a terminal."""
    sys.argv = command(name, settings)
    runpy.run_path(str(clone / name), run_name="__main__")


# The programs. Each takes its clone, the clock and the number of iterations to time.


def trajectory_matching(clone: Path, clock: Clock, runs: int, ipc: int, steps: int) -> None:
    """MTT's or TESLA's `distill.py`: an iteration ends where the next says how far it is."""
    import utils

    utils.get_dataset = images(3, 32, 1000).dataset
    folder = Path("buffers/CIFAR10_NO_ZCA/ConvNet")
    folder.mkdir(parents=True)
    expert = [convnet_weights() for _ in range(4)]
    torch.save([expert], folder / "replay_buffer_0.pt")
    settings = {
        "ipc": ipc,
        "syn_steps": steps,
        "expert_epochs": 2,
        "max_start_epoch": 2,
        "lr_img": 100,
        "lr_lr": 1e-7,
        "Iteration": runs + 1,
        "num_eval": 0,
        "eval_it": 1000,
    }
    program(clone, "distill.py", settings)


def convnet_weights() -> list[torch.Tensor]:
    network = ConvNet(CIFAR.channels, CIFAR.side, CLASSES, CIFAR.width, CIFAR.depth)
    return [parameter.detach() for parameter in network.parameters()]


def experts(clone: Path, clock: Clock, runs: int, shape: Shape, count: int, epochs: int) -> None:
    """MTT's `buffer.py`, its training alone: its epochs over the test images are not counted."""
    import utils

    replace_network(utils, shape)
    utils.get_dataset = images(shape.channels, shape.side, count).dataset
    run_epoch = utils.epoch
    seconds = []

    def epoch(mode: str, *words: object, **options: object) -> object:
        begin = time.perf_counter()
        result = run_epoch(mode, *words, **options)
        if mode == "train":
            seconds.append(time.perf_counter() - begin)
        return result

    utils.epoch = epoch
    settings = {"num_experts": runs + 1, "train_epochs": epochs}
    if epochs == 1:  # one expert of many epochs costs the same
        settings = {"num_experts": 1, "train_epochs": runs + 1}
    settings["batch_train"] = 64 if shape == DIGITS else 256
    program(clone, "buffer.py", settings | {"lr_teacher": 0.01})
    clock.moments = [sum(seconds[: epochs * expert]) for expert in range(runs + 2)]


def matching(clone: Path, clock: Clock, runs: int, method: str, ipc: int) -> None:
    """DC's `main.py`: an iteration begins with a new network, and is one update of the images."""
    import utils

    utils.get_dataset = images(3, 32, 2560).dataset_of_dc
    utils.get_network = clock.before(utils.get_network)
    utils.get_loops = lambda ipc: (1, 1)
    settings = {
        "method": method,
        "ipc": ipc,
        "init": "real",
        "num_exp": 1,
        "num_eval": 0,
        "Iteration": runs + 1,
        "dsa_strategy": DSA if method == "DSA" else "None",
    }
    program(clone, "main.py", settings)


def backpropagation_through_time(clone: Path, clock: Clock, runs: int, ipc: int, steps: int) -> None:
    """RTP's training of images without a basis: an iteration begins with the choice of classes."""
    import runners.sgld_runner_standard as runner
    import srcs.main as terminal

    runner.get_dataset = images(3, 32, 1000).dataset_of_rtp
    runner.get_task_indices = clock.before(runner.get_task_indices)
    settings = {
        "config": "compressors_bptt_interventions.yml",
        "dataset": "CIFAR10",
        "backbone_name": "ConvNet",
        "ipc": ipc,
        "bptt_inner_steps": steps,
        "inner_optimizer": "SGD",
        "inner_momentum": 0.9,
        "compressor_minibatch_size": ipc,
        "compressor": "imgs_embedding_minibatch",
        "task_sampler_nc": 10,
        "interventions": "none",
    }
    sys.argv = command("main.py", settings)
    os.chdir(clone)
    args, config = terminal.parse_args_and_config()
    config.training.n_iters = runs + 2
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    rank = 1  # it evaluates on rank 0 alone
    runner.train(device, rank, config, args)


def networks(clone: Path, clock: Clock, runs: int, epochs: int) -> None:
    """MTT's `evaluate_synset`: a network on ten images a class of the digits' size."""
    import utils

    replace_network(utils, DIGITS)
    made = images(DIGITS.channels, DIGITS.side, 100)
    x = torch.stack([image for image, _ in made.train])
    y = torch.tensor([label for _, label in made.train])
    args = types.SimpleNamespace(
        device="cuda" if torch.cuda.is_available() else "cpu",
        lr_net=train.LR,
        epoch_eval_train=epochs - 1,
        batch_train=256,
        dataset="digits",
        dsa=True,
        dsa_strategy=DSA,
        dsa_param=utils.ParamDiffAug(),
    )
    clock.tick()
    for number in range(runs + 1):
        test: Any = torch.utils.data.DataLoader(made.test, 128)
        utils.evaluate_synset(number, utils.get_network("ConvNet"), x, y, test, args)
        clock.tick()


class Case(NamedTuple):
    clone: str
    run: Callable[..., None]  # the public program
    settings: dict[str, Any]  # of `run`
    ours: tuple[str, ...]  # words for `in_process`: a benchmark's module, what it measures, its way
    share: int = 1  # how many times ours does in one run what the public program is timed at


DIGITS_BUFFER, CIFAR_BUFFER = buffer.SETTINGS
CIFAR_EPOCH = {"shape": CIFAR, "count": 256 * buffer.BATCHES, "epochs": 1}
DIGITS_EXPERT = {"shape": DIGITS, "count": buffer.DIGITS_IMAGES, "epochs": buffer.DIGITS.epochs}
MTT = ("distill", "mtt, CIFAR-10, IPC 10, 30 steps", "ours")
RTP = ("distill", "rtp, CIFAR-10, IPC 1, 150 steps", "ours")
CASES = {
    "an expert, CIFAR-10, 8 batches of 256": Case(
        "mtt", experts, CIFAR_EPOCH, ("buffer", CIFAR_BUFFER, "ours, float32")
    ),
    "an expert, digits, 15 epochs": Case(
        "mtt", experts, DIGITS_EXPERT, ("buffer", DIGITS_BUFFER, "ours, float32"), buffer.DIGITS.experts
    ),
    "a network, digits, IPC 10, 300 epochs": Case(
        "mtt", networks, {"epochs": train.EPOCHS}, ("train", "ours"), train.REPEATS * len(train.LOSSES)
    ),
    "MTT, CIFAR-10, IPC 10, 30 steps": Case("mtt", trajectory_matching, {"ipc": 10, "steps": 30}, MTT),
    "TESLA (ours: MTT), CIFAR-10, IPC 10, 30 steps": Case(
        "tesla", trajectory_matching, {"ipc": 10, "steps": 30}, MTT
    ),
    "RTP, CIFAR-10, IPC 1, 150 steps": Case(
        "rtp", backpropagation_through_time, {"ipc": 1, "steps": 150}, RTP
    ),
    "DC, CIFAR-10, IPC 1": Case(
        "dc", matching, {"method": "DC", "ipc": 1}, ("distill", "dc, CIFAR-10, IPC 1", "ours")
    ),
    "DC, CIFAR-10, IPC 10": Case(
        "dc", matching, {"method": "DC", "ipc": 10}, ("distill", "dc, CIFAR-10, IPC 10", "ours")
    ),
    "DSA, CIFAR-10, IPC 1": Case(
        "dc", matching, {"method": "DSA", "ipc": 1}, ("distill", "dsa, CIFAR-10, IPC 1", "ours")
    ),
    "DSA, CIFAR-10, IPC 10": Case(
        "dc", matching, {"method": "DSA", "ipc": 10}, ("distill", "dsa, CIFAR-10, IPC 10", "ours")
    ),
}


def measure(name: str, clone: str, runs: str) -> None:
    """In an empty folder: print the seconds of a public program's iterations, and its peak memory."""
    case = CASES[name]
    clock = Clock()
    device = device_of("public")
    stand_ins(clock)
    sys.path.insert(0, clone)
    with (
        contextlib.redirect_stdout(sys.stderr),
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
    ):
        case.run(Path(clone), clock, int(runs), **case.settings)
    seconds = clock.seconds()
    assert len(seconds) == int(runs), f"{name}: {len(seconds)} iterations were timed, not {runs}"
    print(json.dumps({"seconds": seconds, "peak_mib": peak_mib(device)}))


def results_of(name: str, clone: Path, runs: int) -> list[dict[str, Any]]:
    """The public program and ours."""
    case = CASES[name]
    module, *words = case.ours
    with tempfile.TemporaryDirectory() as folder:
        ours = in_process(f"benchmarks.{module}", *words, runs, f"{folder}/ours")
    ours["seconds"] = [seconds / case.share for seconds in ours["seconds"]]
    public = in_process("benchmarks.public", name, clone, runs)
    results = []
    for way, numbers in compared({"plain": public, "ours": ours}).items():
        renamed = {key.replace("plain", "public"): value for key, value in numbers.items()}
        results.append({"case": name, "way": way.replace("plain", "public"), **renamed})
    return results


def main(folder: str, runs: str = "5", *names: str) -> None:
    file = FOLDER / "public.json"
    measured = names or tuple(CASES)
    commits: dict[str, str] = {}
    results: list[dict[str, Any]] = []
    if file.exists():
        former = json.loads(file.read_text())
        commits = former["settings"]["commits"]
        results = [result for result in former["results"] if result["case"] not in measured]
    for name in measured:
        clone = Path(folder).resolve() / CASES[name].clone
        if not clone.is_dir():
            print(f"{name}: left out, there is no {clone.name} in {folder}", file=sys.stderr)
            continue
        command = ["git", "rev-parse", "--short", "HEAD"]
        done = subprocess.run(command, cwd=clone, check=True, capture_output=True, text=True)
        commits[CASES[name].clone] = done.stdout.strip()
        results += results_of(name, clone, int(runs))
        report("public", {"runs": int(runs), "unit": "seconds, MiB", "commits": commits}, results)


if __name__ == "__main__":
    main_or_measure(main, measure)
