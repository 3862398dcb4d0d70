"""What the tests protect: thirty mistakes, planted one at a time into a copy of the working tree.

    python benchmarks/planted_faults.py --check --out runs/planted-faults.json

A fault is a change of a line or two that a programmer could make, after which the package still runs and gives other
results. The tests that stand nearest are run first, and if they pass, the whole suite. Each fault has a fresh copy, so
the working tree is never touched. Results are written after every fault, and the same command goes on where it was
stopped. The script imports nothing of the package: it must run whatever was planted there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# ---- the faults ------------------------------------------------------------------------------------------------------
# Everything that depends on where things stand is in this part. `old` must occur exactly once in `file`.

PACKAGE = "attnpool"
SOURCE = "."  # the folder that the package is imported from, relative to the repository


@dataclass(frozen=True)
class Fault:
    """A mistake: in `file`, `new` stands in the place of `old`; `tests`, as pytest takes them, should notice."""

    name: str
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


FAULTS = (
    # pooling
    Fault(
        name="gradient-sign",
        what="the hand-written gradient of a softmax map adds its mean instead of taking it away",
        file="attnpool/pooling/fused_attention.py",
        old="return h * (dh - (h * dh).mean(-1, keepdim=True))",
        new="return h * (dh + (h * dh).mean(-1, keepdim=True))",
        tests=("tests/pooling/test_fused_attention.py::test_first_and_second_derivatives",),
    ),
    Fault(
        name="per-class-terms",
        what="with a map for every class, the score adds up neighbouring classes and not the terms of one",
        file="attnpool/pooling/attentional.py",
        old="return scores.unflatten(1, (self.rank, self.num_classes)).sum(1), h",
        new="return scores.unflatten(1, (self.num_classes, self.rank)).sum(2), h",
        tests=("tests/contracts/test_equations.py::test_equation_9_with_a_matrix_of_rank_p_for_every_class",),
    ),
    Fault(
        name="dropout-in-testing",
        what="dropout of attention stays on in testing",
        file="attnpool/pooling/attentional.py",
        old="z = F.dropout(z, self.dropout, self.training)",
        new="z = F.dropout(z, self.dropout)",
        tests=("tests/contracts/test_dropout.py::test_pooled_drops_whole_channels",),
    ),
    Fault(
        name="sketch-without-signs",
        what="the sketch of compact bilinear pooling has no random signs, so collisions add up",
        file="attnpool/pooling/compact_bilinear.py",
        old="2.0 * torch.randint(2, (2, in_channels), generator=generator) - 1",
        new="torch.ones(2, in_channels)",
        tests=("tests/pooling/test_compact_bilinear.py",),
    ),
    Fault(
        name="clip-takes-best-frame",
        what="the score of a clip is its best frame's and not the mean",
        file="attnpool/models/clip_pooling.py",
        old="each.logits.unflatten(0, (-1, parts)).mean(1),",
        new="each.logits.unflatten(0, (-1, parts)).amax(1),",
        tests=("tests/evaluation/test_predict.py::test_a_clip_is_the_mean_of_its_frames",),
    ),
    # backbone and features
    Fault(
        name="standardised-over-images",
        what="features are scaled by their deviation over the images of a batch and not over the channels",
        file="attnpool/models/feature_norm.py",
        old="average.var(1, keepdim=True, unbiased=False)",
        new="average.var(0, keepdim=True, unbiased=False)",
        tests=("tests/models/test_feature_norm.py",),
    ),
    Fault(
        name="folding-without-eps",
        what="folding a batch norm into the convolution before it forgets the eps under the root",
        file="attnpool/backbones/batchnorm_folding.py",
        old="child.running_mean, child.running_var, child.eps, child.weight",
        new="child.running_mean, child.running_var, 0.0, child.weight",
        tests=("tests/backbones/test_batchnorm_folding.py::test_lite0_is_folded_and_computes_the_same",),
    ),
    Fault(
        name="frozen-statistics-move",
        what="the batch norms of a frozen backbone go into training mode, so their statistics move",
        file="attnpool/backbones/backbone.py",
        old="super().train(mode and not self.frozen)",
        new="super().train(mode)",
        tests=("tests/backbones/test_backbone.py::test_frozen_means_frozen",),
    ),
    Fault(
        name="cache-ignores-weights",
        what="features are kept under the name of the backbone, whatever its weights",
        file="attnpool/features/extraction.py",
        old="parts = [FORMAT, media, backbone.digest(), backbone.mean",
        new="parts = [FORMAT, media, backbone.name, backbone.mean",
        tests=("tests/features/test_extraction.py::test_another_backbone_has_another_store",),
    ),
    Fault(
        name="pooling-pads-evenly",
        what="the network of the released checkpoints pads its max pooling as PyTorch does, not as TensorFlow",
        file="attnpool/backbones/resnet_tf.py",
        old="    net.maxpool = MaxPool2dSame(3, stride=2)\n",
        new="",
        tests=("tests/backbones/test_resnet_tf.py::test_stride_on_the_first_unit_is_stride_on_the_last_one_before",),
    ),
    # training
    Fault(
        name="ambiguous-in-loss",
        what="the loss of several labels counts entries that nobody can tell as negatives",
        file="attnpool/training/losses.py",
        old="return losses * label_mask, label_mask.to(losses.dtype)",
        new="return losses, torch.ones_like(losses)",
        tests=("tests/training/test_losses.py",),
    ),
    Fault(
        name="decay-of-biases",
        what="weight decay also pulls biases and batch norms to 0",
        file="attnpool/training/optimizer.py",
        old='groups += [{**group, "lr": peak, "peak": peak} for group in found]',
        new='groups += [{**group, "lr": peak, "peak": peak, "weight_decay": options.weight_decay} for group in found]',
        tests=("tests/training/test_optimizer.py::test_groups",),
    ),
    Fault(
        name="optimizer-forgotten",
        what="a training that goes on starts with an empty optimizer",
        file="attnpool/training/trainer.py",
        old="        unpack_optimizer(self.optimizer, tensors)\n",
        new="",
        tests=("tests/training/test_train.py::test_resumed_is_the_same",),
    ),
    Fault(
        name="best-is-last",
        what="the weights kept as the best are those of the last epoch",
        file="attnpool/training/trainer.py",
        old="if scores.mAP > at.best or math.isnan(scores.mAP):",
        new="if at.epoch > at.best_epoch:",
        tests=("tests/evaluation/test_evaluate.py::test_best_weights",),
    ),
    Fault(
        name="state-overwritten",
        what="the tensors of a saved state are replaced before the file that belongs to them names new ones",
        file="attnpool/models/state.py",
        old="name = STATE_TENSORS.format(*at)",
        new="name = STATE_TENSORS.format(0, 0)",
        tests=("tests/models/test_run.py::test_a_training_killed_between_two_files_of_its_state_has_the_one_before",),
    ),
    Fault(
        name="file-half-written",
        what="JSON and text are written in place, so that a failure leaves half a file under the right name",
        file="attnpool/files.py",
        old="    with replacing(path) as partial:\n        partial.write_bytes(data)\n",
        new="    path.parent.mkdir(parents=True, exist_ok=True)\n    path.write_bytes(data)\n",
        tests=("tests/test_files.py::test_a_file_is_replaced_whole_or_not_at_all",),
    ),
    # scores
    Fault(
        name="ties-by-order",
        what="images of equal score enter the precision-recall curve one by one, in the order they stand in",
        file="attnpool/evaluation/metrics.py",
        old="last_of_ties = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)",
        new="last_of_ties = np.arange(len(ranked))",
        tests=("tests/evaluation/test_metrics.py::test_voc_definitions",),
    ),
    Fault(
        name="class-order-unchecked",
        what="a run is scored on data with the same classes in another order",
        file="attnpool/evaluation/splits.py",
        old="if dataset.classes != run.model.classes:",
        new="if set(dataset.classes) != set(run.model.classes):",
        tests=("tests/evaluation/test_evaluate.py::test_other_classes",),
    ),
    Fault(
        name="spread-too-small",
        what="the spread over seeds divides by n and not by n - 1",
        file="attnpool/evaluation/tables.py",
        old="{numbers.std(ddof=1):.{digits}f}",
        new="{numbers.std():.{digits}f}",
        tests=("tests/evaluation/test_tables.py",),
    ),
    # command line
    Fault(
        name="recipe-beats-flag",
        what="an option of the recipe wins over the same option on the command line",
        file="attnpool/training/recipe.py",
        old="chosen = Options.of(values | dict(options or {}), ",
        new="chosen = Options.of(dict(options or {}) | values, ",
        tests=("tests/cli/test_verbs.py::test_a_recipe_trains_and_flags_win",),
    ),
    # data
    Fault(
        name="flip-keeps-sides",
        what="the left joints of a mirrored person stay left ones",
        file="attnpool/data/views.py",
        old="return tuple(moved[j] for j in MPII_FLIP) if self.flipped and moved else tuple(moved)",
        new="return tuple(moved)",
        tests=("tests/data/test_views.py::test_a_flip_swaps_left_and_right_joints",),
    ),
    Fault(
        name="same-views-every-epoch",
        what="an image is cropped and flipped in the same way in every epoch",
        file="attnpool/data/loader.py",
        old="np.random.default_rng([stream, self.seed, self.epoch, i])",
        new="np.random.default_rng([stream, self.seed, i])",
        tests=(
            "tests/data/test_loader.py::test_a_batch_holds_what_the_views_show",
            "tests/data/test_loader.py::test_views_follow_from_seed_epoch_and_position_whatever_the_batches",
        ),
    ),
    Fault(
        name="upright-turned-round",
        what="photos that a telephone took upright are turned the wrong way",
        file="attnpool/data/decoding/image.py",
        old="                    ImageOps.exif_transpose(image, in_place=True)\n",
        new=(
            "                    once = image.getexif().get(0x0112)\n"
            "                    ImageOps.exif_transpose(image, in_place=True)\n"
            "                    image = image.rotate(180) if once == 6 else image\n"
        ),
        tests=("tests/data/decoding/test_image.py::test_exif_orientation",),
    ),
    Fault(
        name="first-frame-of-segment",
        what="testing takes the first frame of every segment of a clip and not the middle one",
        file="attnpool/data/temporal_sampling.py",
        old="return [(2 * s + 1) * places // (2 * segments) for s in range(segments)]",
        new="return [s * places // segments for s in range(segments)]",
        tests=("tests/data/test_temporal_sampling.py",),
    ),
    Fault(
        name="flow-axes-exchanged",
        what="in stacks of optical flow the motion down comes before the motion to the right",
        file="attnpool/data/decoding/optical_flow.py",
        old="flow = np.concatenate([step.transpose(2, 0, 1) for step in steps])",
        new="flow = np.concatenate([step.transpose(2, 0, 1)[::-1] for step in steps])",
        tests=("tests/data/decoding/test_optical_flow.py::test_a_known_translation",),
    ),
    Fault(
        name="hico-ambiguous-negative",
        what="HICO's ambiguous labels count as negatives",
        file="attnpool/data/formats/hico.py",
        old="            ambiguous=ambiguous[i],\n",
        new="",
        tests=("tests/data/formats/test_hico.py::test_labels",),
    ),
    Fault(
        name="mpii-classes-sorted",
        what="MPII's class names are sorted, while labels count them by first occurrence",
        file="attnpool/data/formats/mpii.py",
        old="return parts, tuple(classes)",
        new="return parts, tuple(sorted(classes))",
        tests=("tests/data/formats/test_mpii.py::test_classes_splits_and_order",),
    ),
    Fault(
        name="hmdb51-unused-clips",
        what="clips that a split of HMDB51 leaves out are trained on",
        file="attnpool/data/formats/hmdb51.py",
        old='_SPLITS = {"0": "unused",',
        new='_SPLITS = {"0": "train",',
        tests=("tests/data/formats/test_hmdb51.py::test_splits",),
    ),
    # joints and explanations
    Fault(
        name="disc-of-half-radius",
        what="the radius of a joint's disc is taken for its diameter",
        file="attnpool/keypoints/heatmaps.py",
        old='reach = radius * CANVAS_WIDTH if kind == "disc"',
        new='reach = radius * CANVAS_WIDTH / 2 if kind == "disc"',
        tests=("tests/keypoints/test_heatmaps.py",),
    ),
    Fault(
        name="map-half-a-cell-off",
        what="a map is drawn with the centres of its outer cells on the edges of the image",
        file="attnpool/explain/overlay.py",
        old="resize((x2 - x1, y2 - y1), Image.Resampling.BICUBIC))",
        new="resize((x2 - x1, y2 - y1), Image.Resampling.BICUBIC, (0.5, 0.5, *(n - 0.5 for n in values.shape[::-1]))))",
        tests=("tests/explain/test_overlay.py::test_where_a_map_changes_its_sign_lies_between_the_cells",),
    ),
)

# ---- the experiment --------------------------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[1]
# Environments of other interpreters, which tests look for beside the package; a copy borrows them.
BORROWED = (".venv-tf", ".venv-pose")


class Unusable(Exception):
    """A fault that cannot be planted, or tests that cannot be run."""


@dataclass(frozen=True)
class Found:
    """What a run of tests found: `by` is the test that failed, "" if all passed."""

    by: str
    seconds: float


def problems(faults: Sequence[Fault]) -> list[str]:
    """What is wrong with the list itself, a line a fault."""
    found = []
    for fault in faults:
        file = ROOT / fault.file
        if not file.is_file():
            found.append(f"{fault.name}: there is no file {fault.file}")
        elif (count := file.read_text(encoding="utf-8").count(fault.old)) != 1:
            found.append(f"{fault.name}: its old text occurs {count} times in {fault.file}, not once: {fault.old!r}")
        elif fault.old == fault.new:
            found.append(f"{fault.name}: its new text is the old one")
        gone = [test for test in fault.tests if not (ROOT / test.partition("::")[0]).exists()]
        if gone or not fault.tests:
            found.append(f"{fault.name}: there is no {', '.join(gone) or 'test'} to run first")
    names = [fault.name for fault in faults]
    found += [f"{name}: two faults have this name" for name in sorted({n for n in names if names.count(n) > 1})]
    return found


@contextmanager
def copied() -> Iterator[Path]:
    """A fresh copy of the working tree: what git knows, with changes, and new files that it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        tree = Path(folder) / "tree"
        for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
            if (ROOT / name).is_file():  # not one that is deleted and still in the index, nor a link to a folder
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, tree / name)
        for name in BORROWED:
            if (ROOT / name).exists() and not (tree / name).exists():
                (tree / name).symlink_to((ROOT / name).resolve())
        yield tree


