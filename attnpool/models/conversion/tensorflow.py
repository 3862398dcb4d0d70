"""Converts the TensorFlow checkpoints that the paper's authors released to runs with the same logits and maps.

The variables are read by a child process (`tensorflow_worker.py`), so TensorFlow may be in another Python environment.
docs/tensorflow.md explains the names of the variables.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from attnpool.backbones.backbone import Backbone
from attnpool.child import Child
from attnpool.models.conversion.tensorflow_names import HEADS, VIEW, kind_of, ours, tf_shape, unused, variables
from attnpool.models.recognizer import Recognizer
from attnpool.models.run import Run, require_new, save_run

Variant = Literal["baseline", "linear", "pose", "per-class"]

WORKER = Path(__file__).with_name("tensorflow_worker.py")
SECONDS = 1800  # time limit for reading a checkpoint


@dataclass(frozen=True)
class Converted:
    """The result of `convert_tf`: the run, and which variables of the checkpoint were loaded and ignored."""

    run: Run
    source: str
    variant: str
    matched: tuple[str, ...]
    ignored: tuple[str, ...]

    def __str__(self) -> str:
        momentum = sum(name.endswith("/Momentum") for name in self.ignored)
        others = [name for name in self.ignored if not name.endswith("/Momentum")]
        ignored = [f"{momentum} */Momentum"] * bool(momentum) + others
        return (
            f"{self.source}: {self.variant}, {len(self.run.model.classes)} classes, loaded {len(self.matched)} of "
            f"{len(self.matched)} variables, none missing; not used: {', '.join(ignored) or 'nothing'}\n"
            f"{self.run.folder}: next: attnpool explain {self.run.folder} photo.jpg --out explained/"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "run": str(self.run.folder),
            "source": self.source,
            "variant": self.variant,
            "classes": len(self.run.model.classes),
            "matched": list(self.matched),
            "missing": [],
            "ignored": list(self.ignored),
        }


def convert_tf(
    prefix: str | Path,
    *,
    variant: Variant,
    classes: str | Path | Sequence[str],
    out: str | Path,
    task: Literal["single", "multi"] = "single",
    python: str | Path | None = None,
) -> Converted:
    """Converts a checkpoint of the paper's released code to a run with the same logits, bottom-up and pose maps.

    The network is `resnet_v1_101` on RGB minus 128 (backbone "resnet101_tf"). The score is the released code's
    `logit_k = mean_i h_i (x_i a_k + alpha_k)`, which is our `AttentionalPooling` of rank 1 (or per class),
    `PoseRegularizedPooling`, or `AveragePooling` with h = 1 for the baseline. The state of the optimizer is dropped.

    Args:
        prefix: checkpoint, as the common start of the names of its files, without .index or .data-..., such as
            model.ckpt-12000; or the single file of a checkpoint in TensorFlow's first format.
        variant: network that was trained: baseline (average pooling), linear (attention from the features), pose
            (pose-regularised attention) or per-class (a bottom-up map for every class).
        classes: file with the class names, one per line, in the order of the checkpoint's logits. From Python it can
            also be a sequence of names.
        out: run folder to write, which must not hold a run yet.
        task: number of classes per image, single (exactly one) or multi (any number). The released networks are trained
            with a softmax in both cases.
        python: Python interpreter that can import TensorFlow (default: this one).

    Raises:
        ValueError: TensorFlow, the checkpoint or the file of classes cannot be used, or the checkpoint's variables are
            not those of the variant with these classes; the message names them.

    Source: Girdhar & Ramanan, "Attentional Pooling for Action Recognition", NIPS 2017, its released code and models.
    """
    if variant not in HEADS:
        raise ValueError(f"unknown variant {variant!r}: use one of {', '.join(HEADS)}")
    folder = Path(out)
    require_new(folder)
    listed = Path(classes) if isinstance(classes, str | Path) else None
    names = read_classes(listed) if listed else tuple(classes)  # type: ignore[arg-type]
    source = existing(prefix)
    pooling, options, layers = HEADS[variant]
    keys = variables(variant)
    found, shapes = read_variables(source, keys, Path(python or sys.executable))
    require_count(source, shapes, next(iter(layers)), names, listed)
    model = Recognizer(
        Backbone("resnet101_tf", "random"),
        classes=names,
        pooling=pooling,
        pooling_options=options,
        task=task,
        scores="softmax",
        standardize=False,
        preprocessing=VIEW,
    )
    own = model.state_dict()
    ignored = sorted(name for name in shapes if name not in keys and unused(name, variant))
    require_match(source, variant, shapes, {name: tf_shape(own[key]) for name, key in keys.items()}, ignored)
    model.load_state_dict(own | {key: ours(found[name], own[key]) for name, key in keys.items()})
    save_run(model, folder, recipe={"converted_from": source.name, "variant": variant})
    return Converted(Run.load(folder), str(source), variant, tuple(sorted(keys)), tuple(ignored))


def read_classes(path: Path) -> tuple[str, ...]:
    """Reads class names from a file with one name per line.

    Raises:
        ValueError: the file cannot be read, or a line between others is empty.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text in UTF-8"
        raise ValueError(f"{path}: cannot be read as a list of classes ({reason}); write one name per line") from error
    if "" in lines:
        raise ValueError(f"{path}, line {lines.index('') + 1}: empty; write one class name per line")
    return tuple(lines)


