"""The study behind the defaults: which pooling, which learning rate, which start, on a playground world.

    python benchmarks/study.py --out runs/study            # about 30 minutes on 2 cores; goes on where it was stopped

The learning rate of every head is chosen on a fifth held out of train ; only then is
the head trained on all of train and scored, once a seed, on val. A logistic regression on the same average-pooled,
standardised features, tuned in the same way, stands beside it. Writes study.json into --out.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

import attnpool as ap
from attnpool.backbone import Backbone
from attnpool.data import Index, hold_out
from attnpool.explain import peak, pointing
from attnpool.features import Features, extract
from attnpool.metrics import Scores, score
from attnpool.playground import write_folder
from attnpool.progress import bar

HEADS: dict[str, dict[str, Any]] = {
    "average": {"pooling": "average"},
    "max": {"pooling": "max"},
    "attentional": {"pooling": "attentional"},
    "attentional, official init": {"pooling": "attentional", "init": "official"},
    "attentional, softmax": {"pooling": "attentional", "activation": "softmax"},
    "pose": {"pooling": "pose"},
    "pose, pose loss off": {"pooling": "pose"},
    "pose, pose loss x 100": {"pooling": "pose"},
    "bilinear": {"pooling": "bilinear"},
    "compact bilinear": {"pooling": "compact_bilinear"},
    "compact bilinear, root and norm": {"pooling": "compact_bilinear", "signed_sqrt": True, "l2": True},
    "covariance": {"pooling": "covariance"},
    "saliency, norm": {"pooling": "saliency"},
    "saliency, centre": {"pooling": "saliency", "saliency": "centre"},
}
POSE_WEIGHT = {"pose, pose loss off": 0.0, "pose, pose loss x 100": 100.0}
RATES = dict.fromkeys(HEADS, (0.001, 0.003, 0.01, 0.03, 0.1))
# A pose head takes ten times as long as the others.
RATES["average"] = (1e-3, 3e-3, 1e-2, 3e-2)  # SGD
RATES["pose"] = (1e-3, 3e-3, 1e-2)
# A score is a sum over all pairs of channels, or over bins with many pairs each.
RATES["bilinear"] = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4)
RATES["compact bilinear"] = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
RATES["compact bilinear, root and norm"] = (0.003, 0.01, 0.03, 0.1, 0.3)
RATES["covariance"] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
# What differs from "pose" is the loss alone.
RATES |= dict.fromkeys(POSE_WEIGHT, ())
CHOOSING_SEEDS = (10,)
STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
VIEW = {"image_size": 448, "short_side": None, "max_width": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--world-seed", type=int, default=101)
    parser.add_argument("--images", type=int, default=1400)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--heads", nargs="+", default=list(HEADS), choices=HEADS)
    args = parser.parse_args()
    world = args.out / "world"
    with bar(args.images, "world", "images") as shown:
        write_folder(world, args.images, args.world_seed, progress=lambda done, _: shown.update(done - shown.n))
    train, val = ap.read(f"folder:{world}")
    fitted, tuned = hold_out(train, 0.2)
    tuned = replace(tuned, split="val")
    backbone = Backbone("lite0", frozen=True)
    file = args.out / "study.json"
    results = json.loads(file.read_text()) if file.exists() else {"heads": {}}
    results |= {
        "world_seed": args.world_seed,
        "images": [len(train), len(val)],
        "epochs": args.epochs,
        "seeds": args.seeds,
    }

    def keep() -> None:
        file.write_text(json.dumps(results, indent=1) + "\n")

    if "logistic regression" not in results:
        results["logistic regression"] = regression(backbone, train, val, fitted, tuned)
        keep()
    for name in args.heads:
        done = results["heads"].setdefault(name, {"chosen": {}, "val": {}})
        for rate in RATES[name]:
            for seed in CHOOSING_SEEDS:
                key = f"{rate:g}/{seed}"
                if key not in done["chosen"]:
                    run = fit(backbone, name, fitted, tuned, rate, seed, args)
                    done["chosen"][key] = run.about["results"]["history"][-1]["mAP"]
                    keep()
        means = {rate: np.mean([done["chosen"][f"{rate:g}/{seed}"] for seed in CHOOSING_SEEDS]) for rate in RATES[name]}
        done["lr"] = max(means, key=lambda rate: means[rate]) if means else results["heads"]["pose"]["lr"]
        for seed in args.seeds:
            if str(seed) not in done["val"]:
                run = fit(backbone, name, train, val, done["lr"], seed, args)
                history = run.about["results"]["history"]
                done["val"][str(seed)] = measure(run.model, val) | {"train_loss": history[-1]["loss"]}
                keep()
        print(name, done["lr"], [round(100 * v["mAP"], 1) for v in done["val"].values()], flush=True)


def fit(
    backbone: Backbone, name: str, train: Index, val: Index, rate: float, seed: int, args: argparse.Namespace
) -> ap.Run:
    """One training, as `attnpool train` does it."""
    model = ap.Recognizer(backbone, classes=train.classes, view=VIEW, seed=seed, **HEADS[name])
    options = ap.TrainOptions(epochs=args.epochs, seed=seed, pose_weight=POSE_WEIGHT.get(name, 1.0))
    folder = args.out / "runs" / f"{name}-{len(train)}-{rate:g}-{seed}".replace(" ", "_").replace(",", "")
    return ap.train(
        model, train, val, out=folder, options=options, optimizer=ap.OptimizerOptions(lr=rate), progress=False
    )


def measure(model: ap.Recognizer, val: Index) -> dict[str, float]:
    """mAP, accuracy, and how often the maps peak where they should."""
    features = extract(model, val, progress=False)
    size = VIEW["image_size"]
    logits, combined, bottom_up = [], [], []
    for start in range(0, len(features), 32):
        positions = range(start, min(start + 32, len(features)))
        with torch.inference_mode():
            out = model.pool(features.batch(positions), maps=True)
        true = torch.tensor([features.index.samples[i].labels[0] for i in positions])
        logits.append(out.logits.double().softmax(1).numpy())
        if out.combined is None:
            combined.append(np.full((len(true), 2), np.nan))
            bottom_up.append(np.full((len(true), 2), np.nan))
            continue
        combined.append(peak(out.combined[torch.arange(len(true)), true], (size, size)))
        bottom_up.append(peak(out.bottom_up[:, 0, 0], (size, size)))
    scores = rate(np.concatenate(logits), features)
    evidence = [features.evidence(i) for i in range(len(features))]
    objects = [features.objects(i) for i in range(len(features))]
    return {
        "mAP": scores.mAP,
        "accuracy": scores.accuracy or 0.0,
        "combined in evidence": float(np.nanmean(pointing(np.concatenate(combined), evidence))),
        "combined on object": float(np.nanmean(pointing(np.concatenate(combined), objects))),
        "bottom-up in evidence": float(np.nanmean(pointing(np.concatenate(bottom_up), evidence))),
        "bottom-up on object": float(np.nanmean(pointing(np.concatenate(bottom_up), objects))),
    }


def rate(probabilities: np.ndarray, features: Features) -> Scores:
    classes = features.index.classes
    targets = np.array([[k in sample.labels for k in range(len(classes))] for sample in features.index])
    return score(probabilities, targets, classes)


def regression(backbone: Backbone, train: Index, val: Index, fitted: Index, tuned: Index) -> dict[str, Any]:
    """Logistic regression on average-pooled features, its strength chosen on the held-out part, then fitted again."""

    def pooled(index: Index) -> tuple[np.ndarray, np.ndarray, Features]:
        model = ap.Recognizer(backbone, classes=train.classes, pooling="average", view=VIEW)
        features = extract(model, index)
        chunks = [range(i, min(i + 64, len(features))) for i in range(0, len(features), 64)]
        x = torch.cat([features.batch(chunk).mean((2, 3)) for chunk in chunks]).numpy()
        return x, np.array([sample.labels[0] for sample in features.index]), features

    def fitted_score(strength: float, one: Any, other: Any) -> Scores:
        mean, std = one[0].mean(0), one[0].std(0) + 1e-6
        model = LogisticRegression(C=strength, max_iter=5000).fit((one[0] - mean) / std, one[1])
        return rate(model.predict_proba((other[0] - mean) / std), other[2])

    parts = [pooled(index) for index in (fitted, tuned, train, val)]
    chosen = {c: fitted_score(c, parts[0], parts[1]).mAP for c in STRENGTHS}
    best = max(chosen, key=lambda c: chosen[c])
    final = fitted_score(best, parts[2], parts[3])
    on_val = {c: fitted_score(c, parts[2], parts[3]).mAP for c in STRENGTHS}
    return {"C": best, "mAP": final.mAP, "accuracy": final.accuracy, "best of all C on val": max(on_val.values())}


if __name__ == "__main__":
    main()
