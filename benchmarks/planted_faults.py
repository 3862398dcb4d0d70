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
        file="attnpool/pooling/fused.py",
        old="return h * (dh - (h * dh).mean(-1, keepdim=True))",
        new="return h * (dh + (h * dh).mean(-1, keepdim=True))",
        tests=("tests/pooling/test_cost.py",),
    ),
    Fault(
        name="per-class-terms",
        what="with a map for every class, the score adds up neighbouring classes and not the terms of one",
        file="attnpool/pooling/attentional.py",
        old="return scores.unflatten(1, (self.rank, self.num_classes)).sum(1), h",
        new="return scores.unflatten(1, (self.num_classes, self.rank)).sum(2), h",
        tests=("tests/pooling/test_equations.py",),
    ),
    Fault(
        name="dropout-in-testing",
        what="dropout of the pose head stays on in testing",
        file="attnpool/pooling/pose.py",
        old="z = F.dropout(weighted_mean(x, h), self.dropout, self.training)",
        new="z = F.dropout(weighted_mean(x, h), self.dropout)",
        tests=("tests/pooling/test_dropout.py",),
    ),
    Fault(
        name="sketch-without-signs",
        what="the sketch of compact bilinear pooling has no random signs, so collisions add up",
        file="attnpool/pooling/second_order.py",
        old="2.0 * torch.randint(2, (2, in_channels), generator=generator) - 1",
        new="torch.ones(2, in_channels)",
        tests=("tests/pooling/test_second_order.py",),
    ),
    Fault(
        name="clip-takes-best-frame",
        what="the score of a clip is its best frame's and not the mean",
        file="attnpool/consensus.py",
        old="each.logits.unflatten(0, (-1, parts)).mean(1),",
        new="each.logits.unflatten(0, (-1, parts)).amax(1),",
        tests=("tests/test_prediction.py", "tests/test_recognizer.py"),
    ),
    # backbone and features
    Fault(
        name="standardised-over-pictures",
        what="features are scaled by their deviation over the pictures of a batch and not over the channels",
        file="attnpool/standardize.py",
        old="average.var(1, keepdim=True, unbiased=False)",
        new="average.var(0, keepdim=True, unbiased=False)",
        tests=("tests/test_standardize.py",),
    ),
    Fault(
        name="folding-without-eps",
        what="folding a batch norm into the convolution before it forgets the eps under the root",
        file="attnpool/folding.py",
        old="child.running_mean, child.running_var, child.eps, child.weight",
        new="child.running_mean, child.running_var, 0.0, child.weight",
        tests=("tests/test_folding.py",),
    ),
    Fault(
        name="frozen-statistics-move",
        what="the batch norms of a frozen backbone go into training mode, so their statistics move",
        file="attnpool/backbone.py",
        old="super().train(mode and not self.frozen)",
        new="super().train(mode)",
        tests=("tests/test_backbone.py::test_frozen_means_frozen",),
    ),
    Fault(
        name="cache-ignores-weights",
        what="features are kept under the name of the backbone, whatever its weights",
        file="attnpool/features.py",
        old="parts = [FORMAT, media, backbone.digest(), backbone.mean",
        new="parts = [FORMAT, media, backbone.name, backbone.mean",
        tests=("tests/test_features.py",),
    ),
    Fault(
        name="pooling-pads-evenly",
        what="the network of the released checkpoints pads its max pooling as PyTorch does, not as TensorFlow",
        file="attnpool/resnet_tf.py",
        old="    net.maxpool = MaxPool2dSame(3, stride=2)\n",
        new="",
        tests=("tests/test_resnet_tf.py",),
    ),
    # training
    Fault(
        name="ambiguous-in-loss",
        what="the loss of several labels counts entries that nobody can tell as negatives",
        file="attnpool/losses.py",
        old="return (losses * known).sum() / known.sum().clamp_min(1)",
        new="return losses.sum() / max(losses.numel(), 1)",
        tests=("tests/test_losses.py",),
    ),
    Fault(
        name="decay-of-biases",
        what="weight decay also pulls biases and batch norms to 0",
        file="attnpool/optimization.py",
        old="(0.0, [p for p in parameters if p.ndim <= 1]),",
        new="(options.weight_decay, [p for p in parameters if p.ndim <= 1]),",
        tests=("tests/test_optimization.py::test_groups",),
    ),
    Fault(
        name="optimizer-forgotten",
        what="a training that goes on starts with an empty optimizer",
        file="attnpool/session.py",
        old="        unpack_optimizer(self.optimizer, tensors)\n",
        new="",
        tests=("tests/test_training.py::test_resumed_is_the_same",),
    ),
    Fault(
        name="best-is-last",
        what="the weights kept as the best are those of the last epoch",
        file="attnpool/session.py",
        old="if scores.mAP > at.best:",
        new="if at.epoch > at.best_epoch:",
        tests=("tests/test_evaluation.py::test_best_weights", "tests/test_training.py::test_monitoring_part"),
    ),
    Fault(
        name="state-overwritten",
        what="the tensors of a saved state are replaced before the file that belongs to them names new ones",
        file="attnpool/checkpoint.py",
        old='name = f"state-{progress.epoch}-{progress.step}.safetensors"',
        new='name = "state-0.safetensors"',
        tests=(
            "tests/test_cli.py::test_a_killed_training_starts_again",
            "tests/test_training.py::test_resumed_is_the_same",
        ),
    ),
    Fault(
        name="file-half-written",
        what="JSON and text are written in place, so that a failure leaves half a file under the right name",
        file="attnpool/storage.py",
        old="        partial.write_bytes(data)\n        os.replace(partial, path)\n",
        new="        path.write_bytes(data)\n",
        tests=("tests/test_submission.py", "tests/test_report.py", "tests/test_cli.py"),
    ),
    # scores
    Fault(
        name="ties-by-order",
        what="pictures of equal score enter the precision-recall curve one by one, in the order they stand in",
        file="attnpool/metrics.py",
        old="last_of_ties = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)",
        new="last_of_ties = np.arange(len(ranked))",
        tests=("tests/test_metrics.py",),
    ),
    Fault(
        name="class-order-unchecked",
        what="a run is scored on data with the same classes in another order",
        file="attnpool/evaluation.py",
        old="if index.classes != run.model.classes:",
        new="if set(index.classes) != set(run.model.classes):",
        tests=("tests/test_evaluation.py::test_other_classes",),
    ),
    Fault(
        name="spread-too-small",
        what="the spread over seeds divides by n and not by n - 1",
        file="attnpool/tables.py",
        old="{numbers.std(ddof=1):.{digits}f}",
        new="{numbers.std():.{digits}f}",
        tests=("tests/test_tables.py",),
    ),
    # command line
    Fault(
        name="recipe-beats-flag",
        what="an option of the recipe wins over the same option on the command line",
        file="attnpool/cli.py",
        old="            args.parser.set_defaults(**read_recipe(args))\n            args = parser.parse_args(words)\n",
        new="            vars(args).update(read_recipe(args))\n",
        tests=("tests/test_arguments.py",),
    ),
    # data
    Fault(
        name="flip-keeps-sides",
        what="the left joints of a mirrored person stay left ones",
        file="attnpool/data/transforms.py",
        old="return tuple(moved[j] for j in MPII_FLIP) if self.flipped and moved else tuple(moved)",
        new="return tuple(moved)",
        tests=("tests/data/test_transforms.py",),
    ),
    Fault(
        name="same-views-every-epoch",
        what="a picture is cropped and flipped in the same way in every epoch",
        file="attnpool/data/loader.py",
        old="np.random.default_rng([stream, self.seed, self.epoch, i])",
        new="np.random.default_rng([stream, self.seed, i])",
        tests=("tests/data/test_loader.py",),
    ),
    Fault(
        name="upright-turned-round",
        what="photos that a telephone took upright are turned the wrong way",
        file="attnpool/data/media.py",
        old="6: Image.Transpose.ROTATE_270,",
        new="6: Image.Transpose.ROTATE_90,",
        tests=("tests/data/test_media.py",),
    ),
    Fault(
        name="first-frame-of-segment",
        what="testing takes the first frame of every segment of a clip and not the middle one",
        file="attnpool/data/sampling.py",
        old="return [(2 * s + 1) * places // (2 * segments) for s in range(segments)]",
        new="return [s * places // segments for s in range(segments)]",
        tests=("tests/data/test_sampling.py",),
    ),
    Fault(
        name="flow-axes-exchanged",
        what="in stacks of optical flow the motion down comes before the motion to the right",
        file="attnpool/data/flow.py",
        old="flow = np.concatenate([step.transpose(2, 0, 1) for step in steps])",
        new="flow = np.concatenate([step.transpose(2, 0, 1)[::-1] for step in steps])",
        tests=("tests/data/test_flow.py",),
    ),
    Fault(
        name="hico-ambiguous-negative",
        what="HICO's ambiguous labels count as negatives",
        file="attnpool/data/hico.py",
        old="            ambiguous=ambiguous[i],\n",
        new="",
        tests=("tests/data/test_hico.py",),
    ),
    Fault(
        name="mpii-classes-sorted",
        what="MPII's class names are sorted, while labels count them by first occurrence",
        file="attnpool/data/mpii.py",
        old="return parts, tuple(classes)",
        new="return parts, tuple(sorted(classes))",
        tests=("tests/data/test_mpii.py",),
    ),
    Fault(
        name="hmdb51-unused-clips",
        what="clips that a split of HMDB51 leaves out are trained on",
        file="attnpool/data/hmdb51.py",
        old='_SPLITS = {"0": "unused",',
        new='_SPLITS = {"0": "train",',
        tests=("tests/data/test_hmdb51.py",),
    ),
    # pose and explanations
    Fault(
        name="disc-of-half-radius",
        what="the radius of a joint's disc is taken for its diameter",
        file="attnpool/pose/targets.py",
        old='reach = radius * CANVAS_WIDTH if kind == "disc"',
        new='reach = radius * CANVAS_WIDTH / 2 if kind == "disc"',
        tests=("tests/pose/test_targets.py",),
    ),
    Fault(
        name="map-half-a-cell-off",
        what="a map is drawn with the centres of its outer cells on the edges of the picture",
        file="attnpool/explain/overlays.py",
        old="resize((x2 - x1, y2 - y1), Image.Resampling.BICUBIC))",
        new="resize((x2 - x1, y2 - y1), Image.Resampling.BICUBIC, (0.5, 0.5, *(n - 0.5 for n in values.shape[::-1]))))",
        tests=("tests/explain", "tests/test_explaining.py"),
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
