"""Images: data sets and their archives, folders of pictures, masks, draws of images and augmentations."""

import hashlib
import math
import os
import pickle
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, outside
from PIL import Image
from project import make_project, row, run, suite
from torchvision.datasets import CIFAR10

from stages.images import decoded, masking
from stages.images.archives import ARCHIVES, Archive, data_root, download, locate
from stages.images.augment import OPERATIONS, Draw, augment, augment_each, draw, draws_of
from stages.images.digits import COUNTS, Digits
from stages.images.masking import Masks, mask_images
from stages.images.pixels import to_pixels
from stages.images.prepared import Transform, load_split
from stages.images.sampling import chunks_of, held_out, kept, per_class, share_of
from stages.images.sources import find_images, read_images
from stages.prepare import channel_moments, fit_transform, prepare, prepare_images
from stages.runtime.errors import UserError
from stages.runtime.randomness import generator
from stages.settings.images import ImageSettings
from stages.settings.rows import Dataset

# ---- the paper's data sets ----


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory) -> Path:
    """What is in ../shared/data as a data root, but of CIFAR-100's 60,000 files every tenth."""
    root = tmp_path_factory.mktemp("raw")
    for file in outside("DATA_DIR", "data").glob("*.zip"):
        with zipfile.ZipFile(file) as archive:
            step = 10 if file.name.startswith("cifar100-") else 1
            archive.extractall(root, sorted(archive.namelist())[::step])
    return root


# Training and test images, side, classes, first and last class; mean and standard deviation of each channel
# of the training images in [0, 1]: as published for CIFAR, as Pillow and NumPy give them for the subsets.
# At last how far from the published ones those may be that are found.
FACTS = {
    "cifar10": (
        (50_000, 10_000, 32, 10, "airplane", "truck"),
        ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        1e-4,
    ),
    "cifar100": (
        (5_000, 1_000, 32, 100, "apple", "worm"),
        ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
        5e-3,
    ),
    "tinyimagenet": (
        (4_000, 1_000, 64, 200, "n01443537", "n12267677"),
        ((0.4812, 0.4488, 0.3976), (0.2768, 0.2703, 0.2823)),
        1e-4,
    ),
    "imagenette": (
        (600, 200, 128, 10, "n01440764", "n03888257"),
        ((0.4628, 0.4564, 0.4319), (0.2731, 0.2700, 0.2922)),
        1e-4,
    ),
}


