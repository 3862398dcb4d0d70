"""The verbs of the command line: parsed arguments in, the value for --json and the text to print out.

Imports of the library stand inside the functions, so that `attnpool --help` does not wait for torch.
"""

from __future__ import annotations

import argparse
from typing import Any

from attnpool.cli.flags import collect, refuse
from attnpool.training.config import ModelOptions, OptimizerOptions, TrainOptions

Result = tuple[Any, str]


def quickstart(args: argparse.Namespace) -> Result:
    from attnpool.experiments import quickstart as module

    images = module.IMAGES if args.images is None else args.images
    epochs = module.EPOCHS if args.epochs is None else args.epochs
    made = module.quickstart(
        out=args.out, images=images, epochs=epochs, seeds=args.seeds, image_size=args.image_size, cache=args.cache
    )
    return made.to_json(), str(made)


def playground(args: argparse.Namespace) -> Result:
    from attnpool.playground import STYLES, write_style
    from attnpool.progress import bar

    unit, usual = STYLES[args.style]
    count = usual if args.images is None else args.images
    with bar(count, "playground", unit) as shown:
        write_style(
            args.directory,
            args.style,
            count,
            args.seed,
            size=args.size,
            frames=args.frames,
            progress=lambda done, _: shown.update(done - shown.n),
        )
    value = {"directory": str(args.directory), "style": args.style, unit: count, "seed": args.seed}
    value |= {"frames": args.frames or 40} if unit == "clips" else {"size": args.size or 448}
    return (
        value,
        f"{args.directory}: {count} {unit}; next: attnpool train {args.style}:{args.directory} --out runs/play",
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
    from attnpool.training.recipe import Options, fit

    options = Options(
        collect(ModelOptions, args),
        collect(TrainOptions, args),
        collect(OptimizerOptions, args),
        collect(data.Preprocessing, args),
    )
    parts = data.read(args.source, split_seed=args.split_seed)
    run = fit(options, parts, args.out, cache=args.cache, split_seed=args.split_seed)
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
    from attnpool.explain.report import draw_evaluation

    found = run_evaluation(
        args.run_folder,
        args.source,
        split=args.split,
        best=args.best,
        submission=args.submission,
        frames=args.frames,
        crops=args.crops,
        flip=args.flip,
        fuse=args.fuse,
        workers=args.workers,
        use_cache=args.use_cache,
        cache=args.cache,
        progress=True,
    )
    drawn = draw_evaluation(found, plot=args.plot)
    return drawn.to_json(), str(drawn)


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
    made = module.reproduce(
        args.table,
        out=args.out,
        mpii=args.mpii,
        hico=args.hico,
        hmdb51=args.hmdb51,
        rows=args.rows,
        seeds=args.seeds,
        scale=args.scale or "full",
        weights=args.weights,
        workers=args.workers,
        cache=args.cache,
    )
    return made.to_json(), str(made)


def poolings(args: argparse.Namespace) -> Result:
    from attnpool.experiments import pooling_study as study

    refuse(args, ("mpii", "hico", "hmdb51", "scale"), "poolings")
    made = study.poolings(
        out=args.out,
        data=args.data,
        images=args.images,
        rows=args.rows,
        seeds=args.seeds,
        backbone=args.backbone or "lite0",
        weights=args.weights,
        epochs=study.EPOCHS if args.epochs is None else args.epochs,
        image_size=study.IMAGE_SIZE if args.image_size is None else args.image_size,
        workers=args.workers,
        cache=args.cache,
    )
    return made.to_json(), str(made)


def benchmark(args: argparse.Namespace) -> Result:
    from attnpool.experiments import benchmark as module

    own: dict[str, tuple[str, ...]] = {
        "pooling": ("heads", "layouts", "device", "compile"),
        "training": ("backbone", "image_size", "batch_size", "pooling"),
    }
    for what, names in own.items():
        for name in names:
            if what != args.what and getattr(args, name) is not None:
                flag = "--" + name.replace("_", "-")
                raise ValueError(f"benchmark {args.what} has no {flag}, which is benchmark {what}'s: leave it out")
    run: Any = {"pooling": module.benchmark_pooling, "training": module.benchmark_training}[args.what]
    given = ("quick", "rounds", "threads", "out", *own[args.what])
    made = run(**{name: getattr(args, name) for name in given if getattr(args, name) is not None})
    return made.to_json(), str(made)


def predict(args: argparse.Namespace) -> Result:
    from attnpool.evaluation.predict import predict as run_prediction

    found = run_prediction(
        args.model, args.files, top=args.top, weights=args.weights, classes=args.classes, image_size=args.image_size
    )
    return found.to_json(), str(found)


def explain(args: argparse.Namespace) -> Result:
    from attnpool.explain.explain import explain_files

    found = explain_files(
        args.model,
        args.files,
        out=args.out,
        class_=args.chosen,
        weights=args.weights,
        classes=args.classes,
        image_size=args.image_size,
    )
    return found.to_json(), str(found)


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
    return made.to_json(), str(made)


def convert_tf(args: argparse.Namespace) -> Result:
    from attnpool.models.conversion.tensorflow import convert_tf as convert

    made = convert(
        args.prefix, variant=args.variant, classes=args.classes, out=args.out, task=args.task, python=args.python
    )
    return made.to_json(), str(made)
