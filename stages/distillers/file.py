"""A distilled set that was made elsewhere, from the folder that the row reads. It holds one of

- `images_best.pt` and `labels_best.pt`, as MTT's code and its successors write them, or one pair with a number in place of
  `best`; with the step size in `lr_best.pt`, where a successor has written it;
- one `res_*.pt`, as the code of DC and DSA writes it (of several experiments in it, the last);
- `set.safetensors`, as `distill` and `python -m stages.export` write it;
- a folder of pictures for each class.

Images of the first three kinds are what the network saw: whitened or normalised as the row's data set is. Pictures are
whitened here. Files of PyTorch are loaded as tensors and nothing else: no code in them is ever run.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from stages.shared.errors import UserError
from stages.shared.images import class_names, load_transform
from stages.shared.method import Method, Problem, Variable
from stages.shared.pt_files import read_pt
from stages.shared.settings import Positive, Section

__all__ = ["Settings", "start"]


class Settings(Section):
    """Keys of a row's `distill:`."""

    step_size: Positive | None = None  # for `lr: learned`, where the file has none of its own


def start(problem: Problem, settings: Settings) -> Method:
    """Read the set and hold it against the row and its data set.

    Raises:
        UserError: nothing of the four kinds; a file that cannot be read as tensors; images of another shape or not
            finite, labels out of range, another number of images in a class than the row's `ipc`.
    """
    folder = problem.reads
    images, labels, step_size, source = read_set(folder, problem)
    shape = tuple(problem.real.images.shape[1:])
    if labels.dim() == 2:
        raise UserError(f"{source}: labels {tuple(labels.shape)}; allowed: (N,), a class for each image (soft labels are not supported)")
    if images.dim() != 4 or tuple(images.shape[1:]) != shape or labels.shape != images.shape[:1]:
        raise UserError(f"{source}: images {tuple(images.shape)}, labels {tuple(labels.shape)}; allowed for this data set: (N, {', '.join(map(str, shape))}) and (N,)")
    if labels.is_floating_point() and not bool((labels == labels.round()).all()):
        raise UserError(f"{source}: labels that are not whole numbers")
    labels = labels.long()
    if not bool(images.isfinite().all()):
        raise UserError(f"{source}: images with {int((~images.isfinite()).sum())} numbers that are not finite")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < problem.real.classes:
        raise UserError(f"{source}: labels from {int(labels.min())} to {int(labels.max())}; allowed: 0 to {problem.real.classes - 1}")
    counts = labels.bincount(minlength=problem.real.classes).tolist()
    if set(counts) != {problem.ipc}:
        raise UserError(f"{source}: {min(counts)} to {max(counts)} images a class, but the row's ipc is {problem.ipc}")
    found = settings.step_size if step_size is None else step_size
    device = problem.real.images.device
    images, labels = images.float().to(device), labels.to(device)
    variables = {} if found is None else {"step_size": Variable(torch.tensor(float(found), device=device), lr=0.0)}
    return Method(lambda: images, labels, variables=variables)


def read_set(folder: Path, problem: Problem) -> tuple[torch.Tensor, torch.Tensor, float | None, Path]:
    """Images, labels, step size where there is one, and the file that they were in."""
    if pairs := sorted(folder.glob("images_best.pt")) or sorted(file for file in folder.glob("images_*.pt") if file.stem[7:].isdigit()):
        if len(pairs) > 1:
            raise UserError(f"{folder}: {len(pairs)} files images_<number>.pt; allowed: one, or images_best.pt")
        file = pairs[0]
        labels_file, lr_file = (file.with_name(file.name.replace("images", other, 1)) for other in ("labels", "lr"))
        if not labels_file.exists():
            raise UserError(f"{labels_file}: missing beside {file.name}")
        images, labels = read_pt(file), read_pt(labels_file)
        if not isinstance(images, torch.Tensor) or not isinstance(labels, torch.Tensor):
            raise UserError(f"{file}: expected a tensor but got {type(images).__name__}, with labels a {type(labels).__name__}")
        return images.detach(), labels.detach(), read_step_size(lr_file) if lr_file.exists() else None, file
    if results := sorted(folder.glob("res_*.pt")):
        if len(results) > 1:
            raise UserError(f"{folder}: {len(results)} files res_*.pt; allowed: one")
        content = read_pt(results[0])
        try:
            images, labels = content["data"][-1]
            return images.float(), labels.float(), None, results[0]
        except (TypeError, KeyError, IndexError, ValueError, AttributeError):
            raise UserError(f"{results[0]}: expected a dict with `data`, a list of pairs of images and labels") from None
    if (file := folder / "set.safetensors").exists():
        try:
            tensors = load_file(file)
            return tensors["images"], tensors["labels"], tensors.get("step_size"), file
        except (SafetensorError, KeyError) as problem_there:
            raise UserError(f"{file}: not a distilled set: {problem_there}") from None
    if folder.is_dir() and any(f.is_dir() for f in folder.iterdir()):
        return *read_pictures(folder, problem), None, folder
    raise UserError(f"{folder}: no distilled set; allowed: images_best.pt with labels_best.pt, res_*.pt, set.safetensors, or a folder of pictures for each class")


def read_step_size(file: Path) -> float:
    """A number, or a tensor of one, above 0."""
    try:
        value = float(torch.as_tensor(read_pt(file)).detach())
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{file}: expected a number") from None
    if not 0 < value < float("inf"):
        raise UserError(f"{file}: a step size of {value:g}; allowed: a number > 0")
    return value


def read_pictures(folder: Path, problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures in folders named as the data set's classes, whitened or normalised like its images."""
    names, found = class_names(problem.prepared), sorted(f.name for f in folder.iterdir() if f.is_dir())
    if odd := sorted(set(names) ^ set(found)):
        raise UserError(f"{folder}: its folders are not the data set's classes (only in one of them: {', '.join(odd[:5])})")
    channels, height, width = problem.real.images.shape[1:]
    pixels, labels = [], []
    for k, name in enumerate(names):
        for file in sorted((folder / name).iterdir()):
            try:
                with Image.open(file) as picture:
                    array = np.asarray(picture.convert("L" if channels == 1 else "RGB")).reshape(*picture.size[::-1], channels)
            except (OSError, SyntaxError) as problem_there:
                raise UserError(f"{file}: not a readable image: {problem_there}") from None
            if array.shape[:2] != (height, width):
                raise UserError(f"{file}: {array.shape[1]}x{array.shape[0]} pixels; allowed for this data set: {width}x{height}")
            pixels.append(torch.from_numpy(array.transpose(2, 0, 1).copy()))
            labels.append(k)
    return load_transform(problem.prepared).forward(torch.stack(pixels) / 255), torch.tensor(labels)
