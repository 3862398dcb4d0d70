"""Default options against a tuned logistic regression on the same pooled features, on several folders.

    python benchmarks/regression.py --out runs/regression --json docs/benchmarks/regression.json

For every folder: average and attentional pooling as `attnpool train` trains them by default, and a logistic regression
on the average-pooled, standardised features, whose strength is chosen by three-fold cross-validation on train. All are
scored on val, for three splits: other worlds, digits and splits than those the defaults were settled on. The folders
are two playgrounds, handwritten digits and patches of two photographs (both from scikit-learn, as PNG files).
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import attnpool as ap
from attnpool.evaluation.metrics import score
from attnpool.features.extraction import extract
from attnpool.playground.write_folder import write_folder

STRENGTHS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]


def digits(folder: Path, counts: list[int]) -> None:
    """The last `counts[d]` images of every digit d, enlarged to 64 px."""
    images, labels = load_digits(return_X_y=True)
    for digit, count in enumerate(counts):
        (folder / str(digit)).mkdir(parents=True)
        for i, pixels in enumerate(images[labels == digit][-count:]):
            small = Image.fromarray((pixels.reshape(8, 8) * 15.9).astype(np.uint8))
            small.resize((64, 64), Image.Resampling.BICUBIC).save(folder / str(digit) / f"{i}.png")


def patches(folder: Path, count: int) -> None:
    """Random 48 px patches of two photographs, a temple and a flower."""
    rng = np.random.default_rng(0)
    for name, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            y, x = rng.integers(0, photo.shape[0] - 48), rng.integers(0, photo.shape[1] - 48)
            Image.fromarray(photo[y : y + 48, x : x + 48]).save(folder / name / f"{i}.png")


def playground(folder: Path, images: int, seed: int) -> None:
    """A world without its split and annotations: folders of classes."""
    whole = folder.with_name(folder.name + "-whole")
    write_folder(whole, images, seed)
    for image in sorted(whole.glob("*/*/*.jpg")):
        target = folder / image.parent.name / image.name
        target.parent.mkdir(parents=True, exist_ok=True)
        image.rename(target)
    shutil.rmtree(whole)


FOLDERS: dict[str, Any] = {
    "playground, 980 images": lambda folder: playground(folder, 980, 27),
    "playground, 140 images": lambda folder: playground(folder, 140, 28),
    "digits, 40 each": lambda folder: digits(folder, [40] * 10),
    "digits, unbalanced": lambda folder: digits(folder, [100, 80, 60, 40, 30, 20, 15, 10, 8, 6]),
    "two photographs, 30 patches each": lambda folder: patches(folder, 30),
}


def pooled(model: ap.Recognizer, dataset: ap.Dataset) -> tuple[np.ndarray, np.ndarray]:
    features = extract(model, dataset).averaged
    return features.store[:, 0, 0], np.array([sample.labels[0] for sample in features.dataset])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/regression"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--split-seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--folders", nargs="+", default=list(FOLDERS), choices=FOLDERS)
    args = parser.parse_args()
    results = {}
    for name in args.folders:
        folder = args.out / name.replace(", ", "-").replace(" ", "-")
        if not folder.exists():
            FOLDERS[name](folder)
        splits = [compare(folder, split_seed, args.out / "runs") for split_seed in args.split_seeds]
        row = {key: float(np.mean([split[key] for split in splits])) for key in splits[0]}
        row["gap"] = max(row["average"], row["attentional"]) - row["logistic regression"]
        results[name] = {"mean": row, "splits": splits}
        print(f"{name:36}", " ".join(f"{key} {100 * value:5.1f}" for key, value in row.items()), flush=True)
        if args.json:
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text(json.dumps(results, indent=1) + "\n")


def compare(folder: Path, split_seed: int, runs: Path) -> dict[str, float]:
    """The mAP on val of the three, for one split of a folder."""
    train, val = ap.read(f"folder:{folder}", split_seed=split_seed)
    row: dict[str, float] = {}
    for pooling in ("average", "attentional"):
        model = ap.Recognizer("lite0", classes=train.classes, pooling=pooling)
        out = runs / f"{folder.name}-{pooling}-{split_seed}"
        run = ap.train(model, train, val, out=out, split_seed=split_seed, progress=False)
        row[pooling] = ap.evaluate(run, val).scores.mAP
    x, y = pooled(model, train)
    other, labels = pooled(model, val)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)),
        {"logisticregression__C": STRENGTHS},
        cv=min(3, int(np.bincount(y).min())),
        scoring="neg_log_loss",
    )
    search.fit(x, y)
    targets = np.eye(len(train.classes))[labels] > 0
    row["logistic regression"] = score(search.predict_proba(other), targets, train.classes).mAP
    return row


if __name__ == "__main__":
    main()
