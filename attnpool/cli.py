"""The command line: one verb, one library function."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from attnpool import commands
from attnpool.arguments import Parser, add_fields, add_recipe, read_recipe
from attnpool.options import OptimizerOptions, TrainOptions

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space left, as disks, quotas and limits of files say it


class Stopped(BaseException):
    """SIGTERM came while nothing had to be saved."""


def build_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser for a command; only if that names `train` with all of its options, for which torch is imported."""
    parser = Parser(
        prog="attnpool",
        description="Say what people are doing in a picture, and show exactly where the evidence is.",
        epilog="Exit codes: 0 done, 1 the run failed, 2 the input is at fault, 143 stopped by SIGTERM, state saved.",
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
    made.add_argument("--images", type=int, metavar="N", help="pictures of the world (default: 840)")
    made.add_argument("--epochs", type=int, metavar="N", help="of each of the trainings (default: 6)")
    made.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S", help="of the trainings (default: 0 1 2)"
    )
    made.add_argument(
        "--image-size", type=int, default=448, metavar="PX", help="side of pictures and network (default: %(default)s)"
    )
    folder(made, "--cache", "folder of features (default: $ATTNPOOL_CACHE or the user's cache)")

    made = verb(
        "playground",
        commands.playground,
        "write a generated world of people doing things",
        "attnpool playground data/play --images 600 --seed 1",
    )
    folder(made, "directory", "folder to make; it must not hold anything yet")
    made.add_argument("--images", type=int, default=600, metavar="N", help="pictures (default: %(default)s)")
    made.add_argument("--seed", type=int, default=0, metavar="S", help="of the world (default: %(default)s)")
    made.add_argument("--size", type=int, default=448, metavar="PX", help="side of the pictures (default: %(default)s)")

    made = verb(
        "check",
        commands.check,
        "read every picture of a dataset and list what cannot be used",
        "attnpool check folder:data/play",
    )
    made.add_argument("source", help="the dataset, such as folder:DIR")
    made.add_argument(
        "--split-seed", type=int, default=0, metavar="S", help="of the split into train and val, where there is none"
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
    add_model(made)
    add_fields(made.add_argument_group("training"), TrainOptions)
    add_fields(made.add_argument_group("updates"), OptimizerOptions)
    if "train" in words:
        from attnpool.data import ViewOptions

        add_fields(made.add_argument_group("pictures"), ViewOptions)
    made.add_argument(
        "--split-seed", type=int, default=0, metavar="S", help="of the split into train and val, where there is none"
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
    made.add_argument("--no-cache", dest="use_cache", action="store_false", help="compute features anew")
    folder(made, "--cache", "folder of features (default: $ATTNPOOL_CACHE or the user's cache)")

    made = verb("predict", commands.predict, "name the actions in pictures", "attnpool predict runs/a photo.jpg")
    folder(made, "run_folder", "the run")
    made.add_argument("files", nargs="+", metavar="FILE", help="pictures, or folders of them")
    made.add_argument("--top", type=int, default=5, metavar="N", help="classes to list (default: %(default)s)")

    made = verb(
        "explain", commands.explain, "draw where the evidence is", "attnpool explain runs/a photo.jpg --out explained/"
    )
    folder(made, "run_folder", "the run")
    made.add_argument("files", nargs="+", metavar="FILE", help="pictures, or folders of them")
    folder(made, "--out", "folder for the panels", required=True)
    made.add_argument(
        "--class", dest="chosen", metavar="NAME", help="class to show beside the best one (default: the second best)"
    )
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    """The options of `Recognizer`."""
    group = parser.add_argument_group("model")
    add = group.add_argument
    add(
        "--backbone",
        default="lite0",
        metavar="NAME",
        help="lite0 (needs no network) or a timm name (default: %(default)s)",
    )
    add(
        "--weights",
        default="pretrained",
        metavar="W",
        help="pretrained, random or a .safetensors or .pth file (default: %(default)s)",
    )
    add(
        "--pooling",
        default="attentional",
        metavar="NAME",
        help="average, max, attentional or pose (default: %(default)s)",
    )
    add("--rank", type=int, metavar="P", help="terms of attentional pooling (default: 1)")
    add("--per-class", action="store_true", default=None, help="a bottom-up map for every class")
    add("--activation", choices=("relu", "sigmoid", "softmax"), help="of the bottom-up map (default: none)")
    add("--dropout", type=float, metavar="R", help="rate on the pooled features (default: 0)")
    add("--dropout-on", choices=("pooled", "positions"), help="what is dropped (default: pooled)")
    add(
        "--init",
        choices=("average", "official"),
        help="start as average pooling, or as the released code (default: average)",
    )
    add(
        "--freeze-backbone",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="train the head alone, on features that are computed once (default: yes)",
    )


def stop(signum: int, frame: FrameType | None) -> None:
    raise Stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        parser = build_parser(words)
        args = parser.parse_args(words)
        from attnpool.checkpoint import Interrupted, TrainingFailed

        if getattr(args, "recipe", None):  # read again, so that a flag wins even where it says what is the default
            args.parser.set_defaults(**read_recipe(args))
            args = parser.parse_args(words)
        value, text = args.run(args)
        print(json.dumps(value, ensure_ascii=False, allow_nan=False) if args.json else text, flush=True)
    except SystemExit:  # these three first: they may come before the others are imported
        raise
    except Stopped:
        return fail("stopped", 143)
    except KeyboardInterrupt:
        return fail("stopped", 130)
    except Interrupted as stopped:
        return fail(str(stopped), 128 + stopped.signum)
    except BrokenPipeError:  # the reader of standard output, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except TrainingFailed as failure:
        return fail(str(failure), 1)
    except ValueError as mistake:
        if os.environ.get("ATTNPOOL_DEBUG"):
            raise
        return fail(str(mistake), 2)
    except OSError as error:
        if os.environ.get("ATTNPOOL_DEBUG"):
            raise
        where = f"{error.filename}: {error.strerror or error}" if error.filename else str(error)
        # the number is lost where a library in another language does the writing, such as safetensors
        if error.errno in FULL or any(os.strerror(number) in str(error) for number in FULL):
            return fail(f"no space left: {where}; free some or use another disk, then run the same command again", 1)
        return fail(where, 2)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def fail(message: str, code: int) -> int:
    print(f"attnpool: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
