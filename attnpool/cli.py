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

from attnpool.arguments import Parser, add_fields, add_recipe, apply_recipe, collect, expand
from attnpool.options import OptimizerOptions, TrainOptions

Result = tuple[Any, str]  # the value for --json, and the text


class Stopped(BaseException):
    """SIGTERM came while nothing had to be saved."""


def build_parser() -> argparse.ArgumentParser:
    from attnpool.data import ViewOptions

    parser = Parser(
        prog="attnpool",
        description="Say what people are doing in a picture, and show exactly where the evidence is.",
        epilog="Exit codes: 0 done, 1 the run failed, 2 the input is at fault, 143 stopped by SIGTERM with the state saved.",
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
        quickstart,
        "compare three poolings on a generated world, with a report",
        "attnpool quickstart --out runs/quickstart",
    )
    folder(made, "--out", "folder of the world, the runs, results.json and report.html", required=True)
    made.add_argument("--images", type=int, metavar="N", help="pictures of the world (default: 1120)")
    made.add_argument("--epochs", type=int, metavar="N", help="of each of the trainings (default: 20)")
    made.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S", help="of the trainings (default: 0 1 2)"
    )
    folder(made, "--cache", "folder of features (default: $ATTNPOOL_CACHE or the user's cache)")

    made = verb(
        "playground",
        playground,
        "write a generated world of people doing things",
        "attnpool playground data/play --images 600 --seed 1",
    )
    folder(made, "directory", "folder to make; it must not hold anything yet")
    made.add_argument("--images", type=int, default=600, metavar="N", help="pictures (default: %(default)s)")
    made.add_argument("--seed", type=int, default=0, metavar="S", help="of the world (default: %(default)s)")
    made.add_argument("--size", type=int, default=448, metavar="PX", help="side of the pictures (default: %(default)s)")

    made = verb(
        "check",
        check,
        "read every picture of a dataset and list what cannot be used",
        "attnpool check folder:data/play",
    )
    made.add_argument("source", help="the dataset, such as folder:DIR")
    made.add_argument(
        "--split-seed", type=int, default=0, metavar="S", help="of the split into train and val, where there is none"
    )

    made = verb(
        "train",
        train,
        "train a recognizer; the same command goes on where it was stopped",
        "attnpool train folder:data/play --out runs/a --pooling attentional --epochs 15",
    )
    made.add_argument("source", help="the dataset, such as folder:DIR")
    folder(made, "--out", "the run folder", required=True)
    add_recipe(made)
    add_model(made)
    for title, options in (("training", TrainOptions), ("updates", OptimizerOptions), ("pictures", ViewOptions)):
        add_fields(made.add_argument_group(title), options)
    made.add_argument(
        "--split-seed", type=int, default=0, metavar="S", help="of the split into train and val, where there is none"
    )
    folder(made, "--cache", "folder of features (default: $ATTNPOOL_CACHE or the user's cache)")

    made = verb("evaluate", evaluate, "score a run on a dataset", "attnpool evaluate runs/a folder:data/play")
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

    made = verb("predict", predict, "name the actions in pictures", "attnpool predict runs/a photo.jpg")
    folder(made, "run_folder", "the run")
    made.add_argument("files", nargs="+", metavar="FILE", help="pictures, or folders of them")
    made.add_argument("--top", type=int, default=5, metavar="N", help="classes to list (default: %(default)s)")

    made = verb("explain", explain, "draw where the evidence is", "attnpool explain runs/a photo.jpg --out explained/")
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


def quickstart(args: argparse.Namespace) -> Result:
    from attnpool import quickstart as module

    images = module.IMAGES if args.images is None else args.images
    epochs = module.EPOCHS if args.epochs is None else args.epochs
    made = module.quickstart(args.out, images=images, epochs=epochs, seeds=args.seeds, cache=args.cache)
    return made.results, made.table()


def playground(args: argparse.Namespace) -> Result:
    from attnpool.playground import write_folder
    from attnpool.progress import bar

    with bar(args.images, "playground", "images") as shown:
        write_folder(
            args.directory,
            args.images,
            args.seed,
            size=args.size,
            progress=lambda done, _: shown.update(done - shown.n),
        )
    value = {"directory": str(args.directory), "images": args.images, "seed": args.seed, "size": args.size}
    return (
        value,
        f"{args.directory}: {args.images} images; next: attnpool train folder:{args.directory} --out runs/play",
    )


def check(args: argparse.Namespace) -> Result:
    from attnpool import data
    from attnpool.progress import bar

    with bar(0, "check", "images") as shown:

        def progress(done: int, total: int) -> None:
            shown.total = total
            shown.update(done - shown.n)

        found = data.check(args.source, split_seed=args.split_seed, progress=progress)
    return found.to_json(), found.text()


