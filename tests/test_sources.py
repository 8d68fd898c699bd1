"""The paper's data sets: their layouts, their archives, and what is refused."""

import hashlib
import pickle
import shutil
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import outside
from PIL import Image
from torchvision.datasets import CIFAR10

from stages.prepare import channel_moments, prepare
from stages.shared import archives, files, sources
from stages.shared.archives import ARCHIVES, Archive, data_root, download, locate
from stages.shared.errors import UserError, run_stage
from stages.shared.images import load_split
from stages.shared.sources import ImageSettings, find_images, read_images


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory) -> Path:
    """Everything in ../shared/data, as a data root."""
    root = tmp_path_factory.mktemp("raw")
    for archive in outside("DATA_DIR", "data").glob("*.zip"):
        zipfile.ZipFile(archive).extractall(root)
    return root


# counts of train and test, side, classes, first and last class, mean and std per channel of the training images in [0, 1]:
# of CIFAR the published ones, of the subsets those that Pillow and NumPy find
FACTS = {
    "cifar10": (50_000, 10_000, 32, 10, "airplane", "truck", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": (50_000, 10_000, 32, 100, "apple", "worm", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "tinyimagenet": (4_000, 1_000, 64, 200, "n01443537", "n12267677", (0.4812, 0.4488, 0.3976), (0.2768, 0.2703, 0.2823)),
    "imagenette": (600, 200, 128, 10, "n01440764", "n03888257", (0.4628, 0.4564, 0.4319), (0.2731, 0.2700, 0.2922)),
}


@pytest.mark.parametrize("name", FACTS)
def test_a_data_set_is_what_it_should_be(name, unpacked):
    train, test, side, count, first, last, mean, std = FACTS[name]
    settings = ImageSettings(source=name, resize=128 if name == "imagenette" else None)
    classes, splits = read_images(settings, "images", unpacked)
    assert len(classes) == count and (classes[0], classes[-1]) == (first, last) and classes == sorted(classes)
    for split, size in (("train", train), ("test", test)):
        assert splits[split].images.shape == (size, 3, side, side) and splits[split].images.dtype == np.uint8
        assert np.bincount(splits[split].labels).tolist() == [size // count] * count
    ours = channel_moments(torch.from_numpy(splits["train"].images))
    assert np.allclose(ours[0], mean, atol=1e-4) and np.allclose(ours[1], std, atol=1e-4)


def test_tiny_imagenets_validation_images_have_the_classes_of_its_text_file(unpacked):
    lines = [line.split("\t")[:2] for line in (unpacked / "tiny-imagenet-200/val/val_annotations.txt").read_text().splitlines()]
    source = find_images(ImageSettings(source="tinyimagenet"), "images", unpacked)
    ours = {file.name: source.classes[k] for k, found in enumerate(source.files["test"]) for file in found}
    there = {file: name for file, name in lines if (unpacked / "tiny-imagenet-200/val/images" / file).exists()}
    assert ours == there and len(ours) == 1000


def test_tiny_imagenets_own_test_images_are_left_alone(unpacked, tmp_path):
    """They have no labels: the archive keeps them all in test/images."""
    shutil.copytree(unpacked / "tiny-imagenet-200", tmp_path / "tiny-imagenet-200")
    shutil.copytree(unpacked / "tiny-imagenet-200/val/images", tmp_path / "tiny-imagenet-200/test/images")
    source = find_images(ImageSettings(source="tinyimagenet"), "images", tmp_path)
    assert len(source.classes) == 200 and sum(len(files) for files in source.files["test"]) == 1000


def test_imagenette_is_cut_from_the_middle(unpacked):
    settings = ImageSettings(source="imagenette", resize=128)
    file = find_images(settings, "images", unpacked).files["train"][0][0]
    from torchvision.transforms.v2 import functional as F

    picture = Image.open(file).convert("RGB")
    plain = np.asarray(F.center_crop(F.resize(picture, 128), 128), np.float32)
    _, splits = read_images(settings, "images", unpacked)
    assert np.abs(splits["train"].images[0].transpose(1, 2, 0) - plain).mean() < 4  # of 255: another resampling of the same part


def fake_cifar(folder: Path, monkeypatch) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10's archive in miniature, and torchvision told of its checksums."""
    base, rng = folder / "cifar-10-batches-py", np.random.default_rng(0)
    base.mkdir(parents=True)
    images, labels = rng.integers(0, 256, (60, 3072), np.uint8), np.arange(60) % 10
    parts = {f"data_batch_{i}": slice(10 * (i - 1), 10 * i) for i in range(1, 6)} | {"test_batch": slice(50, 60)}
    for name, rows in parts.items():
        (base / name).write_bytes(pickle.dumps({"data": images[rows], "labels": labels[rows].tolist()}))
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    md5 = {name: hashlib.md5((base / name).read_bytes()).hexdigest() for name in (*parts, "batches.meta")}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5[name]] for name in parts if name != "test_batch"])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5["batches.meta"]})
    return images, labels


