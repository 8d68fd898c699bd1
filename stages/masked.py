"""masked: logits of the distilled images that temperatures are fitted on -> one file a row.

    python -m stages.masked [<row> ...]

TS is fitted on images that its networks have not seen, MTS on masked images, and MTS held out on masked
images that its networks have not seen: at every mask ratio and share of images that a later stage asks for.
This is the only stage after training that runs networks for temperatures: what follows is arithmetic on its
files. It reads no test image. Logits that a row's file has already are kept, so that one more mask ratio
costs the logits at that ratio and no others.
"""

from stages.calibrators.fitting import NETWORKS, Fitting
from stages.runtime.errors import run_stage
from stages.runtime.files import read_arrays, tensor_names, write_tensors
from stages.runtime.reuse import code_version, fingerprint, input_hash, is_made_from
from stages.settings.ablate import AblateSettings
from stages.settings.calibrate import CalibrateKeys
from stages.settings.project import param
from stages.settings.rows import Row, finished_rows
from stages.settings.section import parse
from stages.tools.records import recorded

__all__ = ["masked", "wanted_by_later_stages"]


def wanted_by_later_stages(row: Row) -> list[Fitting]:
    """The images that TS, MTS and MTS held out are fitted on.

    MTS is tried at every mask ratio, and at every share of the images under the row's own mask ratio. MTS
    held out has every mask ratio too, so that no network runs where one of them becomes that of all rows.
    """
    ablate = parse(AblateSettings, param("ablate"), "params.yaml: ablate")
    share = param("calibrate.share")
    holdout = param("train.holdout")
    own_ratio = row.keys(CalibrateKeys).mask_ratio
    ratio_for_all_rows = param("mask_ratio")
    ratios = [own_ratio, *ablate.ratios]
    if ratio_for_all_rows is not None:
        ratios.append(ratio_for_all_rows)
    wanted = [Fitting("ts", 0.0, holdout)]
    wanted += [Fitting("mts", ratio, share) for ratio in ratios]
    wanted += [Fitting("mts_holdout", ratio, holdout) for ratio in ratios]
    wanted += [Fitting("mts", own_ratio, other) for other in ablate.shares]
    return wanted


def masked(row: Row) -> None:
    """Write `(repeats, M, K)` logits by `Fitting.key`, and `(repeats, M)` labels under `<key>.labels`.

    Where the labels of the set are soft, they are `(repeats, M, K)` probabilities. A method that does not
    exist for the row (TS and `mts_holdout` at one image a class) is absent.
    """
    made_from = fingerprint(_input_hashes(row), row.network.model_dump(), row.seed, code_version("masked"))
    groups = tensor_names(row.weights)
    wanted = {
        fitting.key: fitting for fitting in wanted_by_later_stages(row) if NETWORKS[fitting.method] in groups
    }
    former = _former_logits(row, made_from)
    missing = [fitting for key, fitting in wanted.items() if key not in former]
    kept = {name: values for name, values in former.items() if name.removesuffix(".labels") in wanted}
    if not missing and len(kept) == len(former):
        return
    import torch  # torch takes seconds to import, so a change that needs no network does without it

    from stages.calibrators.fitting_logits import fitting_logits

    logits = {name: torch.from_numpy(values) for name, values in kept.items()}
    if missing:
        logits |= fitting_logits(row, missing)
    write_tensors(row.fitting_logits, logits, {"made_from": made_from})


def _input_hashes(row: Row) -> list[str]:
    return [
        input_hash(path)
        for path in (row.distilled, row.weights, *sorted(row.prepared.glob("[!.]*.safetensors")))
    ]


def _former_logits(row: Row, made_from: str) -> dict:
    """What the row's file has, unless it was made from other inputs."""
    file = row.fitting_logits
    if is_made_from(file, made_from):
        return read_arrays(file)
    return {}


def main(*names: str) -> None:
    for row in finished_rows("masked", names, lambda row: row.weights):
        masked(row)


if __name__ == "__main__":
    run_stage(recorded(main))
