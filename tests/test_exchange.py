"""Sets that were made elsewhere, and sets for use elsewhere."""

import pickle

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from stages.buffer import ImportedBuffer
from stages.buffer import take_in as take_in_buffer
from stages.distill import DistillRow, distill
from stages.export import export
from stages.prepare import prepare
from stages.shared.convnet import ConvNet, NetworkSettings
from stages.shared.errors import UserError
from stages.shared.flat import FlatNetwork
from stages.shared.images import load_split, load_transform
from stages.shared.sources import ImageSettings
from stages.train import TrainRow, TrainSettings, train_row

NETWORK, CPU = NetworkSettings(width=4, depth=2), torch.device("cpu")
CLASSES = ("ant", "bee", "cow")


@pytest.fixture(scope="module", params=["zca", "none"])
def prepared(request, tmp_path_factory):
    """Three classes of ten 8x8 pictures in color."""
    folder, rng = tmp_path_factory.mktemp("animals"), np.random.default_rng(0)
    for split in ("train", "test"):
        for k, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for i in range(10):
                Image.fromarray(rng.integers(40 * k, 120 + 40 * k, (8, 8, 3), np.uint8)).save(folder / split / name / f"{i}.png")
    prepare(ImageSettings(source=str(folder), whitening=request.param), folder / "prepared")
    return folder / "prepared"


def take_in(prepared, reads, folder, ipc=2, step_size=None):
    row = DistillRow(dataset="animals", backbone="file", ipc=ipc, reads="sets/x", mdt=0, distill={"step_size": step_size})
    distill(row, "animals-file", NETWORK, prepared, reads, folder, 0, CPU, folder.parent / "scratch")
    return load_file(folder / "set.safetensors")


@pytest.fixture
def pair():
    """Images and labels of two a class, not in the order of the classes."""
    return torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0, 1, 1, 0, 2])


def as_mtt(folder, images, labels):
    folder.mkdir()
    torch.save(images, folder / "images_best.pt")
    torch.save(labels, folder / "labels_best.pt")
    return folder


def as_dc(folder, images, labels):
    folder.mkdir()
    accuracies = {"ConvNet": [np.float64(0.28), np.mean([0.1, 0.2])]}  # as the public code leaves them
    data = [[torch.zeros_like(images), labels], [images, labels]]
    torch.save({"data": data, "accs_all_exps": accuracies}, folder / "res_DC_CIFAR10_ConvNet_2ipc.pt")
    return folder


def as_ours(folder, images, labels):
    folder.mkdir()
    save_file({"images": images, "labels": labels, "step_size": torch.tensor(0.03)}, folder / "set.safetensors")
    return folder


@pytest.mark.parametrize("form", [as_mtt, as_dc, as_ours])
def test_a_set_from_elsewhere_is_taken_in_as_it_is(form, prepared, pair, tmp_path):
    made = take_in(prepared, form(tmp_path / "in", *pair), tmp_path / "out", step_size=0.02)
    assert torch.equal(made["images"], pair[0]) and torch.equal(made["labels"], pair[1])
    assert float(made["step_size"]) == pytest.approx(0.03 if form is as_ours else 0.02)


def test_a_pair_may_have_a_number_and_its_step_size_beside_it(prepared, pair, tmp_path):
    """As a run's folder has them that was stopped early; `lr_*.pt` as successors of MTT write it."""
    folder = as_mtt(tmp_path / "in", pair[0].requires_grad_(), pair[1])
    for name in ("images", "labels"):
        (folder / f"{name}_best.pt").rename(folder / f"{name}_100.pt")
    torch.save(pair[0], folder / "images_zca_100.pt")
    torch.save(torch.tensor(0.04, requires_grad=True), folder / "lr_100.pt")
    made = take_in(prepared, folder, tmp_path / "out", step_size=0.02)
    assert torch.equal(made["images"], pair[0]) and float(made["step_size"]) == pytest.approx(0.04)
    torch.save(torch.tensor(-0.04), folder / "lr_100.pt")
    with pytest.raises(UserError, match="lr_100.pt: a step size of -0.04"):
        take_in(prepared, folder, tmp_path / "again")
    torch.save(pair[0], folder / "images_200.pt")
    with pytest.raises(UserError, match="2 files images_<number>.pt; allowed: one, or images_best.pt"):
        take_in(prepared, folder, tmp_path / "again")