@pytest.mark.parametrize("name", FACTS)
def test_a_data_set_is_what_it_should_be(name, unpacked):
    (train, test, side, count, first, last), (mean, std), tolerance = FACTS[name]
    settings = ImageSettings(source=name, resize=128 if name == "imagenette" else None)
    classes, splits = read_images(settings, "images", unpacked)
    assert len(classes) == count
    assert (classes[0], classes[-1]) == (first, last)
    assert classes == sorted(classes)
    for split, size in (("train", train), ("test", test)):
        images, labels = splits[split]
        assert images.shape == (size, 3, side, side)
        assert images.dtype == np.uint8
        assert np.bincount(labels).tolist() == [size // count] * count
    found_mean, found_std = channel_moments(torch.from_numpy(splits["train"].images))
    assert np.allclose(found_mean, mean, rtol=0, atol=tolerance)
    assert np.allclose(found_std, std, rtol=0, atol=tolerance)


def test_the_counts_of_the_digits_are_those_of_their_training_split():
    digits = Digits(ImageSettings(source="digits"))
    train = digits.read(None)["train"]
    assert np.bincount(train.labels).tolist() == COUNTS == digits.counts


def test_tiny_imagenets_validation_images_have_the_classes_of_its_text_file(unpacked):
    val = unpacked / "tiny-imagenet-200" / "val"
    expected = {}
    for line in (val / "val_annotations.txt").read_text().splitlines():
        file, name, *_ = line.split("\t")
        if (val / "images" / file).exists():
            expected[file] = name
    source = find_images(ImageSettings(source="tinyimagenet"), "images", unpacked)
    names = {}
    for name, files in source.files["test"].items():
        names |= {file.name: name for file in files}
    assert names == expected
    assert len(names) == 1000


def test_tiny_imagenets_own_test_images_are_left_alone(unpacked, tmp_path):
    """They have no labels: the archive keeps them all in test/images."""
    tiny = tmp_path / "tiny-imagenet-200"
    shutil.copytree(unpacked / "tiny-imagenet-200", tiny)
    shutil.copytree(tiny / "val" / "images", tiny / "test" / "images")
    source = find_images(ImageSettings(source="tinyimagenet"), "images", tmp_path)
    assert len(source.classes) == 200
    assert sum(len(files) for files in source.files["test"].values()) == 1000


def test_imagenette_is_cut_from_the_middle(unpacked):
    from torchvision.transforms.v2 import functional as F

    settings = ImageSettings(source="imagenette", resize=128)
    source = find_images(settings, "images", unpacked)
    file = source.files["train"]["n01440764"][0]
    picture = Image.open(file).convert("RGB")
    theirs = np.asarray(F.center_crop(F.resize(picture, 128), 128), np.float32)
    ours = source.read(None)["train"].images[0].transpose(1, 2, 0)
    assert np.abs(ours - theirs).mean() < 4, "of 255: the same part in another resampling"


def fake_cifar(folder: Path, monkeypatch) -> tuple[np.ndarray, np.ndarray]:
    """Write CIFAR-10's archive in miniature, and tell torchvision its checksums."""
    base = folder / "cifar-10-batches-py"
    base.mkdir(parents=True)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 3072), np.uint8)
    labels = np.arange(60) % 10
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    contents = {"batches.meta": {"label_names": names}}
    batches = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for i, batch in enumerate(batches):
        rows = slice(10 * i, 10 * i + 10)
        contents[batch] = {"data": images[rows], "labels": labels[rows].tolist()}
    md5 = {}
    for name, content in contents.items():
        data = pickle.dumps(content)
        (base / name).write_bytes(data)
        md5[name] = hashlib.md5(data).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [[batch, md5[batch]] for batch in batches[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5["batches.meta"]})
    return images, labels


def test_cifar_is_read_as_its_archive_has_it(tmp_path, monkeypatch):
    images, labels = fake_cifar(tmp_path, monkeypatch)
    settings = ImageSettings(source="cifar10")
    classes, splits = read_images(settings, "images", tmp_path)
    assert classes[3] == "cat"
    assert np.array_equal(splits["train"].images.reshape(50, -1), images[:50])
    assert np.array_equal(splits["test"].labels, labels[50:])
    prepare_images(settings, tmp_path / "out", root=tmp_path)
    assert load_split(tmp_path / "out", "train").images.shape == (50, 3, 32, 32)


def test_cifar_with_a_byte_changed_is_refused(tmp_path, monkeypatch):
    fake_cifar(tmp_path, monkeypatch)
    file = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="cifar-10-batches-py: .*corrupted"):
        prepare_images(ImageSettings(source="cifar10"), tmp_path / "out", root=tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["cifar10", "imagenette", "digits"])
def test_the_first_images_of_each_class_are_kept(name, tmp_path, monkeypatch, unpacked):
    root = unpacked
    if name == "cifar10":
        fake_cifar(tmp_path, monkeypatch)
        root = tmp_path
    everything = ImageSettings(source=name, resize=16 if name == "imagenette" else None)
    settings = everything.model_copy(update={"per_class": 2})
    _, all_splits = read_images(everything, "images", root)
    classes, splits = read_images(settings, "images", root)
    assert len(classes) == 10
    assert find_images(settings, "images", root).counts == [2] * 10
    assert np.bincount(splits["train"].labels).tolist() == [2] * 10
    assert max(np.bincount(splits["test"].labels)) <= 2
    assert np.array_equal(splits["train"].images[0], all_splits["train"].images[0])
    for split in splits.values():
        assert len(split.images) == len(split.labels)


def test_the_archives_folder_comes_before_one_of_the_data_sets_name(tmp_path):
    (tmp_path / "cifar10").mkdir()
    assert locate("cifar10", tmp_path) == tmp_path / "cifar10"
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert locate("cifar10", tmp_path) == tmp_path / "cifar-10-batches-py"
    assert locate("cifar100", tmp_path) is None