def train(args: argparse.Namespace) -> Result:
    from attnpool import data
    from attnpool.recognizer import Recognizer
    from attnpool.training import train as run_training

    apply_recipe(args)
    view, options, optimizer = (
        collect(data.ViewOptions, args),
        collect(TrainOptions, args),
        collect(OptimizerOptions, args),
    )
    train_part, val = data.read(args.source, split_seed=args.split_seed)
    model = Recognizer(
        args.backbone,
        classes=train_part.classes,
        pooling=args.pooling,
        rank=args.rank,
        per_class=args.per_class,
        activation=args.activation,
        dropout=args.dropout,
        dropout_on=args.dropout_on,
        init=args.init,
        task=train_part.task,
        weights=args.weights,
        freeze_backbone=args.freeze_backbone,
        view={"image_size": view.image_size, "short_side": view.short_side, "max_width": view.max_width},
        seed=options.seed,
    )
    if model.backbone.report:
        print(model.backbone.report, file=sys.stderr)
    run = run_training(
        model,
        train_part,
        val,
        out=args.out,
        options=options,
        optimizer=optimizer,
        view=view,
        cache=args.cache,
        split_seed=args.split_seed,
    )
    results = run.about["results"]
    last = results["history"][-1]
    value = {
        "run": str(args.out),
        "epochs": last["epoch"],
        "loss": last["loss"],
        "mAP": last["mAP"],
        "accuracy": last["accuracy"],
        "skipped": results["skipped"],
    }
    lines = [f"skipped {item['file']}: {item['reason']}" for item in results["skipped"]]
    part = "a part of train" if options.patience else "val"
    lines.append(
        f"{args.out}: {last['epoch']} epochs, loss {last['loss']:.4f}, mAP on {part} {100 * last['mAP']:.1f} %"
    )
    lines.append(f"next: attnpool evaluate {args.out} {args.source}")
    return value, "\n".join(lines)


def evaluate(args: argparse.Namespace) -> Result:
    from attnpool.checkpoint import Run
    from attnpool.evaluation import evaluate as run_evaluation
    from attnpool.report import evaluation_figure

    run = Run.load(args.run_folder, best=args.best)
    found = run_evaluation(
        run, args.source, split=args.split, cache=args.cache, use_cache=args.use_cache, progress=True
    )
    plot = args.plot or args.run_folder / f"evaluation-{args.split}.png"
    evaluation_figure(plot, found.scores, found.confusion, found.classes)
    return found.to_json() | {"plot": str(plot)}, f"{found}\n\nplot: {plot}"


def predict(args: argparse.Namespace) -> Result:
    from attnpool.checkpoint import Run
    from attnpool.evaluation import predict as run_prediction

    if args.top < 1:
        raise ValueError(f"--top is {args.top}; give at least 1")
    predictions = run_prediction(Run.load(args.run_folder).model, expand(args.files), top=args.top)
    lines = []
    for prediction in predictions:
        lines.append(prediction.file)
        lines += [f"  {100 * value:5.1f} %  {label}" for label, value in prediction.scores]
    return [prediction.to_json() for prediction in predictions], "\n".join(lines)


def explain(args: argparse.Namespace) -> Result:
    from attnpool.checkpoint import Run
    from attnpool.explaining import explain_files

    explained = explain_files(Run.load(args.run_folder).model, expand(args.files), args.out, chosen=args.chosen)
    return explained, "\n".join(f"{item['panel']}: {item['best']}, beside it {item['chosen']}" for item in explained)


def stop(signum: int, frame: FrameType | None) -> None:
    raise Stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code."""
    args = build_parser().parse_args(arguments)
    from attnpool.checkpoint import Interrupted, TrainingFailed

    signal.signal(signal.SIGTERM, stop)
    try:
        value, text = args.run(args)
        print(json.dumps(value, ensure_ascii=False, allow_nan=False) if args.json else text, flush=True)
    except Interrupted as stopped:
        return fail(str(stopped), 128 + stopped.signum)
    except Stopped:
        return fail("stopped", 143)
    except KeyboardInterrupt:
        return fail("stopped", 130)
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
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "No space left" in str(error)
        if full:
            return fail(
                f"{where}{error.strerror or error}: no space left; free some or use another disk, then run the same command again",
                1,
            )
        return fail(f"{where}{error.strerror or error}", 2)
    return 0


def fail(message: str, code: int) -> int:
    print(f"attnpool: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