def test_cifar_is_read_as_its_archive_has_it(tmp_path, monkeypatch):
    images, labels = fake_cifar(tmp_path, monkeypatch)
    classes, splits = read_images(ImageSettings(source="cifar10"), "images", tmp_path)
    assert classes[3] == "cat"
    assert np.array_equal(splits["train"].images.reshape(50, -1), images[:50]) and np.array_equal(splits["test"].labels, labels[50:])
    prepare(ImageSettings(source="cifar10"), tmp_path / "out", root=tmp_path)
    assert load_split(tmp_path / "out", "train").images.shape == (50, 3, 32, 32)


@pytest.mark.parametrize("layout", ["archive", "folders", "digits"])
def test_a_few_images_of_each_class(layout, tmp_path, monkeypatch, unpacked):
    if layout == "archive":
        images, labels = fake_cifar(tmp_path, monkeypatch)
        settings, root, first = ImageSettings(source="cifar10", per_class=2), tmp_path, images[0]
    elif layout == "folders":
        settings, root = ImageSettings(source="imagenette", per_class=2, resize=16), unpacked
        first = read_images(settings.model_copy(update={"per_class": None}), "images", root)[1]["train"].images[0]
    else:
        settings, root = ImageSettings(source="digits", per_class=2), tmp_path
        first = read_images(ImageSettings(source="digits"), "images", root)[1]["train"].images[0]
    source, (classes, splits) = find_images(settings, "images", root), read_images(settings, "images", root)
    assert source.counts == [2] * 10 and len(classes) == 10
    for split in splits.values():
        assert len(split.images) == len(split.labels) and max(np.bincount(split.labels, minlength=10)) <= 2
    assert np.bincount(splits["train"].labels).tolist() == [2] * 10 and np.array_equal(splits["train"].images[0].reshape(-1), first.reshape(-1))


def test_pictures_are_decoded_once(unpacked, tmp_path, monkeypatch):
    """A second run reads what the first has decoded; another size, or a file that has changed, is decoded anew."""
    decodings, decode = [], sources._decode
    monkeypatch.setattr(sources, "_decode", lambda path, settings: decodings.append(path) or decode(path, settings))
    shutil.copytree(unpacked / "imagenette2-160", tmp_path / "imagenette2-160")
    settings, counts, read = ImageSettings(source="imagenette", resize=16, per_class=3), [], []
    for change in (None, None, "size", "file"):
        if change == "size":
            settings = settings.model_copy(update={"resize": 12})
        if change == "file":
            file = sorted((tmp_path / "imagenette2-160/train/n01440764").iterdir())[1]
            Image.new("RGB", (20, 20), "red").save(file)
        decodings.clear()
        read.append(read_images(settings, "images", tmp_path, tmp_path / "cache")[1])
        counts.append(len(decodings))
    assert counts == [62, 0, 62, 31]  # two splits of 30, and the first of each twice: for its shape
    assert all(np.array_equal(read[0][split].images, read[1][split].images) for split in ("train", "test"))
    assert (read[3]["train"].images[1] == np.array([254, 0, 0])[:, None, None]).all() and np.array_equal(read[3]["test"].images, read[2]["test"].images)


def test_cifar_with_a_byte_changed_is_refused(tmp_path, monkeypatch):
    fake_cifar(tmp_path, monkeypatch)
    file = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="cifar-10-batches-py: .*corrupted"):
        prepare(ImageSettings(source="cifar10"), tmp_path / "out", root=tmp_path)
    assert not (tmp_path / "out").exists()


# Archives


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def published(tmp_path, monkeypatch, unpacked):
    """A small archive of 3 classes as Imagenette's, with its own checksum, on a server of this machine."""
    source = tmp_path / "elsewhere"
    for split in ("train", "val"):
        for folder in sorted((unpacked / "imagenette2-160" / split).iterdir())[:3]:
            shutil.copytree(folder, source / "imagenette2-160" / split / folder.name)
    file = Path(shutil.make_archive(str(tmp_path / "imagenette2-160"), "gztar", source)).rename(tmp_path / "imagenette2-160.tgz")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{file.name}"
        monkeypatch.setitem(ARCHIVES, "imagenette", Archive(address, hashlib.md5(file.read_bytes()).hexdigest(), "imagenette2-160"))
        yield file
        server.shutdown()


