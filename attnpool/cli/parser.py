"""What can be typed: every verb with its options, an example and the function of `commands` that runs it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnpool.cli import commands
from attnpool.cli.flags import Parser, add_benchmark, add_fields, add_poolings, add_recipe
from attnpool.training.config import ModelOptions, OptimizerOptions, TrainOptions


def build_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for a command; only if that names `train` with all of its options, for which torch is imported."""
    parser = Parser(
        prog="attnpool",
        description="Say what people are doing in an image, and show exactly where the evidence is.",
        epilog="Exit codes: 0 done, 1 the run failed, 2 the input is at fault, 130 or 143 stopped by Ctrl-C or "
        "SIGTERM, state saved.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.add_argument("--json", action="store_true", help="print one JSON value on standard output")
        made.set_defaults(run=run)
        return made

    def folder(made: argparse.ArgumentParser, name: str, text: str, **more: Any) -> None:
        made.add_argument(name, type=Path, metavar="DIR", help=text, **more)

    made = verb(
        "quickstart",
        commands.quickstart,
        "compare three poolings on a generated world, with a report",
        "attnpool quickstart --out runs/quickstart",
    )
    folder(made, "--out", "folder of the world, the runs, results.json and report.html", required=True)
    made.add_argument("--images", type=int, metavar="N", help="images of the world (default: 840)")
    made.add_argument("--epochs", type=int, metavar="N", help="of each of the trainings (default: 6)")
    made.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S", help="of the trainings (default: 0 1 2)"
    )
    made.add_argument(
        "--image-size", type=int, default=448, metavar="PX", help="side of images and network (default: %(default)s)"
    )
    folder(made, "--cache", "folder of features (default: $ATTNPOOL_CACHE or the user's cache)")

    made = verb(
        "playground",
        commands.playground,
        "write a generated world of people doing things",
        "attnpool playground data/play --images 600 --seed 1",
    )
    folder(made, "directory", "folder to make; it must not hold anything yet")
    made.add_argument(
        "--style",
        choices=("folder", "mpii", "hico", "hmdb51"),
        default="folder",
        help="format: class folders or that of a benchmark (default: %(default)s)",
    )
    made.add_argument(
        "--images", type=int, metavar="N", help="images, or clips with hmdb51 (default: 600 images, 140 clips)"
    )
    made.add_argument("--seed", type=int, default=0, metavar="S", help="of the world (default: %(default)s)")
    made.add_argument("--size", type=int, metavar="PX", help="side of the images (default: 448; clips: 320 x 240)")
    made.add_argument("--frames", type=int, metavar="N", help="of each clip, with hmdb51 (default: 40)")

    made = verb(
        "check",
        commands.check,
        "read every image of a dataset and list what cannot be used",
        "attnpool check folder:data/play",
    )
    made.add_argument("source", help="the dataset, such as folder:DIR")
    made.add_argument(
        "--split-seed", type=int, metavar="S", help="of the split into train and val, where there is none"
    )

    made = verb(
        "train",
        commands.train,
        "train a recognizer; the same command goes on where it was stopped",
        "attnpool train folder:data/play --out runs/a --pooling attentional --epochs 15",
    )
    made.add_argument("source", help="the dataset, such as folder:DIR")
    folder(made, "--out", "the run folder", required=True)
    add_recipe(made)
    add_fields(made.add_argument_group("model"), ModelOptions)
    add_fields(made.add_argument_group("training"), TrainOptions)
    add_fields(made.add_argument_group("updates"), OptimizerOptions)
    if "train" in words:
        from attnpool.data import Preprocessing

        add_fields(made.add_argument_group("images"), Preprocessing)
    made.add_argument(
        "--split-seed", type=int, metavar="S", help="of the split into train and val, where there is none"
    )
    folder(made, "--cache", "folder of features (default: $ATTNPOOL_CACHE or the user's cache)")

    made = verb("evaluate", commands.evaluate, "score a run on a dataset", "attnpool evaluate runs/a folder:data/play")
    folder(made, "run_folder", "the run")
    made.add_argument("source", help="the dataset, such as folder:DIR")
    made.add_argument(
        "--split", choices=("val", "train", "all", "test"), default="val", help="part (default: %(default)s)"
    )
    made.add_argument(
        "--best", action="store_true", help="weights of the epoch with the best mAP, which was chosen on val"
    )
    made.add_argument(
        "--plot",
        type=Path,
        metavar="PNG",
        help="where to draw per-class AP and confusion (default: evaluation-SPLIT.png in the run)",
    )
    made.add_argument(
        "--submission",
        type=Path,
        metavar="MAT",
        help="also write the scores as MPII's server takes them; with --split test, whose labels are not public",
    )
    made.add_argument("--frames", type=int, metavar="N", help="frames of a clip (default: the run's)")
    made.add_argument(
        "--crops", type=int, choices=(1, 10), default=1, help="10: corners and middle, and their mirror images"
    )
    made.add_argument("--flip", action="store_true", help="also score the mirror image")
    made.add_argument(
        "--fuse",
        nargs="+",
        default=[],
        metavar="RUN[=W]",
        help="add other streams' logits, weighted (a flow stream: 1.5); W is 1 if not given",
    )
    made.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that decode (default: %(default)s)"
    )
    made.add_argument("--no-cache", dest="use_cache", action="store_false", help="compute features anew")
    folder(made, "--cache", "folder of features (default: $ATTNPOOL_CACHE or the user's cache)")

    made = verb(
        "pose",
        commands.pose,
        "label a dataset with the joints that an estimator finds; the same command goes on where it was stopped",
        "attnpool pose folder:photos --estimator mediapipe",
    )
    add_pose(made)

    made = verb(
        "reproduce",
        commands.reproduce,
        "train the rows of a table of the paper, and set its numbers beside ours",
        "attnpool reproduce table1 --scale small --out runs/table1",
    )
    made.add_argument(
        "table",
        choices=("table1", "table2", "table3", "poolings"),
        help="MPII, HICO or HMDB51; poolings: every pooling on one dataset, tuned alike, see docs/poolings.md",
    )
    folder(made, "--out", "folder for the runs, TABLE.json and TABLE.md (default: runs/TABLE)")
    for data in ("mpii", "hico", "hmdb51"):
        folder(made, f"--{data}", f"root of {data.upper()}'s files, see docs/datasets.md")
    made.add_argument("--rows", nargs="+", default=[], metavar="ROW", help="rows of the table (default: all)")
    made.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S", help="of the trainings (default: 0 1 2)"
    )
    made.add_argument(
        "--scale",
        choices=("full", "small"),
        help="small: on a laptop in minutes; without data, on a playground in the benchmark's format (default: full)",
    )
    made.add_argument(
        "--weights",
        nargs="+",
        default=[],
        metavar="BACKBONE=FILE",
        help="weights that are neither installed nor on timm's hub: bn_inception=FILE for its rows of table1",
    )
    add_poolings(made)
    made.add_argument("--workers", type=int, default=0, metavar="N", help="processes that decode (default: 0)")
    folder(made, "--cache", "folder of features (default: $ATTNPOOL_CACHE or the user's cache)")

    made = verb(
        "benchmark",
        commands.benchmark,
        "time heads or training steps beside what people use today",
        "attnpool benchmark pooling --heads attentional timm --layouts NHWC",
    )
    add_benchmark(made)

    made = verb(
        "predict", commands.predict, "name the actions in images and clips", "attnpool predict runs/a photo.jpg"
    )
    add_model(made)
    made.add_argument("files", nargs="+", metavar="FILE", help="images or clips, or folders of them")
    made.add_argument("--top", type=int, default=5, metavar="N", help="classes to list (default: %(default)s)")

    made = verb(
        "explain", commands.explain, "draw where the evidence is", "attnpool explain runs/a photo.jpg --out explained/"
    )
    add_model(made)
    made.add_argument("files", nargs="+", metavar="FILE", help="images or clips, or folders of them")
    folder(made, "--out", "folder for the panels", required=True)
    made.add_argument(
        "--class", dest="chosen", metavar="NAME", help="class to show beside the best one (default: the second best)"
    )

    made = verb(
        "convert",
        commands.convert,
        "put attention in place of the average pooling of a trained classifier, without changing a prediction",
        "attnpool convert timm:resnet50 --out runs/resnet50",
    )
    add_model(made)
    folder(made, "--out", "the run folder to make", required=True)
    made.add_argument("--rank", type=int, default=1, metavar="P", help="terms of the attention (default: %(default)s)")
    made.add_argument("--per-class", action="store_true", help="a bottom-up map for every class")
    made.add_argument(
        "--activation", choices=("relu", "sigmoid", "softmax"), help="of the bottom-up map (default: none)"
    )

    made = verb(
        "convert-tf",
        commands.convert_tf,
        "turn a TensorFlow checkpoint of the paper's authors into a run",
        "attnpool convert-tf models/model.ckpt-12000 --variant pose --classes classes.txt --out runs/authors",
    )
    made.add_argument(
        "prefix",
        type=Path,
        metavar="PREFIX",
        help="common start of the names of the checkpoint's files, without .index or .data-...",
    )
    made.add_argument(
        "--variant", choices=("baseline", "linear", "pose", "per-class"), required=True, help="what was trained"
    )
    made.add_argument("--classes", type=Path, metavar="FILE", required=True, help="class names in order, one a line")
    folder(made, "--out", "the run folder to make", required=True)
    made.add_argument(
        "--task", choices=("single", "multi"), default="single", help="how classes compete (default: %(default)s)"
    )
    made.add_argument("--python", metavar="FILE", help="interpreter that has TensorFlow (default: this one)")
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    """The arguments of `opening.open_model`."""
    add = parser.add_argument
    add("model", metavar="MODEL", help="run folder, or a classifier: timm:NAME, torchvision:NAME or lite0")
    add("--weights", type=Path, metavar="FILE", help="of a classifier: a local file (default: the published ones)")
    add("--classes", type=Path, metavar="FILE", help="of a classifier: class names, one a line (default: ImageNet's)")
    add("--image-size", type=int, metavar="PX", help="of a classifier: side of the images (default: its own)")


