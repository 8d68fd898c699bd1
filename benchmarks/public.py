"""The public implementations themselves, beside ours: same machine, same settings, same images.

    python -m benchmarks.public <folder> [runs] [case ...]

`<folder>` holds clones: `mtt` of https://github.com/GeorgeCazenavette/mtt-distillation, `tesla` of
https://github.com/justincui03/tesla (MTT in constant memory, by leaving the weights' own history out of the gradient), `dc` of
https://github.com/VICO-UoE/DatasetCondensation and `rtp` of https://github.com/princetonvisualai/RememberThePast-DatasetDistillation.
What is not there is left out; results of cases that are not named stay. Their programs run as they are, each in a process of its own; this file stands in for what they
load (data sets, expert files) and report to (wandb), keeps them from evaluating, and takes the times between their iterations.
Draws are their own, so nothing is compared but time and memory; that the same work gives the same numbers is what the other
benchmarks check. Images are random: their content changes no time.
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
from typing import NamedTuple

import scipy.ndimage
import torch

from benchmarks import buffer, train
from benchmarks.measure import FOLDER, compared, device_of, in_process, peak_mib, report
from stages.shared.convnet import ConvNet

CIFAR, DIGITS = (3, 32, 128, 3), (1, 8, 32, 2)  # channels, size, width, depth
DSA = "color_crop_cutout_flip_scale_rotate"


class Images(NamedTuple):
    """Random ones, as the programs' own data sets give them."""

    train: list[tuple[torch.Tensor, int]]
    test: list[tuple[torch.Tensor, int]]

    def dataset(self, *_, **__) -> tuple:
        """What `get_dataset` of MTT's and TESLA's code returns."""
        channels, size, _ = self.train[0][0].shape
        names, mean, deviation, loader = [str(k) for k in range(10)], [0.0] * channels, [1.0] * channels, torch.utils.data.DataLoader(self.test, 128)
        return channels, (size, size), 10, names, mean, deviation, self.train, self.test, loader, None, {k: k for k in range(10)}, None

    def dataset_of_dc(self, *_, **__) -> tuple:
        return self.dataset()[:9]

    def dataset_of_rtp(self, *_, **__) -> tuple:
        channels, size, classes, *_ = self.dataset()
        return channels, size, classes, classes, self.train, self.test


def images(channels: int, size: int, count: int) -> Images:
    draws = torch.Generator().manual_seed(0)
    made = [(torch.randn(channels, size, size, generator=draws), i % 10) for i in range(count + 256)]
    return Images(made[:count], made[count:])


class Clock:
    """Moments, of which those of the first iteration are to warm up."""

    def __init__(self):
        self.moments = []

    def tick(self, *_, **__) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.moments.append(time.perf_counter())

    def seconds(self) -> list[float]:
        return [after - before for before, after in zip(self.moments[1:], self.moments[2:])]


def stand_ins(clock: Clock) -> None:
    """For modules that are gone or report to the internet; a GPU's absence is none of the programs' options."""

    def init(config: argparse.Namespace, **_) -> None:
        wandb.config._items = vars(config)

    def log(values: dict, **_) -> None:
        if "Progress" in values:
            clock.tick()

    def ignore(*_, **__) -> None:
        pass

    wandb = types.SimpleNamespace(init=init, log=log, finish=ignore, Histogram=ignore, Image=ignore, run=types.SimpleNamespace(name="run"), config=types.SimpleNamespace())
    sys.modules |= {"wandb": wandb, "scipy.ndimage.interpolation": scipy.ndimage}
    if not torch.cuda.is_available():
        torch.Tensor.cuda = lambda self, *_: self
    set_item = torch.Tensor.__setitem__  # DSA writes a tensor's first row over all of it, which PyTorch now refuses
    torch.Tensor.__setitem__ = lambda self, key, value: set_item(self, key, value.clone() if isinstance(value, torch.Tensor) else value)


class FirstLayer(torch.nn.Conv2d):
    """Of images in whatever layout: of one channel, what the program crops is taken for channels-last, and its network stumbles."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.flatten(1).view(images.shape))


def network_of(utils: types.ModuleType, channels: int, size: int, width: int, depth: int) -> None:
    """Have the program make this ConvNet. It pads what has one channel, as MNIST: that layer is made here."""
    made = utils.get_network
    utils.get_default_convnet_setting = lambda: (width, depth, "relu", "instancenorm", "avgpooling")

    def get_network(name, *_, **__):
        net = made(name, 3, 10, (size, size))
        if channels == 1:
            net.features[0] = FirstLayer(1, width, 3, padding=1)
        return net

    utils.get_network = get_network


def command(name: str, settings: dict) -> list[str]:
    return [name, *(str(word) for key, value in settings.items() for word in (f"--{key}", value))]


def program(clone: Path, name: str, settings: dict) -> None:
    """Run one of a clone's files as if it were called in a terminal."""
    sys.argv = command(name, settings)
    runpy.run_path(str(clone / name), run_name="__main__")