def existing(prefix: str | Path) -> Path:
    """The prefix of an existing checkpoint, given its prefix or the name of one of its files.

    Raises:
        ValueError: there is no such checkpoint.
    """
    path = Path(prefix)
    name = path.name
    for ending in (".index", ".meta", ".data-"):
        name = name.partition(ending)[0] if ending in name else name
    path = path.with_name(name) if name else path
    if path.with_name(f"{path.name}.index").is_file() or path.is_file():
        return path
    near = sorted(file.name.removesuffix(".index") for file in path.parent.glob("*.index"))
    hint = f"; there is {', '.join(near[:3])}" if near else ""
    raise ValueError(
        f"{path}: no such checkpoint, {path.name}.index is missing; give the common start of its files' names{hint}"
    )


def read_variables(
    prefix: Path, wanted: Iterable[str], python: Path
) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, ...]]]:
    """Reads those of the wanted variables that a checkpoint holds, and the shapes of all its variables.

    Raises:
        ValueError: the interpreter has no TensorFlow, or the checkpoint cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "variables.npz"
        try:
            reader = Child([str(python), str(WORKER), str(prefix.absolute()), str(file)])
        except OSError as error:
            raise ValueError(f"{python}: cannot be run ({error.strerror}); give an interpreter as python") from error
        with reader:
            try:
                said = reader.ask(list(wanted), seconds=SECONDS)
            except TimeoutError as error:
                raise ValueError(f"{prefix}: not read after {SECONDS} s; the checkpoint may be damaged") from error
            except EOFError as error:
                said = {"problem": f"the reader ended: {error}"}
        if "missing" in said:
            raise ValueError(
                f"{python} cannot import TensorFlow ({first_line(said['missing'])}): pip install 'attnpool[tf]', or "
                "give the interpreter of an environment with tensorflow-cpu as python"
            )
        if "errno" in said:
            raise OSError(said["errno"], said["problem"], folder)
        if "problem" in said:
            reason = first_line(said["problem"])[:200]
            raise ValueError(f"{prefix}: cannot be read as a TensorFlow checkpoint ({reason}); get it again")
        shapes = {name: tuple(shape) for name, (shape, _) in said["variables"].items()}
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}, shapes


def first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def require_count(
    prefix: Path, shapes: Mapping[str, tuple[int, ...]], scope: str, names: Sequence[str], listed: Path | None
) -> None:
    """Raises ValueError unless the number of class names is the checkpoint's number of classes."""
    biases = shapes.get(f"{scope}/biases")
    if biases is not None and len(biases) == 1 and biases[0] != len(names):
        raise ValueError(
            f"{prefix}: scores {biases[0]} classes, {listed or 'the list of classes'} names {len(names)}; "
            "give the classes that it was trained on, one per line, in its order"
        )


def require_match(
    prefix: Path,
    variant: str,
    shapes: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    ignored: Iterable[str],
) -> None:
    """Raises ValueError that names the variables that are missing, unknown or of another shape than expected."""
    missing = [name for name in expected if name not in shapes]
    unknown = sorted(shapes.keys() - expected.keys() - set(ignored))
    wrong = [
        f"{name} is {shapes[name]}, not {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    groups = ((missing, "missing"), (unknown, "unknown"), (wrong, "of another shape"))
    parts = [f"{len(group)} {what} ({some(group)})" for group, what in groups if group]
    if parts:
        held = kind_of(shapes)
        hint = f"use variant {held}" if held not in (None, variant) else "give a checkpoint of the released code"
        raise ValueError(f"{prefix}: does not hold the {variant} network: {', '.join(parts)}; {hint}")


def some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