def add_pose(parser: argparse.ArgumentParser) -> None:
    """The arguments of `label_pose`."""
    add = parser.add_argument
    add("source", help="the dataset, such as folder:DIR")
    add(
        "--estimator",
        choices=("keypointrcnn", "mediapipe"),
        default="keypointrcnn",
        help="keypointrcnn: everybody in an image; mediapipe: one person, and quick (default: %(default)s)",
    )
    add("--weights", metavar="W", help="keypointrcnn: pretrained or a .pth or .safetensors file (default: pretrained)")
    add("--python", metavar="FILE", help="mediapipe: interpreter of an environment that has it (default: this one)")
    add("--out", type=Path, metavar="DIR", help="folder to write to (default: the dataset's own)")
    add("--split", choices=("all", "train", "val", "test"), default="all", help="part (default: %(default)s)")
    add(
        "--min-score",
        type=float,
        default=0.5,
        metavar="S",
        help="least score, 0 to 1, of a person and of a joint (default: %(default)s)",
    )
    add("--short-side", type=int, metavar="PX", help="keypointrcnn: images are resized to this (default: 800)")
    add("--every", type=int, default=1, metavar="N", help="clips: label every Nth frame (default: %(default)s)")
    add("--overwrite", action="store_true", help="label again what has labels")