def test_a_set_that_is_not_there_is_fetched_once(published, tmp_path, monkeypatch):
    root, settings = tmp_path / "root", ImageSettings(source="imagenette", resize=16)
    assert find_images(settings, "images", root) is None
    classes, splits = read_images(settings, "images", root)
    assert len(classes) == 3 and splits["train"].images.shape == (180, 3, 16, 16)
    assert {f.name for f in root.iterdir()} == {"imagenette2-160", "imagenette2-160.tgz"}
    monkeypatch.setattr(archives, "download", lambda *_: pytest.fail("fetched again"))
    assert len(read_images(settings, "images", root)[0]) == 3


def test_an_archive_on_disk_is_not_fetched(published, tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    shutil.copy(published, root)
    monkeypatch.setattr("torchvision.datasets.utils.download_url", lambda *_: pytest.fail("fetched"))
    assert download("imagenette", root, "images") == root / "imagenette2-160"


@pytest.mark.parametrize("how", ["no network", "another file at the address", "cut in half on disk", "not an archive"])
def test_an_archive_that_cannot_be_had(how, published, tmp_path, monkeypatch):
    root, archive = tmp_path / "root", ARCHIVES["imagenette"]
    root.mkdir()
    if how == "no network":
        monkeypatch.setitem(ARCHIVES, "imagenette", archive._replace(url="http://127.0.0.1:9/imagenette2-160.tgz"))
        expected = r"is not in .*root \(looked for imagenette2-160 and imagenette\) and could not be fetched: .*\n.*curl -L -o .*imagenette2-160.tgz http://127"
    elif how == "another file at the address":
        published.write_bytes(published.read_bytes() + b"more")
        expected = "could not be fetched: .*corrupted"
    elif how == "cut in half on disk":
        (root / published.name).write_bytes(published.read_bytes()[:50_000])
        expected = "imagenette2-160.tgz: not the published file .its md5 is not"
    else:
        published.write_bytes(b"no archive at all")
        monkeypatch.setitem(ARCHIVES, "imagenette", archive._replace(md5=hashlib.md5(published.read_bytes()).hexdigest()))
        expected = "imagenette2-160.tgz: cannot be unpacked"
    before = {f.name for f in root.iterdir()}
    with pytest.raises(UserError, match=expected):
        read_images(ImageSettings(source="imagenette", resize=16), "images", root)
    assert {f.name for f in root.iterdir()} - before <= {"imagenette2-160.tgz"}, "no half of anything is left"
    assert not (root / "imagenette2-160").exists()


def test_the_environment_wins_over_the_setting(monkeypatch):
    monkeypatch.delenv("DATA_ROOT", raising=False)
    assert data_root("data/raw") == Path("data/raw")
    monkeypatch.setenv("DATA_ROOT", "/elsewhere")
    assert data_root("data/raw") == Path("/elsewhere")


def test_the_archives_layout_comes_before_a_folder_of_the_sets_name(tmp_path):
    (tmp_path / "cifar10").mkdir()
    assert locate("cifar10", tmp_path) == tmp_path / "cifar10"
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert locate("cifar10", tmp_path) == tmp_path / "cifar-10-batches-py" and locate("cifar100", tmp_path) is None


# Disks


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "train").mkdir()
    monkeypatch.setattr(Path, "iterdir", lambda self: (_ for _ in ()).throw(PermissionError(13, "Permission denied", str(self))))
    with pytest.raises(UserError, match="train: Permission denied"):
        find_images(ImageSettings(source=str(tmp_path)), "images", tmp_path)


def test_a_full_disk_leaves_nothing_half_written(tmp_path, capsys):
    target = Path("/dev/full")
    if not target.exists():
        pytest.skip("needs /dev/full")

    def write(*_):
        with files.replacing(tmp_path / "set.safetensors") as temporary:
            temporary.symlink_to(target)
            temporary.write_bytes(bytes(10_000))

    with pytest.raises(SystemExit, match="error: .*No space left on device"):
        run_stage(write)
    assert not list(tmp_path.iterdir())


def test_tensors_on_a_full_disk(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(*_, **__):
        raise SafetensorError("Error while serializing: IoError(No space left on device)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="set.safetensors: .*No space left"):
        files.write_tensors(tmp_path / "set.safetensors", {"x": torch.zeros(1)})
    assert not list(tmp_path.iterdir())