def test_labels_may_be_kept_as_floats(prepared, pair, tmp_path):
    made = take_in(prepared, as_mtt(tmp_path / "in", pair[0], pair[1].float()), tmp_path / "out")
    assert made["labels"].dtype == torch.int64 and "step_size" not in made


class Code:
    """A pickle that would run something."""

    def __reduce__(self):
        import os

        return os.mkdir, ("this-must-not-be-there",)


@pytest.mark.parametrize(
    "spoil, expected",
    [
        (lambda f, x, y: torch.save(Code(), f / "images_best.pt"), "images_best.pt: cannot be read as tensors: Weights only load failed"),
        (lambda f, x, y: (f / "images_best.pt").write_bytes(pickle.dumps(Code())), "images_best.pt: cannot be read as tensors"),
        (lambda f, x, y: (f / "images_best.pt").write_bytes((f / "images_best.pt").read_bytes()[:900]), "images_best.pt: cannot be read as tensors"),
        (lambda f, x, y: (f / "images_best.pt").write_text("no tensor"), "images_best.pt: cannot be read as tensors"),
        (lambda f, x, y: (f / "labels_best.pt").unlink(), "labels_best.pt: missing beside images_best.pt"),
        (lambda f, x, y: torch.save(torch.eye(6), f / "labels_best.pt"), r"labels \(6, 6\); allowed: .*soft labels are not supported"),
        (lambda f, x, y: torch.save("fast", f / "lr_best.pt"), "lr_best.pt: expected a number"),
        (lambda f, x, y: torch.save(x[:, :1], f / "images_best.pt"), r"images \(6, 1, 8, 8\), labels \(6,\); allowed for this data set: \(N, 3, 8, 8\)"),
        (lambda f, x, y: torch.save(x[:5], f / "images_best.pt"), r"images \(5, 3, 8, 8\), labels \(6,\)"),
        (lambda f, x, y: torch.save(x / 0, f / "images_best.pt"), "images with 1152 numbers that are not finite"),
        (lambda f, x, y: torch.save(y + 1, f / "labels_best.pt"), "labels from 1 to 3; allowed: 0 to 2"),
        (lambda f, x, y: torch.save(y * 0.5, f / "labels_best.pt"), "labels that are not whole numbers"),
        (lambda f, x, y: [torch.save(value[:0], f / f"{name}_best.pt") for name, value in (("images", x), ("labels", y))], "0 to 0 images a class"),
        (lambda f, x, y: torch.save(y.clamp(max=1), f / "labels_best.pt"), "0 to 4 images a class, but the row's ipc is 2"),
        (lambda f, x, y: [file.unlink() for file in f.iterdir()], "no distilled set; allowed: images_best.pt with labels_best.pt"),
        (lambda f, x, y: torch.save({"images": x}, f / "images_best.pt"), "images_best.pt: expected a tensor but got dict"),
    ],
)
def test_a_set_that_cannot_be_used_is_refused(spoil, expected, prepared, pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spoil(as_mtt(tmp_path / "in", *pair), *pair)
    with pytest.raises(UserError, match=expected) as caught:
        take_in(prepared, tmp_path / "in", tmp_path / "out")
    assert len(str(caught.value).splitlines()) == 1 and str(tmp_path / "in") in str(caught.value)
    assert not (tmp_path / "out").exists() and not (tmp_path / "this-must-not-be-there").exists()


def test_another_dict_than_dcs_is_refused(prepared, pair, tmp_path):
    (tmp_path / "in").mkdir()
    torch.save({"data": [3]}, tmp_path / "in" / "res_x.pt")
    with pytest.raises(UserError, match="res_x.pt: expected a dict with `data`"):
        take_in(prepared, tmp_path / "in", tmp_path / "out")


def test_pictures_are_whitened_like_the_data_set(prepared, tmp_path):
    """The first two training pictures of each class, as a set: the very images that the split has."""
    source = prepared.parent / "train"
    for name in CLASSES:
        (tmp_path / "in" / name).mkdir(parents=True)
        for i in range(2):
            (tmp_path / "in" / name / f"{i}.png").write_bytes((source / name / f"{i}.png").read_bytes())
    made = take_in(prepared, tmp_path / "in", tmp_path / "out")
    split = load_split(prepared, "train")
    rows = [0, 1, 10, 11, 20, 21]
    assert torch.allclose(made["images"], split.images[rows], atol=1e-5) and made["labels"].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("how, expected", [("class", "only in one of them: cow, dog"), ("size", r"9x8 pixels; allowed for this data set: 8x8"), ("text", "not a readable image")])
def test_pictures_that_cannot_be_used_are_refused(how, expected, prepared, tmp_path):
    for name in CLASSES:
        (tmp_path / "in" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "in" / name / "0.png")
    if how == "class":
        (tmp_path / "in" / "cow").rename(tmp_path / "in" / "dog")
    elif how == "size":
        Image.new("RGB", (9, 8)).save(tmp_path / "in" / "bee" / "0.png")
    else:
        (tmp_path / "in" / "bee" / "0.png").write_text("a bee")
    with pytest.raises(UserError, match=expected):
        take_in(prepared, tmp_path / "in", tmp_path / "out", ipc=1)


def test_out_and_in_again_gives_the_same_logits(prepared, pair, tmp_path):
    first = take_in(prepared, as_ours(tmp_path / "in", *pair), tmp_path / "made")
    export(tmp_path / "made" / "set.safetensors", prepared, tmp_path / "exported")
    (tmp_path / "pt").mkdir()
    for file in ("images_best.pt", "labels_best.pt"):
        (tmp_path / "exported" / file).rename(tmp_path / "pt" / file)
    network = ConvNet(3, 8, 3, 4, 2).eval()
    with torch.no_grad():
        expected = network(first["images"])
        for folder in ("exported", "pt"):
            assert torch.equal(network(take_in(prepared, tmp_path / folder, tmp_path / f"again-{folder}")["images"]), expected)


def test_exported_pictures_are_the_images_to_eight_bits(prepared, pair, tmp_path):
    split = load_split(prepared, "train")
    made = take_in(prepared, as_mtt(tmp_path / "in", split.images[[0, 10, 20]], torch.arange(3)), tmp_path / "made", ipc=1)
    export(tmp_path / "made" / "set.safetensors", prepared, tmp_path / "exported")
    original = (load_transform(prepared).backward(made["images"]) * 255).round().permute(0, 2, 3, 1).numpy()
    for k, name in enumerate(CLASSES):
        (file,) = (tmp_path / "exported" / "pictures" / name).iterdir()
        assert np.abs(np.asarray(Image.open(file)).astype(float) - original[k]).max() <= 1
    with pytest.raises(UserError, match="exported: exists"):
        export(tmp_path / "made" / "set.safetensors", prepared, tmp_path / "exported")
    assert not [f for f in tmp_path.iterdir() if f.name.startswith(".")]


def plain_accuracy(images, labels, test, seed) -> float:
    """What anybody would write: modules and an optimiser of PyTorch, nothing of this project."""
    torch.manual_seed(seed)
    blocks = []
    for channels in (1, 16):
        blocks += [nn.Conv2d(channels, 16, 3, padding=1), nn.InstanceNorm2d(16, affine=True), nn.ReLU(), nn.AvgPool2d(2)]
    network = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64, 10))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for _ in range(100):
        order = torch.randperm(len(labels))
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(images[order]), labels[order]).backward()
        optimiser.step()
    with torch.no_grad():
        return float((network.eval()(test.images).argmax(1) == test.labels).float().mean())