def trajectory_matching(clone: Path, clock: Clock, runs: int, ipc: int, steps: int) -> None:
    """MTT's or TESLA's `distill.py`: an iteration ends where the next says how far it is."""
    import utils

    utils.get_dataset = images(3, 32, 1000).dataset
    experts = Path("buffers/CIFAR10_NO_ZCA/ConvNet")
    experts.mkdir(parents=True)
    torch.save([[[p.detach() for p in ConvNet(*CIFAR[:2], 10, *CIFAR[2:]).parameters()] for _ in range(4)]], experts / "replay_buffer_0.pt")
    settings = {"ipc": ipc, "syn_steps": steps, "expert_epochs": 2, "max_start_epoch": 2, "lr_img": 100, "lr_lr": 1e-7, "Iteration": runs + 1, "num_eval": 0, "eval_it": 1000}
    program(clone, "distill.py", settings)


def experts(clone: Path, clock: Clock, runs: int, network: tuple, count: int, epochs: int) -> None:
    """MTT's `buffer.py`, training alone: its epochs over the test images are not counted."""
    import utils

    network_of(utils, *network)
    utils.get_dataset = images(*network[:2], count).dataset
    of_an_epoch, took = utils.epoch, []

    def epoch(mode, *words, **more):
        begin = time.perf_counter()
        found = of_an_epoch(mode, *words, **more)
        if mode == "train":
            took.append(time.perf_counter() - begin)
        return found

    utils.epoch = epoch
    many = {"num_experts": runs + 1, "train_epochs": epochs} if epochs > 1 else {"num_experts": 1, "train_epochs": runs + 1}
    settings = many | {"batch_train": 64 if network == DIGITS else 256, "lr_teacher": 0.01}
    program(clone, "buffer.py", settings)
    clock.moments = [sum(took[: epochs * n]) for n in range(runs + 2)]


def matching(clone: Path, clock: Clock, runs: int, method: str, ipc: int) -> None:
    """DC's `main.py`: an iteration begins with a new network, and is one update of the images."""
    import utils

    made = utils.get_network

    def get_network(*words, **more):
        clock.tick()
        return made(*words, **more)

    utils.get_dataset, utils.get_network, utils.get_loops = images(3, 32, 2560).dataset_of_dc, get_network, lambda ipc: (1, 1)
    settings = {"method": method, "ipc": ipc, "init": "real", "num_exp": 1, "num_eval": 0, "Iteration": runs + 1, "dsa_strategy": DSA if method == "DSA" else "None"}
    program(clone, "main.py", settings)


def backpropagation_through_time(clone: Path, clock: Clock, runs: int, ipc: int, steps: int) -> None:
    """RTP's training of images without a basis: an iteration begins with the choice of classes."""
    import runners.sgld_runner_standard as runner
    import srcs.main as terminal

    chosen = runner.get_task_indices

    def get_task_indices(*words):
        clock.tick()
        return chosen(*words)

    runner.get_dataset, runner.get_task_indices = images(3, 32, 1000).dataset_of_rtp, get_task_indices
    settings = {"config": "compressors_bptt_interventions.yml", "dataset": "CIFAR10", "backbone_name": "ConvNet", "ipc": ipc, "bptt_inner_steps": steps}
    settings |= {"inner_optimizer": "SGD", "inner_momentum": 0.9, "compressor_minibatch_size": ipc, "compressor": "imgs_embedding_minibatch", "task_sampler_nc": 10, "interventions": "none"}
    sys.argv = command("main.py", settings)
    os.chdir(clone)
    args, config = terminal.parse_args_and_config()
    config.training.n_iters = runs + 2
    runner.train("cuda:0" if torch.cuda.is_available() else "cpu", 1, config, args)  # its rank; evaluates on rank 0 alone


def networks(clone: Path, clock: Clock, runs: int, epochs: int) -> None:
    """MTT's `evaluate_synset`: a network on ten images a class of the digits' size."""
    import utils

    network_of(utils, *DIGITS)
    own, device = images(*DIGITS[:2], 100), "cuda" if torch.cuda.is_available() else "cpu"
    x, y = torch.stack([x for x, _ in own.train]), torch.tensor([y for _, y in own.train])
    args = types.SimpleNamespace(device=device, lr_net=train.LR, epoch_eval_train=epochs - 1, batch_train=256, dataset="digits", dsa=True, dsa_strategy=DSA, dsa_param=utils.ParamDiffAug())
    clock.tick()
    for n in range(runs + 1):
        utils.evaluate_synset(n, utils.get_network("ConvNet"), x, y, torch.utils.data.DataLoader(own.test, 128), args)
        clock.tick()