def plant(fault: Fault, tree: Path) -> None:
    """Makes the mistake in a copy."""
    file = tree / fault.file
    text = file.read_text(encoding="utf-8")
    assert text.count(fault.old) == 1, fault.name
    file.write_text(text.replace(fault.old, fault.new), encoding="utf-8")


def environment(tree: Path) -> dict[str, str]:
    """In which the copy's package is imported, also by processes that tests start, whatever is installed."""
    return os.environ | {"PYTHONPATH": str((tree / SOURCE).resolve())}


def require_own_package(tree: Path) -> None:
    """Raises Unusable unless the copy's package is what its tests import; else nothing planted would be noticed."""
    command = [sys.executable, "-P", "-c", f"import importlib.util as u; print(u.find_spec({PACKAGE!r}).origin)"]
    ended = subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True, text=True, check=False)
    if ended.returncode or not Path(ended.stdout.strip()).resolve().is_relative_to(tree.resolve()):
        raise Unusable(f"the copy's tests import {PACKAGE} from {ended.stdout.strip() or 'nowhere'}; correct SOURCE")


def run_tests(tree: Path, tests: Sequence[str], but: Sequence[str] = ()) -> Found:
    """Runs tests of a copy up to the first that fails; no tests means all of the suite, and `but` are left out.

    Raises:
        Unusable: they cannot be run.
    """
    options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=no", "-rfE", f"--basetemp={tree.parent / 'temporary'}"]
    options += [f"--deselect={test}" for test in but]
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=tree,
        env=environment(tree),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    seconds = round(time.monotonic() - began, 1)
    named = [line.partition(" ")[2] for line in ended.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if ended.returncode == 0:
        return Found("", seconds)
    # 1 is a failure; with 2 a file of tests could not be imported, if it is named, or somebody stopped the run.
    if ended.returncode == 1 or (ended.returncode == 2 and named):
        return Found(named[0].partition(" - ")[0] if named else "a test that ended the process", seconds)
    raise Unusable(f"pytest ended with {ended.returncode}: {' '.join(ended.stdout.split()[-40:])}")


def try_fault(fault: Fault, quick: bool, broken: list[str]) -> dict[str, Any]:
    """Plants a fault and looks for a test that notices.

    Args:
        fault: the fault.
        quick: run the tests named for it alone.
        broken: tests of the suite that fail without it, too; those that turn up are added.

    Raises:
        Unusable: see `run_tests`.
    """
    with copied() as tree:
        plant(fault, tree)
        found = run_tests(tree, fault.tests)
        entry = asdict(fault) | {"caught": bool(found.by), "by": found.by, "among": "named", "seconds": found.seconds}
        while not (found.by or quick):
            found = run_tests(tree, (), broken)
            seconds = round(entry["seconds"] + found.seconds, 1)
            entry |= {"caught": bool(found.by), "by": found.by, "among": "all", "seconds": seconds}
            if not found.by:
                break
            with copied() as sound:  # whoever fails without the fault has not noticed it
                if run_tests(sound, [found.by]).by:
                    broken.append(found.by)
                    found = Found("", 0.0)
    return entry


def check(faults: Sequence[Fault]) -> dict[str, Any]:
    """Runs all named tests on a copy without a fault: a test that fails there says nothing of one.

    Raises:
        Unusable: one of them fails.
    """
    tests = sorted({test for fault in faults for test in fault.tests})
    with copied() as tree:
        require_own_package(tree)
        found = run_tests(tree, tests)
    if found.by:
        raise Unusable(f"without any fault {found.by} fails; make the tests pass first")
    return {"tests": tests, "seconds": found.seconds}


def read(path: Path) -> dict[str, Any]:
    """What earlier calls found; nothing if there is no file."""
    found: dict[str, Any] = {"checked": None, "broken": [], "faults": {}}
    return found | json.loads(path.read_text(encoding="utf-8")) if path.exists() else found


def write(path: Path, results: dict[str, Any]) -> None:
    """Writes the results, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def is_done(fault: Fault, entry: dict[str, Any] | None, quick: bool) -> bool:
    """Whether an entry is of the same change, and nothing is left to run: all tests, where none of the named failed."""
    if entry is None or any(entry[key] != getattr(fault, key) for key in ("file", "old", "new")):
        return False
    return bool(entry["caught"] or quick or entry["among"] == "all")


def table(entries: Sequence[dict[str, Any]]) -> str:
    """The results as text, a line a fault."""
    width = max((len(entry["name"]) for entry in entries), default=0)
    lines = []
    for entry in entries:
        passed = "by none of the named tests" if entry["among"] == "named" else "by no test"
        by = f"by {entry['by']}" if entry["caught"] else passed
        caught = "caught" if entry["caught"] else "MISSED"
        lines.append(f"{entry['name']:{width}}  {caught}  {entry['seconds']:7.1f} s  {by}")
    count = sum(entry["caught"] for entry in entries)
    own = sum(entry["caught"] and entry["among"] == "named" for entry in entries)
    return "\n".join([*lines, "", f"{count} of {len(entries)} caught, {own} of them by the tests named for them"])


def stop(signum: int, frame: object) -> None:
    sys.exit(128 + signum)


def main() -> None:
    names = [fault.name for fault in FAULTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file of results; what is in it is kept")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="run the named tests alone, never the whole suite")
    parser.add_argument("--again", action="store_true", help="run faults again that are in the file already")
    parser.add_argument("--check", action="store_true", help="first see that the named tests pass without a fault")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)  # so that the copy is removed then, too
    chosen = [fault for fault in FAULTS if fault.name in args.only]
    if wrong := problems(FAULTS):
        sys.exit("\n".join(wrong))
    results = read(args.out)
    try:
        if args.check:
            results["checked"] = check(chosen)
            write(args.out, results)
        else:
            with copied() as tree:
                require_own_package(tree)
        for fault in chosen:
            if not args.again and is_done(fault, results["faults"].get(fault.name), args.quick):
                continue
            try:
                entry = try_fault(fault, args.quick, results["broken"])
            except Unusable as error:
                raise Unusable(f"{fault.name}: {error}") from error
            results["faults"][fault.name] = entry
            write(args.out, results)
            print(table([entry]).partition("\n")[0], flush=True)
    except Unusable as error:
        sys.exit(str(error))
    print(f"\n{table([results['faults'][fault.name] for fault in chosen])}")


if __name__ == "__main__":
    main()