def test_an_exported_set_trains_plain_pytorch_networks_to_the_same_accuracy(tmp_path):
    prepare(ImageSettings(source="digits", whitening="zca"), tmp_path / "prepared")
    network, scratch = NetworkSettings(width=16, depth=2), tmp_path / "scratch"
    loops = {"iterations": 3, "outer_loops": 5, "inner_loops": 5, "lr_net": 0.2}
    row = DistillRow(dataset="digits", backbone="dsa", ipc=10, reads="nothing", mdt=0, distill=loops)
    distill(row, "digits-dsa", network, tmp_path / "prepared", tmp_path, tmp_path / "made", 0, CPU, scratch)
    export(tmp_path / "made" / "set.safetensors", tmp_path / "prepared", tmp_path / "exported")
    images, labels = (torch.load(tmp_path / "exported" / f"{name}_best.pt", weights_only=True) for name in ("images", "labels"))
    test, repeats = load_split(tmp_path / "prepared", "test"), 8
    theirs = [plain_accuracy(images, labels, test, seed) for seed in range(repeats)]

    settings = TrainSettings.model_validate(yaml.safe_load((ROOT / "params.yaml").read_text())["train"] | {"repeats": repeats, "losses": ["cross_entropy"]})
    schedule = TrainRow(epochs=100, lr=0.05, augment=False)
    train_row(schedule, "digits-dsa", settings, network, tmp_path / "prepared", tmp_path / "made" / "set.safetensors", tmp_path / "train", 0, CPU, scratch)
    logits = load_file(tmp_path / "train" / "logits.safetensors")
    ours = (logits["cross_entropy"].argmax(2) == logits["labels"]).float().mean(1)
    spread = (ours.var() + torch.tensor(theirs).var()).sqrt() / repeats**0.5
    assert abs(float(ours.mean()) - float(np.mean(theirs))) < 4 * float(spread) < 0.03 and float(ours.mean()) > 0.85


