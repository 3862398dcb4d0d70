"""A benchmark as the command line asks for it: its own options and no others, and the page says how it was made."""

from __future__ import annotations

import argparse
import shlex

from attnpool.experiments.benchmark import pooling, training
from attnpool.experiments.benchmark.heads import LAYOUTS, Sizes, families

OWN = {
    "pooling": ("heads", "layouts", "device", "compile"),
    "training": ("backbone", "image_size", "batch_size", "pooling"),
}
ROUNDS = {"pooling": 7, "training": 5}
QUICK_ROUNDS = 2


def run(args: argparse.Namespace) -> pooling.PoolingBenchmark | training.TrainingBenchmark:
    """Runs `benchmark pooling` or `benchmark training`; writes its files if there is a folder for them.

    Raises:
        ValueError: an option of the other benchmark, or what the benchmark itself refuses.
    """
    for what, names in OWN.items():
        for name in names:
            if what != args.what and getattr(args, name) is not None:
                raise ValueError(
                    f"benchmark {args.what} has no {flag(name)}, which is benchmark {what}'s: leave it out"
                )
    rounds = args.rounds if args.rounds is not None else QUICK_ROUNDS if args.quick else ROUNDS[args.what]
    made: pooling.PoolingBenchmark | training.TrainingBenchmark
    if args.what == "pooling":
        made = pooling.benchmark_pooling(
            sizes=pooling.QUICK if args.quick else Sizes(),
            rounds=rounds,
            thread_count=args.threads,
            heads=args.heads or (),
            layouts=args.layouts or LAYOUTS,
            device=args.device or "cpu",
            compiled=() if args.compile is None else args.compile or args.heads or families(),
        )
    else:
        usual = training.QUICK if args.quick else training.TrainingSizes()
        made = training.benchmark_training(
            sizes=training.TrainingSizes(
                usual.backbone if args.backbone is None else args.backbone,
                usual.image_size if args.image_size is None else args.image_size,
                usual.batch if args.batch_size is None else args.batch_size,
                usual.classes,
            ),
            pooling="attentional" if args.pooling is None else args.pooling,
            rounds=rounds,
            thread_count=args.threads,
        )
    if args.out is not None:
        made.save(args.out, typed(args))
    return made


def typed(args: argparse.Namespace) -> str:
    """The command that was given, without where its results go."""
    words = ["attnpool", "benchmark", args.what]
    for name in ("quick", "rounds", "threads", *OWN[args.what]):
        value = getattr(args, name)
        if value is None or value is False:
            continue
        given = [] if value is True else value if isinstance(value, list) else [value]
        words += [flag(name), *(str(word) for word in given)]
    return shlex.join(words)


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")