class Case(NamedTuple):
    clone: str
    public: Callable
    settings: dict
    ours: tuple  # words for `in_process`: a benchmark's module, what it measures, its way
    share: int = 1  # how many of what the public code is timed at ours does in a run


DIGITS_BUFFER, CIFAR_BUFFER = buffer.SETTINGS
CASES = {
    "an expert, CIFAR-10, 8 batches of 256": Case("mtt", experts, {"network": CIFAR, "count": 256 * buffer.BATCHES, "epochs": 1}, ("buffer", CIFAR_BUFFER, "ours, float32")),
    "an expert, digits, 15 epochs": Case("mtt", experts, {"network": DIGITS, "count": 898, "epochs": 15}, ("buffer", DIGITS_BUFFER, "ours, float32"), buffer.DIGITS.experts),
    "a network, digits, IPC 10, 300 epochs": Case("mtt", networks, {"epochs": train.EPOCHS}, ("train", "ours"), train.REPEATS * len(train.LOSSES)),
    "MTT, CIFAR-10, IPC 10, 30 steps": Case("mtt", trajectory_matching, {"ipc": 10, "steps": 30}, ("distill", "mtt, CIFAR-10, IPC 10, 30 steps", "ours")),
    "TESLA (ours: MTT), CIFAR-10, IPC 10, 30 steps": Case("tesla", trajectory_matching, {"ipc": 10, "steps": 30}, ("distill", "mtt, CIFAR-10, IPC 10, 30 steps", "ours")),
    "RTP, CIFAR-10, IPC 1, 150 steps": Case("rtp", backpropagation_through_time, {"ipc": 1, "steps": 150}, ("distill", "rtp, CIFAR-10, IPC 1, 150 steps", "ours")),
    "DC, CIFAR-10, IPC 1": Case("dc", matching, {"method": "DC", "ipc": 1}, ("distill", "dc, CIFAR-10, IPC 1", "ours")),
    "DC, CIFAR-10, IPC 10": Case("dc", matching, {"method": "DC", "ipc": 10}, ("distill", "dc, CIFAR-10, IPC 10", "ours")),
    "DSA, CIFAR-10, IPC 1": Case("dc", matching, {"method": "DSA", "ipc": 1}, ("distill", "dsa, CIFAR-10, IPC 1", "ours")),
    "DSA, CIFAR-10, IPC 10": Case("dc", matching, {"method": "DSA", "ipc": 10}, ("distill", "dsa, CIFAR-10, IPC 10", "ours")),
}  # fmt: skip


def measure(name: str, clone: Path, runs: int) -> None:
    """In a process of its own, in an empty folder: print the seconds of a public program's iterations and the peak."""
    case, clock, device = CASES[name], Clock(), device_of("public")
    stand_ins(clock)
    sys.path[:0] = [str(clone)]
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        case.public(clone, clock, runs, **case.settings)
    assert len(clock.seconds()) == runs, f"{name}: {len(clock.seconds())} iterations were timed, not {runs}"
    print(json.dumps({"seconds": clock.seconds(), "peak_mib": peak_mib(device)}))


def main(folder: str, runs: int = 5, names: tuple[str, ...] = tuple(CASES)) -> None:
    before = json.loads(file.read_text()) if (file := FOLDER / "public.json").exists() else {"settings": {"commits": {}}, "results": []}
    results, commits = [result for result in before["results"] if result["case"] not in names], before["settings"]["commits"]
    for name in names:
        case, clone = CASES[name], Path(folder).resolve() / CASES[name].clone
        if not clone.is_dir():
            print(f"{name}: left out, there is no {clone.name} in {folder}", file=sys.stderr)
            continue
        commits[case.clone] = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=clone, check=True, capture_output=True, text=True).stdout.strip()
        with tempfile.TemporaryDirectory() as there:
            module, *words = case.ours
            ours = in_process(f"benchmarks.{module}", *words, runs, f"{there}/ours")
        ours["seconds"] = [seconds / case.share for seconds in ours["seconds"]]
        found = compared({"plain": in_process("benchmarks.public", name, clone, runs), "ours": ours})
        results += [{"case": name, "way": way} | {key.replace("plain", "public"): value for key, value in values.items()} for way, values in zip(("public", "ours"), found.values())]
        report("public", {"runs": runs, "unit": "seconds, MiB", "commits": commits}, results)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main(sys.argv[1], *([int(sys.argv[2])] if sys.argv[2:] else []), *([tuple(sys.argv[3:])] if sys.argv[3:] else []))