# Expert trajectories of MTT's own code


def replay_buffers(folder, counts=(2, 1), epochs=3):
    """As its buffer.py writes them: a list of experts a file, each a list of snapshots, each a list of parameters."""
    folder.mkdir()
    made, networks = [], [ConvNet(3, 8, 3, 4, 2) for _ in range(sum(counts) * (epochs + 1))]
    for n, count in enumerate(counts):
        trajectories = [[[p.detach().clone() for p in networks.pop().parameters()] for _ in range(epochs + 1)] for _ in range(count)]
        torch.save(trajectories, folder / f"replay_buffer_{n}.pt")
        made += trajectories
    return made


def test_replay_buffers_become_trajectories(prepared, tmp_path):
    made = replay_buffers(tmp_path / "in")
    take_in_buffer(ImportedBuffer(dataset="animals", files=str(tmp_path / "in"), epochs=2), NETWORK, prepared, tmp_path / "out", "mtt")
    snapshots = load_file(tmp_path / "out" / "trajectories.safetensors")["snapshots"]
    assert snapshots.shape[:2] == (3, 3)
    network, x = ConvNet(3, 8, 3, 4, 2), torch.randn(2, 3, 8, 8)
    for p, value in zip(network.parameters(), made[2][1]):
        p.data = value
    flat = FlatNetwork(ConvNet(3, 8, 3, 4, 2))
    assert torch.allclose(flat(snapshots[2, 1], x), network(x), atol=1e-6)
    assert (tmp_path / "out" / "curve.csv").read_text().splitlines()[0] == "epoch,accuracy"


@pytest.mark.parametrize(
    "spoil, expected",
    [
        (lambda f: (f / "replay_buffer_1.pt").write_bytes((f / "replay_buffer_1.pt").read_bytes()[:2000]), "replay_buffer_1.pt: cannot be read as tensors"),
        (lambda f: torch.save(Code(), f / "replay_buffer_1.pt"), "replay_buffer_1.pt: cannot be read as tensors"),
        (lambda f: torch.save({"x": 3}, f / "replay_buffer_1.pt"), "replay_buffer_1.pt: expected a list of trajectories"),
        (lambda f: torch.save([[[torch.zeros(3)]]], f / "replay_buffer_1.pt"), "replay_buffer_1.pt: snapshots of another network"),
        (lambda f: [file.unlink() for file in f.iterdir()], "buffers.mtt.files: .* has no replay_buffer"),
        (lambda f: torch.save([[[p.detach() / 0 for p in ConvNet(3, 8, 3, 4, 2).parameters()]] * 4], f / "replay_buffer_1.pt"), "not finite"),
        (lambda f: torch.save([[[p.detach() for p in ConvNet(3, 8, 3, 4, 2).parameters()]] * 4], f / "replay_buffer_1.pt"), "stands still; MTT's code, run on a CPU"),
    ],
)
def test_replay_buffers_that_cannot_be_used_are_refused(spoil, expected, prepared, tmp_path):
    replay_buffers(tmp_path / "in")
    spoil(tmp_path / "in")
    with pytest.raises(UserError, match=expected):
        take_in_buffer(ImportedBuffer(dataset="animals", files=str(tmp_path / "in"), epochs=3), NETWORK, prepared, tmp_path / "out", "mtt")
    assert not (tmp_path / "out").exists()


def test_replay_buffers_that_are_too_short(prepared, tmp_path):
    replay_buffers(tmp_path / "in")
    with pytest.raises(UserError, match="a trajectory of 3 epochs; allowed for buffers.mtt.epochs: at most that, not 4"):
        take_in_buffer(ImportedBuffer(dataset="animals", files=str(tmp_path / "in"), epochs=4), NETWORK, prepared, tmp_path / "out", "mtt")
