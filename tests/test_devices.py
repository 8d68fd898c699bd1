"""No stage mixes devices: every backbone and stage takes a step on tensors that pretend to be on a GPU."""

import pytest
import torch
from project import MTT, PARAMS, make_project, row, run, suite

from stages.settings.rows import Entry

MATCHING = {"iterations": 1, "outer_loops": 2, "inner_loops": 1, "batch_real": 4, "precision": "bfloat16"}
RTP = {"iterations": 2, "syn_steps": 2, "batch_syn": 1, "batch_real": 4}
GROUPS = {"repeats": 2, "losses": ["cross_entropy", "mixup"]}


def rows() -> dict[str, dict]:
    """A row of every backbone, with and without masks."""
    plain = {"reads": "nothing", "lr": 0.05, "epochs": 1}
    return {
        "shapes-mtt-ipc2": row(mdt=0.1, epochs=3, distill=MTT | {"iterations": 1}),
        "shapes-dc": row(backbone="dc", distill=MATCHING, **plain),
        "shapes-dsa": row(backbone="dsa", distill=MATCHING, mdt=[0, 0.1], **plain),
        "shapes-rtp": row(backbone="rtp", distill=RTP, mdt=0.1, **plain),
        "shapes-rtp-memory": row(backbone="rtp", distill=RTP | {"n_basis": 4}, **plain),
        "shapes-random": row(backbone="random", distill={}, **plain),
        "shapes-kmeans": row(backbone="kmeans", distill={}, **plain),
        "shapes-full": row(backbone="full", ipc=None, distill={}, **plain),
    }


@pytest.mark.parametrize("whitening", ["zca", "none"])
def test_no_stage_mixes_devices(pretend, whitening, tmp_path, monkeypatch):
    values = suite()
    values["datasets"]["shapes"]["images"]["whitening"] = whitening
    values["buffers"]["shapes"] |= {"precision": "bfloat16", "epochs": 3}
    values["runs"] = rows()
    values["features"] = {"shapes-mtt-ipc2": values["features"]["shapes-mtt-ipc2"]}
    values["svd"] = {"shapes-mtt-ipc2": values["svd"]["shapes-mtt-ipc2"] | {"epochs": 1}}
    named = {"suite": "shapes", "dataset": "shapes"}
    values["reach"] = {"shapes-mtt-ipc2": named, "shapes-random": named}
    monkeypatch.chdir(
        make_project(tmp_path, PARAMS | {"train": PARAMS["train"] | GROUPS}, {"shapes": values})
    )
    monkeypatch.setattr(Entry, "device", torch.device("cuda"))
    for module in ("stages.training.loop", "stages.distillation.learn"):
        monkeypatch.setattr(f"{module}.CHECKPOINT_SECONDS", -1)  # a checkpoint after every step
    for name in values["datasets"]:
        run("prepare", name)
    with pretend.pretend_cuda():
        run("buffer", "shapes")
        for name in values["runs"]:
            run("distill", name)
            run("train", name)
        for stage in ("temperature", "masked", "svd", "features", "architectures", "reach", "choices"):
            run(stage)
