"""The verbs of the command line: parsed arguments in, the value for --json and the text to print out.

Imports of the library stand inside the functions, so that `attnpool --help` does not wait for torch.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from attnpool.cli.flags import collect, expand, named_file, refuse, weighted_run
from attnpool.training.config import ModelOptions, OptimizerOptions, TrainOptions

Result = tuple[Any, str]


def quickstart(args: argparse.Namespace) -> Result:
    from attnpool.experiments import quickstart as module

    images = module.IMAGES if args.images is None else args.images
    epochs = module.EPOCHS if args.epochs is None else args.epochs
    made = module.quickstart(
        args.out, images=images, epochs=epochs, seeds=args.seeds, image_size=args.image_size, cache=args.cache
    )
    return made.results, made.table()


def playground(args: argparse.Namespace) -> Result:
    from attnpool.playground import write_playground

    made = write_playground(
        args.directory,
        style=args.style,
        images=args.images,
        seed=args.seed,
        size=args.size,
        frames=args.frames,
        progress=True,
    )
    return made.to_json(), made.text()


def check(args: argparse.Namespace) -> Result:
    from attnpool import data

    found = data.check(args.source, split_seed=args.split_seed, progress=True)
    return found.to_json(), found.text()


def train(args: argparse.Namespace) -> Result:
    from attnpool import data
    from attnpool.training.recipe import Options, fit

    options = Options(
        collect(ModelOptions, args),
        collect(TrainOptions, args),
        collect(OptimizerOptions, args),
        collect(data.Preprocessing, args),
    )
    parts = data.read(args.source, split_seed=args.split_seed)
    run = fit(options, parts, args.out, cache=args.cache, split_seed=args.split_seed or 0)
    results = run.about["results"]
    last = results["history"][-1]
    value = {
        "run": str(args.out),
        "weights": results["weights"],
        "epochs": last["epoch"],
        "loss": last["loss"],
        "mAP": last["mAP"],
        "accuracy": last["accuracy"],
        "skipped": results["skipped"],
    }
    lines = [f"weights: {value['weights']}"]
    lines += [f"skipped {item['file']}: {item['reason']}" for item in results["skipped"]]
    part = "a part of train" if options.train.patience else "val"
    if options.train.trainval:
        part += ", which was trained on"
    lines.append(
        f"{args.out}: {last['epoch']} epochs, loss {last['loss']:.4f}, mAP on {part} {100 * last['mAP']:.1f} %"
    )
    lines.append(f"next: attnpool evaluate {args.out} {args.source}")
    return value, "\n".join(lines)


def evaluate(args: argparse.Namespace) -> Result:
    from attnpool.evaluation.evaluate import evaluate as run_evaluation
    from attnpool.explain.report import evaluation_figure
    from attnpool.training.checkpoint import Run

    run = Run.load(args.run_folder, best=args.best)
    found = run_evaluation(
        run,
        args.source,
        split=args.split,
        cache=args.cache,
        use_cache=args.use_cache,
        workers=args.workers,
        crops=args.crops,
        flip=args.flip,
        frames=args.frames,
        fuse=[weighted_run(word) for word in args.fuse],
        submission=args.submission,
        progress=True,
    )
    if not found.scores.images:  # without labels there is nothing to draw
        return found.to_json() | {"plot": None}, str(found)
    plot = args.plot or args.run_folder / f"evaluation-{args.split}.png"
    evaluation_figure(plot, found.scores, found.confusion, found.classes)
    return found.to_json() | {"plot": str(plot)}, f"{found}\n\nplot: {plot}"


def pose(args: argparse.Namespace) -> Result:
    from attnpool.data.pose_labelling import label_pose

    done = label_pose(
        args.source,
        args.estimator,
        weights=args.weights,
        python=args.python,
        min_score=args.min_score,
        short_side=args.short_side,
        out=args.out,
        split=args.split,
        every=args.every,
        overwrite=args.overwrite,
        progress=True,
    )
    return done.to_json(), done.text()


def reproduce(args: argparse.Namespace) -> Result:
    if args.table == "poolings":
        return poolings(args)
    from attnpool.experiments.paper import reproduce as module

    refuse(args, ("data", "images", "backbone", "epochs", "image_size"), args.table)
    data = module.TABLES[args.table].data
    given = [name for name in ("mpii", "hico", "hmdb51") if getattr(args, name) is not None]
    if given and given != [data]:
        raise ValueError(
            f"{args.table} is about {data}; give --{data} ROOT, not --{next(n for n in given if n != data)}"
        )
    made = module.reproduce(
        args.table,
        out=args.out or Path("runs") / args.table,
        root=getattr(args, data),
        rows=args.rows,
        seeds=args.seeds,
        scale=args.scale or "full",
        weights=dict(named_file(word) for word in args.weights),
        workers=args.workers,
        cache=args.cache,
    )
    return made.results, made.text()


def poolings(args: argparse.Namespace) -> Result:
    from attnpool.experiments import pooling_study as study

    refuse(args, ("mpii", "hico", "hmdb51", "scale"), "poolings")
    backbone = args.backbone or "lite0"
    files = dict(named_file(word) for word in args.weights)
    for name in files:
        if name != backbone:
            raise ValueError(f"weights {name}={files[name]}: the backbone is {backbone}")
    made = study.poolings(
        args.out or Path("runs") / "poolings",
        data=args.data,
        images=args.images,
        rows=args.rows,
        seeds=args.seeds,
        backbone=backbone,
        weights=files.get(backbone, "pretrained"),
        epochs=study.EPOCHS if args.epochs is None else args.epochs,
        image_size=study.IMAGE_SIZE if args.image_size is None else args.image_size,
        workers=args.workers,
        cache=args.cache,
    )
    return made.results, made.text()


def benchmark(args: argparse.Namespace) -> Result:
    from attnpool.experiments.benchmark.command import run

    made = run(args)
    return made.results, made.text()


def predict(args: argparse.Namespace) -> Result:
    from attnpool.evaluation.predict import predict as run_prediction
    from attnpool.models.conversion.open_model import open_model

    if args.top < 1:
        raise ValueError(f"--top is {args.top}; give at least 1")
    model, media = open_model(args.model, weights=args.weights, classes=args.classes, image_size=args.image_size)
    predictions = run_prediction(model, expand(args.files, media), top=args.top)
    lines = []
    for prediction in predictions:
        lines.append(prediction.file)
        lines += [f"  {100 * value:5.1f} %  {label}" for label, value in prediction.scores]
        lines += [f"  note: {prediction.note}"] if prediction.note else []
    return [prediction.to_json() for prediction in predictions], "\n".join(lines)


def explain(args: argparse.Namespace) -> Result:
    from attnpool.explain.explain import explain_files
    from attnpool.models.conversion.open_model import open_model

    model, media = open_model(args.model, weights=args.weights, classes=args.classes, image_size=args.image_size)
    explained = explain_files(model, expand(args.files, media), args.out, chosen=args.chosen)
    lines = []
    for item in explained:
        beside = f", beside it {item['chosen']}" if item["panel"] else ""
        note = f" ({item['note']})" if "note" in item else ""
        lines.append(f"{item['panel'] or item['file']}: {item['best']}{beside}{note}")
    return explained, "\n".join(lines)


def convert(args: argparse.Namespace) -> Result:
    from attnpool.models.conversion.open_model import convert_to_run

    made = convert_to_run(
        args.model,
        out=args.out,
        weights=args.weights,
        classes=args.classes,
        image_size=args.image_size,
        rank=args.rank,
        per_class=args.per_class,
        activation=args.activation,
    )
    return made.to_json(), f"{made}\n{args.out}: next: attnpool explain {args.out} photo.jpg --out explained/"


def convert_tf(args: argparse.Namespace) -> Result:
    from attnpool.models.conversion.tensorflow import convert_tf as convert

    made = convert(
        args.prefix, variant=args.variant, classes=args.classes, out=args.out, task=args.task, python=args.python
    )
    return made.to_json(), f"{made}\n{args.out}: next: attnpool explain {args.out} photo.jpg --out explained/"
