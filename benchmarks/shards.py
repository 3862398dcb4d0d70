"""How fast images come from shards, beside the same images as files, and beside WebDataset's own reader.

    python benchmarks/shards.py folder:photos

In one process, each image decoded and cut to 448 pixels; the readers take turns, and the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import webdataset
from PIL import Image

from attnpool.data import Dataset, Preprocessing, batches, eval_view, load, read_splits
from attnpool.data.shards.write import shard
from attnpool.evaluation.tables import markdown_table

OPTIONS = Preprocessing()


def by_loader(dataset: Dataset) -> int:
    order = batches(len(dataset), 8, seed=0, epoch=0, blocks=dataset.blocks)
    return sum(len(batch.indices) for batch in load(dataset, OPTIONS, order, seed=0, epoch=0, train=False))


def by_webdataset(folder: Path) -> int:
    count = 0
    for file in sorted(folder.glob("train-*.tar")):
        for item in webdataset.WebDataset(str(file), shardshuffle=False):
            suffix = next(key for key in item if key in ("jpg", "jpeg", "png", "webp"))
            eval_view(Image.open(io.BytesIO(item[suffix])).convert("RGB"), OPTIONS)
            count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="dataset of images, as FORMAT:PATH")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shard(given.data, folder, per_shard=100)
        files, shards = (read_splits(source)["train"] for source in (given.data, f"wds:{folder}"))
        readers: dict[str, Callable[[], int]] = {
            "files": lambda: by_loader(files),
            "shards": lambda: by_loader(shards),
            "WebDataset": lambda: by_webdataset(Path(folder)),
        }
        times: dict[str, list[float]] = {name: [] for name in readers}
        for turn in range(given.rounds + 1):
            for name, read in readers.items():
                start = time.perf_counter()
                count = read()
                assert count == len(files)
                if turn:  # the first fills the system's cache of files
                    times[name].append((time.perf_counter() - start) / count)
    median = {name: statistics.median(values) for name, values in times.items()}
    rows = [[name, f"{1 / value:.1f}", f"{median['files'] / value:.2f}"] for name, value in median.items()]
    print(*markdown_table(["images from", "images / s", "speed relative to files"], rows), sep="\n")


if __name__ == "__main__":
    main()