def test_the_environment_wins_over_the_setting(monkeypatch):
    monkeypatch.delenv("DATA_ROOT", raising=False)
    assert data_root("data/raw") == Path("data/raw")
    monkeypatch.setenv("DATA_ROOT", "/elsewhere")
    assert data_root("data/raw") == Path("/elsewhere")


def test_looking_at_the_digits_imports_neither_torch_nor_scikit_learn():
    code = """
import sys
from pathlib import Path
from stages.images.archives import data_root
from stages.images.sources import find_images
from stages.settings.images import ImageSettings
find_images(ImageSettings(source="digits"), "images", data_root("data/raw"))
print(sorted({"torch", "torchvision", "sklearn", "PIL"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- folders of pictures ----


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes of random pictures: three and two to train on, one each to test on."""
    rng = np.random.default_rng(0)
    counts = {"train/ant": 3, "train/bee": 2, "test/ant": 1, "test/bee": 1}
    for name, count in counts.items():
        (tmp_path / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (12, 12, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    return tmp_path


def settings_of(folder: Path, **values) -> ImageSettings:
    return ImageSettings(source=str(folder), **values)


def test_a_folder_is_read_as_it_is(folder):
    classes, splits = read_images(settings_of(folder), "images", folder)
    assert classes == ["ant", "bee"]
    images, labels = splits["train"]
    assert images.shape == (5, 3, 12, 12)
    assert labels.tolist() == [0, 0, 0, 1, 1]
    original = np.asarray(Image.open(folder / "train" / "bee" / "1.png"))
    assert np.array_equal(images[4], original.transpose(2, 0, 1))


def test_pictures_are_resized_and_made_gray(folder):
    Image.new("RGB", (20, 14)).save(folder / "train" / "ant" / "0.png")
    _, splits = read_images(settings_of(folder, resize=8, color="gray"), "images", folder)
    assert splits["train"].images.shape == (5, 1, 8, 8)


def spoil(folder: Path, how: str) -> None:
    ant = folder / "train" / "ant"
    if how == "empty class":
        shutil.rmtree(ant)
        ant.mkdir()
    elif how == "one class":
        shutil.rmtree(ant)
    elif how == "no test":
        shutil.rmtree(folder / "test")
    elif how == "class only in train":
        (folder / "train" / "cat").mkdir()
        shutil.copy(ant / "0.png", folder / "train" / "cat")
    elif how == "text as picture":
        (ant / "1.png").write_text("not a picture")
    elif how == "truncated":
        file = ant / "1.png"
        file.write_bytes(file.read_bytes()[:150])
    elif how == "sizes":
        Image.new("RGB", (13, 13)).save(ant / "1.png")
    elif how == "not square":
        Image.new("RGB", (13, 12)).save(ant / "0.png")


@pytest.mark.parametrize(
    "how, expected",
    [
        ("empty class", "train/ant has no images"),
        ("one class", "train has 1 class folders"),
        ("no test", "test is missing"),
        ("class only in train", "class 'cat' is in only one"),
        ("text as picture", "train/ant/1.png: not a readable image"),
        ("truncated", "train/ant/1.png: not a readable image"),
        ("sizes", "train/ant/1.png has 13x13 pixels"),
        ("not square", "set images.resize"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(folder, how, expected):
    spoil(folder, how)
    with pytest.raises(UserError) as caught:
        read_images(settings_of(folder), "images", folder)
    assert expected in str(caught.value)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_pictures_of_more_than_8_bits_a_channel_are_refused(mode, tmp_path):
    Image.new(mode, (8, 8), 60_000).save(tmp_path / "deep.tiff")
    with pytest.raises(UserError, match="deep.tiff: .*more than 8 bits a channel"):
        decoded.open_picture(tmp_path / "deep.tiff", "L")


def test_a_channel_without_any_contrast_is_refused():
    images = torch.randint(0, 256, (20, 3, 8, 8), generator=generator("pixels")).byte()
    images[:, 1] = 7
    for whitening in ("none", "zca", "gcn-zca"):
        settings = ImageSettings(source="pictures", whitening=whitening)
        with pytest.raises(UserError, match="x.source: channel 1 has the same value in all training images"):
            fit_transform(images, settings, "x")


@pytest.mark.parametrize("key, value", [("resize", 16), ("color", "gray")])
def test_what_changes_pictures_is_refused_for_the_digits(key, value):
    settings = ImageSettings(source="digits", **{key: value})
    with pytest.raises(UserError, match=f"x.{key}: {value}; allowed"):
        find_images(settings, "x", Path())


def test_the_home_folder_may_be_named_by_its_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DATA_ROOT", raising=False)
    assert data_root("~/copies") == tmp_path / "copies"


def test_a_folder_is_looked_at_without_decoding_it(folder):
    spoil(folder, "text as picture")
    assert find_images(settings_of(folder), "images", folder).counts == [3, 2]


def test_a_folder_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    def refuse(self: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "train").mkdir()
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match="train: Permission denied"):
        find_images(settings_of(tmp_path), "images", tmp_path)


def test_a_source_that_is_nothing_is_refused(tmp_path):
    with pytest.raises(
        UserError, match="'data/no-such' is no data set and no folder; allowed: digits, cifar10"
    ):
        find_images(ImageSettings(source="data/no-such"), "images", tmp_path)


def test_pictures_are_decoded_once(folder, monkeypatch):
    """A second run reads what the first has decoded. Another size, or a changed file, is decoded anew."""
    decodings = []
    decode = decoded._decode

    def counted(file: Path, settings: ImageSettings) -> np.ndarray:
        decodings.append(file)
        return decode(file, settings)

    def read(settings: ImageSettings) -> tuple[int, np.ndarray]:
        """The number of pictures that were decoded, and the training images."""
        decodings.clear()
        _, splits = read_images(settings, "images", folder, folder / "cache")
        return len(decodings), splits["train"].images

    monkeypatch.setattr(decoded, "_decode", counted)
    settings = settings_of(folder, resize=8)
    pictures = 7 + 2  # the first of each split is decoded twice, as its shape is needed before all others
    first_count, first = read(settings)
    second_count, second = read(settings)
    assert (first_count, second_count) == (pictures, 0)
    assert np.array_equal(first, second)
    smaller = settings_of(folder, resize=6)
    smaller_count, _ = read(smaller)
    assert smaller_count == pictures
    Image.new("RGB", (20, 20), "red").save(folder / "train" / "ant" / "1.png")
    changed_count, changed = read(smaller)
    assert changed_count == 5 + 1, "the training images alone"
    assert (changed[1] == np.array([255, 0, 0])[:, None, None]).all()


def test_pictures_that_change_places_are_decoded_anew(tmp_path):
    """Also where their sizes and times of change are the same."""
    files = [tmp_path / "0.bmp", tmp_path / "1.bmp"]
    for file, color in zip(files, ("red", "blue")):
        Image.new("RGB", (4, 4), color).save(file)
    settings = ImageSettings(source=str(tmp_path))
    before = decoded.read_pictures(files, settings, "images", tmp_path / "cache")
    contents = [file.read_bytes() for file in files]
    for file, other in zip(files, reversed(contents)):
        times = file.stat()
        file.write_bytes(other)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = decoded.read_pictures(files, settings, "images", tmp_path / "cache")
    assert np.array_equal(after, before[::-1]) and not np.array_equal(after, before)


# ---- archives ----

LOCK = ".imagenette2-160.lock"  # of the processes that unpack the archive


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def published(folder, tmp_path, monkeypatch) -> Iterator[Path]:
    """A small archive in place of Imagenette's, with its own checksum, on a server on this machine."""
    source = tmp_path / "elsewhere" / "imagenette2-160"
    shutil.copytree(folder / "train", source / "train")
    shutil.copytree(folder / "test", source / "val")
    made = shutil.make_archive(str(tmp_path / "imagenette2-160"), "gztar", source.parent)
    file = Path(made).rename(tmp_path / "imagenette2-160.tgz")
    handler = partial(QuietHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{file.name}"
        md5 = hashlib.md5(file.read_bytes()).hexdigest()
        monkeypatch.setitem(ARCHIVES, "imagenette", Archive(url, md5, source.name))
        yield file
        server.shutdown()


def test_a_data_set_that_is_not_on_disk_is_fetched_once(published, tmp_path, monkeypatch):
    root = tmp_path / "root"
    settings = ImageSettings(source="imagenette")
    assert find_images(settings, "images", root) is None
    classes, splits = read_images(settings, "images", root)
    assert classes == ["ant", "bee"]
    assert splits["train"].images.shape == (5, 3, 12, 12)
    assert {file.name for file in root.iterdir()} == {"imagenette2-160", "imagenette2-160.tgz", LOCK}
    monkeypatch.setattr("stages.images.sources.download", lambda *_: pytest.fail("fetched again"))
    classes, _ = read_images(settings, "images", root)
    assert classes == ["ant", "bee"]


def test_an_archive_on_disk_is_not_fetched(published, tmp_path, monkeypatch):
    """And what a killed process has left of an earlier try is deleted."""
    root = tmp_path / "root"
    (root / ".imagenette2-160-killed").mkdir(parents=True)
    shutil.copy(published, root)
    monkeypatch.setattr("torchvision.datasets.utils.download_url", lambda *_: pytest.fail("fetched"))
    assert download("imagenette", root, "images") == root / "imagenette2-160"
    assert not (root / ".imagenette2-160-killed").exists()


NOT_FETCHED = (
    r"is not in .*root \(looked for imagenette2-160 and imagenette\) and could not be fetched: .*\n"
    r".*curl -L -o .*imagenette2-160.tgz http://127"
)


@pytest.mark.parametrize(
    "how, expected",
    [
        ("no network", NOT_FETCHED),
        ("another file at the address", "could not be fetched: .*corrupted"),
        ("cut on disk", "imagenette2-160.tgz: not the published file .its md5 is not"),
        ("not an archive", "imagenette2-160.tgz: cannot be unpacked"),
    ],
)
def test_an_archive_that_cannot_be_had_leaves_no_part_of_it(how, expected, published, tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    archive = ARCHIVES["imagenette"]
    if how == "no network":
        archive = archive._replace(url="http://127.0.0.1:9/imagenette2-160.tgz")
    elif how == "another file at the address":
        published.write_bytes(published.read_bytes() + b"more")
    elif how == "cut on disk":
        half = published.read_bytes()[: published.stat().st_size // 2]
        (root / published.name).write_bytes(half)
    else:
        published.write_bytes(b"no archive at all")
        archive = archive._replace(md5=hashlib.md5(b"no archive at all").hexdigest())
    monkeypatch.setitem(ARCHIVES, "imagenette", archive)
    with pytest.raises(UserError, match=expected):
        read_images(ImageSettings(source="imagenette"), "images", root)
    assert {file.name for file in root.iterdir()} <= {"imagenette2-160.tgz", LOCK}


# ---- prepared images ----


def test_prepare_reads_the_settings_of_its_data_set(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "suites").mkdir()
    (folder / "suites" / "insects.yaml").write_text(
        "datasets: {insects: {suite: insects, images: {source: ., quarter_turns: 1}}}"
    )
    (folder / "params.yaml").write_text("data_root: raw")
    prepare(Dataset("insects"))
    turned = load_split(Path("data/prepare/insects"), "train")
    _, splits = read_images(settings_of(folder), "images", folder)
    expected = np.rot90(splits["train"].images, 1, (2, 3))
    assert np.array_equal(turned.images.pixels.numpy(), expected)
    assert turned.classes == 2
    assert list(Path("scratch/decoded").iterdir())


def test_a_mean_of_the_wrong_length_is_refused(folder):
    settings = settings_of(folder, mean=[0.5])
    with pytest.raises(
        UserError, match="images.mean: .0.5. has 1 numbers; allowed: one for each of 3 channels"
    ):
        prepare_images(settings, folder / "out")


@pytest.mark.parametrize("whitened", [False, True])
def test_backward_undoes_forward_in_torch_and_in_numpy(whitened):
    images = torch.rand(5, 3, 4, 4, generator=generator("images"))
    if whitened:
        mean = torch.rand(48, generator=generator("mean"))
        matrix = torch.eye(48) + torch.rand(48, 48, generator=generator("matrix")) / 100
        transform = Transform(mean, matrix, matrix.inverse())
    else:
        std = torch.tensor([0.5, 1.0, 2.0])
        transform = Transform(torch.tensor([0.1, 0.2, 0.3]), 1 / std, std)
    seen = transform.forward(images)
    assert torch.allclose(transform.backward(seen), images, atol=1e-5)
    in_numpy = to_pixels(seen.numpy(), transform.mean.numpy(), transform.inverse.numpy())
    assert np.allclose(in_numpy, images, atol=1e-5)


def photos(count: int) -> torch.Tensor:
    """uint8 images `(count, 3, 6, 6)` of different brightness and contrast, with correlated pixels."""
    draws = generator("photos")
    coarse = torch.randn(count, 3, 3, 3, generator=draws)
    smooth = torch.nn.functional.interpolate(coarse, size=(6, 6), mode="bilinear")
    contrast = 5 + 40 * torch.rand(count, 1, 1, 1, generator=draws)
    brightness = 60 + 130 * torch.rand(count, 1, 1, 1, generator=draws)
    return (brightness + contrast * smooth).round().clamp(0, 255).byte()


def whitened_by_numpy(train: np.ndarray, images: np.ndarray) -> np.ndarray:
    """RTP's whitening in float64, as its public code defines it, with NumPy's eigenvectors.

    Args:
        train: the images that it is fitted on, `(N, C, H, W)` in any unit.
    """

    def normalised(array: np.ndarray) -> np.ndarray:
        rows = array.reshape(len(array), -1).astype(np.float64)
        centred = rows - rows.mean(1, keepdims=True)
        return centred / np.sqrt((centred**2).sum(1, keepdims=True))

    fitted = normalised(train)
    values, vectors = np.linalg.eigh(fitted.T @ fitted / len(fitted))
    damped = values + 0.1 * values.mean()
    whitening = vectors @ np.diag(damped**-0.5) @ vectors.T
    return (normalised(images) @ whitening).reshape(images.shape)


GCN_ZCA = ImageSettings(source="digits", whitening="gcn-zca")


def test_gcn_zca_is_the_whitening_of_rtps_code():
    images = photos(60)
    train, others = images[:40], images[40:]
    transform = fit_transform(train, GCN_ZCA, "images")
    for seen in (train, others):
        expected = whitened_by_numpy(train.numpy(), seen.numpy())
        assert np.allclose(transform.forward(seen / 255), expected, atol=1e-4)


def test_gcn_zca_does_not_see_brightness_and_contrast():
    images = photos(40) / 255
    transform = fit_transform(photos(40), GCN_ZCA, "images")
    assert torch.allclose(transform.forward(0.1 + 0.5 * images), transform.forward(images), atol=1e-4)


def test_gcn_zca_comes_back_but_for_brightness_and_contrast():
    """Pictures differ from the originals by a shift and a factor; what the network sees comes back."""
    images = photos(40) / 255
    transform = fit_transform(photos(40), GCN_ZCA, "images")
    seen = transform.forward(images)
    pictures = transform.backward(seen)
    assert torch.allclose(transform.forward(pictures), seen, atol=1e-4)
    in_numpy = to_pixels(seen.numpy(), transform.mean.numpy(), transform.inverse.numpy())
    assert np.allclose(in_numpy, pictures, atol=1e-5)
    original = images.flatten(1) - images.flatten(1).mean(1, keepdim=True)
    picture = pictures.flatten(1) - pictures.flatten(1).mean(1, keepdim=True)
    assert torch.allclose(torch.cosine_similarity(original, picture), torch.ones(40), atol=1e-5)
    assert torch.allclose(pictures.mean((1, 2, 3)), images.mean().expand(40), atol=1e-5)
    assert torch.allclose(picture.norm(dim=1), original.norm(dim=1).mean().expand(40), rtol=1e-4)


def test_a_distilled_image_of_any_contrast_comes_back():
    transform = fit_transform(photos(40), GCN_ZCA, "images")
    distilled = 3 * torch.randn(5, 3, 6, 6, generator=generator("distilled"))
    assert torch.allclose(transform.rewhiten(transform.backward(distilled)), distilled, atol=1e-3)


def test_gcn_zca_of_an_image_of_one_colour_is_zero():
    transform = fit_transform(photos(40), GCN_ZCA, "images")
    for shade in (0.0, 0.3, 1.0):
        assert transform.forward(torch.full((1, 3, 6, 6), shade)).abs().max() < 1e-2


def test_images_with_gcn_zca_are_prepared_and_loaded(folder):
    prepare_images(settings_of(folder, whitening="gcn-zca"), folder / "out")
    _, splits = read_images(settings_of(folder), "images", folder)
    for name, split in splits.items():
        expected = whitened_by_numpy(splits["train"].images, split.images)
        assert np.allclose(load_split(folder / "out", name).images, expected, rtol=1e-4, atol=1e-4)


def test_a_set_with_gcn_zca_is_drawn_and_exported(tmp_path, monkeypatch):
    """What is exported is the real images that the set consists of, up to brightness and contrast."""
    datasets = suite()["datasets"]
    datasets["shapes"]["images"]["whitening"] = "gcn-zca"
    real = row(backbone="random", reads="nothing", distill={"sets": 1}, lr=0.05)
    values = {"datasets": datasets, "buffers": {}, "runs": {"shapes-random": real}}
    monkeypatch.chdir(make_project(tmp_path, suites={"shapes": values}))
    run("prepare", "shapes")
    run("distill", "shapes-random")
    run("pictures")
    assert Path("reports/distilled/shapes-random.png").exists()
    run("tools.export", "shapes-random", "out")
    originals = read_pictures(Path("pictures/train"))
    for picture in read_pictures(Path("out/pictures")):
        similarity = originals @ picture
        assert similarity.max() > 0.95


def read_pictures(root: Path) -> np.ndarray:
    """All pictures below a folder, each as a row that is centred and has the norm 1."""
    rows = []
    for file in sorted(root.rglob("*.png")):
        values = np.asarray(Image.open(file), float).flatten()
        centred = values - values.mean()
        rows.append(centred / np.linalg.norm(centred))
    return np.array(rows)


# ---- masks ----


def test_ratio_zero_masks_nothing():
    images = torch.randn(5, 3, 8, 8)
    assert torch.equal(mask_images(images, 0, generator(0)), images)


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.8])
def test_the_share_of_zeros_is_the_ratio(ratio):
    masked = mask_images(torch.ones(50, 3, 32, 32), ratio, generator(0))
    assert set(masked.unique().tolist()) == {0.0, 1.0}
    share = float((masked == 0).double().mean())
    deviation = math.sqrt(ratio * (1 - ratio) / masked.numel())
    assert abs(share - ratio) < 5 * deviation
    assert not torch.equal(masked[0], masked[1]), "every image has its own mask"
    assert not torch.equal(masked[0, 0], masked[0, 1]), "every channel has its own mask"


# ---- draws of images ----


def test_a_sample_has_its_share_of_every_class():
    labels = torch.tensor([0] * 20 + [1] * 4 + [2])
    rows = per_class(labels, 3, share_of(0.25), generator(0))
    assert labels[rows].tolist() == [0] * 5 + [1] + [2]
    assert len(set(rows.tolist())) == len(rows)


def test_nothing_is_held_out_at_one_image_a_class():
    assert held_out(torch.arange(10), 10, 0.1, 0, 0) is None


def test_what_is_held_out_and_what_is_kept_are_all_images():
    labels = torch.arange(10).repeat(10)
    rows = held_out(labels, 10, 0.1, 0, 0)
    assert sorted(labels[rows].tolist()) == list(range(10))
    remaining = kept(labels, 10, 0.1, 0, 0)
    assert sorted(rows.tolist() + remaining.tolist()) == list(range(100))


def test_every_image_is_in_a_batch_before_one_is_there_again():
    chunks = chunks_of(10, 4, 7, generator(0))
    assert [len(chunk) for chunk in chunks] == [2, 4, 4, 2, 4, 4, 2]
    assert sorted(torch.cat(chunks[:3]).tolist()) == list(range(10))
    assert sorted(torch.cat(chunks[3:6]).tolist()) == list(range(10))


# ---- augmentations ----


@pytest.mark.parametrize("operation", ["rotate", "scale"])
@pytest.mark.filterwarnings("ignore:Default grid_sample")
def test_rotation_and_scale_of_square_images_are_those_of_pytorchs_default_too(operation):
    images = torch.randn(2, 3, 8, 8, generator=generator("images"), dtype=torch.float64)
    u = torch.rand(2, 3, generator=generator("u"), dtype=torch.float64)
    if operation == "rotate":
        angle = (u[:, 0] - 0.5) * 2 * 15 / 180 * math.pi
        lines = [[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]]
    else:
        factor = u * (1.2 - 1 / 1.2) + 1 / 1.2
        zero = torch.zeros(2, dtype=torch.float64)
        lines = [[factor[:, 0], zero], [zero, factor[:, 1]]]
    rows = [torch.stack([*line, torch.zeros(2, dtype=torch.float64)], 1) for line in lines]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape))
    assert torch.allclose(augment(images, Draw(operation, u)), F.grid_sample(images, grid), atol=1e-10)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_augmentations_treat_images_one_by_one_and_pass_gradients(operation, device):
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64, generator=generator(0)).to(device)
    images.requires_grad_()
    u = torch.rand(4, 3, generator=generator(1))
    together = augment(images, Draw(operation, u))
    alone = [augment(images[i : i + 1], Draw(operation, u[i : i + 1])) for i in range(4)]
    assert together.shape == images.shape
    assert together.is_contiguous(), "another layout would make every layer after it slower on a CPU"
    assert torch.allclose(together, torch.cat(alone))
    (gradient,) = torch.autograd.grad(together.square().sum(), images)
    assert gradient.isfinite().all()
    assert (gradient != 0).any()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_siamese_draw_treats_all_images_alike(operation, device):
    images = torch.randn(4, 3, 16, 16, generator=generator(0)).to(device)
    shared = Draw(operation, torch.rand(1, 3, generator=generator(1)))
    together = augment(images, shared)
    assert torch.allclose(together[2:3], augment(images[2:3], shared), atol=1e-6)


def test_draws_use_all_operations():
    operations = {draw(generator(i), 1).operation for i in range(200)}
    assert operations == set(OPERATIONS)


@pytest.mark.parametrize("count", [1, 4])
def test_batches_are_augmented_together_as_one_by_one(count):
    """`count` is 1 where all images of a batch share a draw."""
    images = torch.randn(30, 4, 3, 8, 8, generator=generator("images"))
    drawn = [draw(generator("draw", batch), count) for batch in range(30)]
    assert {own.operation for own in drawn} == set(OPERATIONS)
    for first, last in ((0, 30), (0, 1), (3, 5)):
        together = augment_each(images[first:last], draws_of(drawn[first:last]))
        for batch in range(first, last):
            assert torch.equal(together[batch - first], augment(images[batch], drawn[batch])), batch


@pytest.mark.parametrize("most", [0, 10**9])
def test_masks_are_the_same_whether_they_are_drawn_ahead(most, monkeypatch):
    monkeypatch.setattr(masking, "MOST_AHEAD", most)
    shapes = [(4, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8)]
    ahead = Masks(0.3, ("mask",))
    ahead.draw_ahead(shapes, torch.device("cpu"), first=5)
    assert len(ahead.ahead) == (3 if most else 0)
    for step, shape in enumerate(shapes, 5):
        images = torch.randn(shape, generator=generator("images"))
        masked = ahead(images, step)
        assert torch.equal(masked, Masks(0.3, ("mask",))(images, step))
        assert torch.equal(masked, mask_images(images, 0.3, generator("mask", step)))
