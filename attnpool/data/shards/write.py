"""`attnpool shard`: writes a dataset as shards, which `wds:` reads here or anywhere."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from attnpool.data.dataset import Dataset, Sample
from attnpool.data.decoding.image import Unreadable, quiet
from attnpool.data.reading import has_own_split, read_splits
from attnpool.data.shards.index import CLASS_LISTS, NAME, SHARDS, Header, Record, lines_of, scan
from attnpool.data.shards.prepare import Prepared, contents_of, prepare, source_of
from attnpool.data.shards.report import Sharded
from attnpool.data.splits import by_hash
from attnpool.files import MARK_FILE, claim, digest_of, replacing, sync, write_text
from attnpool.progress import bar

PER_SHARD = {"images": 1000, "clips": 100}
AT_ONCE = 64  # samples that are in memory at a time


def shard(
    source: str | Path,
    out: str | Path,
    *,
    short_side: int | None = None,
    per_shard: int | None = None,
    split_seed: int | None = None,
    val_fraction: float | None = None,
    group_by: str | None = None,
    progress: bool = False,
) -> Sharded:
    """Writes a dataset as shards: tar files in WebDataset's layout, with an index that says what lies where.

    Every file is decoded first, and every shard is read again and compared when it is on the disk. Samples are mixed,
    so that a shard has images of all classes. Labels, joints and boxes go along. The same call continues where it was
    interrupted; shards that are there are compared with the data.

    Args:
        source: dataset to write, as FORMAT:PATH, such as folder:photos.
        out: folder of the shards.
        short_side: short side in pixels to which larger images are reduced, as JPEG of quality 95 (default: every file
            as it is).
        per_shard: number of samples in a shard (default: 1000 images or 100 clips).
        split_seed: seed of the split into train and val, for a dataset without a split of its own (default: 0).
        val_fraction: fraction of every class that becomes val, for a dataset without a split of its own (default:
            0.25).
        group_by: what belongs together, so that no split divides it, video (names but for the number at their end),
            parent (the folder) or a regular expression on the path.
        progress: show a progress bar with the time left.

    Raises:
        ValueError: the dataset or an option cannot be used, or the folder holds other files, or shards of other data.
        OSError: a shard cannot be written.
    """
    splits = read_splits(source, split_seed=split_seed, val_fraction=val_fraction, group_by=group_by)
    first = splits["train"]
    folder = Path(out)
    if per_shard is not None and per_shard < 1:
        raise ValueError(f"per_shard is {per_shard}; give at least 1")
    if short_side is not None and first.media == "clips":
        raise ValueError(f"short_side is {short_side}, but clips are kept as they are; leave it out")
    if short_side is not None and short_side < 1:
        raise ValueError(f"short_side is {short_side}; give at least 1 pixel, such as 512")
    if unlisted := [name for name in first.classes if len(name.splitlines()) != 1 or name != name.strip()]:
        raise ValueError(f"class {unlisted[0]!r} cannot be in a list of classes, a line each; rename its folder")
    if folder.resolve().is_relative_to(first.root.resolve()):
        raise ValueError(f"out {folder}: is inside the dataset; give a folder outside of it")
    count = per_shard or PER_SHARD[first.media]
    smaller = f", short_side {short_side}" if short_side else ""
    seeded = "" if has_own_split(source) else f", split_seed {split_seed or 0}, val_fraction {val_fraction or 0.25:g}"
    seeded += f", group_by {group_by}" if group_by else ""
    claim(folder, f"{SHARDS} {source}, {count} a shard{smaller}{seeded}")
    with alone(folder):
        return written(splits, source, folder, count, short_side, progress)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other calls from writing to a folder.

    Raises:
        ValueError: another call does.
    """
    lock = FileLock(folder / f"{MARK_FILE}.lock", timeout=0)
    try:
        with lock:
            try:
                yield
            finally:
                Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout as error:
        raise ValueError(f"out {folder}: another attnpool shard writes there; wait until it has ended") from error


def written(
    splits: dict[str, Dataset],
    source: str | Path,
    folder: Path,
    count: int,
    short_side: int | None,
    progress: bool,
) -> Sharded:
    """Writes all shards, and then their index."""
    first = splits["train"]
    write_text(folder / CLASS_LISTS[0], "".join(f"{name}\n" for name in first.classes))
    test_is_val = splits.get("test") is splits["val"]
    if test_is_val:
        del splits["test"]
    done = Sharded(str(source), str(folder), reduced=None if short_side is None else 0, notes=first.notes)
    records: dict[str, list[Record]] = {}
    media = first.media
    total = sum(map(len, splits.values()))
    with quiet(), ThreadPoolExecutor(2) as pool, bar(total, "shard", media, hidden=not progress) as shown:
        for part, dataset in splits.items():
            by_name = {sample.path: sample for sample in dataset}
            mixed = [by_name[path] for path in by_hash(list(by_name), 0)]
            for start in range(0, len(mixed), count):
                name = f"{part}-{start // count:06d}.tar"
                writing = Writing(dataset, mixed[start : start + count], start, short_side, pool, done, shown)
                records[name] = writing.records(folder / name)
                done.samples[part] = done.samples.get(part, 0) + len(records[name])
    sizes = {name: (folder / name).stat().st_size for name in records}
    header = Header(first.classes, first.task, media, sizes, test_is_val)
    with replacing(folder / NAME) as unnamed, unnamed.open("wb") as file:
        file.writelines(lines_of(header, records))
    done.shards, done.bytes = len(sizes), sum(sizes.values())
    return done


@dataclass
class Writing:
    """A shard that is to be written.

    Attributes:
        dataset: the dataset.
        samples: the samples of this shard.
        start: the number of the first of them.
        short_side: as in `shard`.
        pool: threads that decode.
        done, shown: what is said about all shards, and the progress bar.
    """

    dataset: Dataset
    samples: Sequence[Sample]
    start: int
    short_side: int | None
    pool: ThreadPoolExecutor
    done: Sharded
    shown: Any

    def records(self, file: Path) -> list[Record]:
        """Writes the shard, or compares the one that is there with the data; returns its records.

        Raises:
            ValueError: there is one of other data.
            OSError: it cannot be written, or what is read from the disk is not what was written.
        """
        if file.exists():
            records = self.compared(file)
            self.done.kept += 1
        else:
            with replacing(file) as unnamed:
                written = self.write(unnamed)
                sync(unnamed)
                records = scan(unnamed, str(file))
                members = [
                    member for record in records for member in (*record["members"], record["keypoints"]) if member
                ]
                read = {member.name: member.digest for member in members}
                if read != written:
                    raise OSError(f"{file}: what is on the disk is not what was written; look at the disk")
        if self.done.reduced is not None:
            self.done.reduced += sum(record["reduced"] for record in records)
        self.done.noted += [(record["path"], record["note"]) for record in records if record["note"]]
        return records

    def write(self, unnamed: Path) -> dict[str, str]:
        """Writes the shard; returns the checksum of every image, clip and file of joints in it."""
        written: dict[str, str] = {}
        with tarfile.open(unnamed, "w") as tar:
            for number, prepared in enumerate(self.prepared(self.samples), self.start):
                if prepared.reason:
                    self.done.failed.append((prepared.sample.path, prepared.reason))
                    continue
                key, task, labels = f"{number:09d}", self.dataset.task, prepared.sample.labels
                digests = {f"{key}.{suffix}": digest_of(content) for suffix, content in prepared.files.items()}
                written |= digests
                for suffix, content in prepared.files.items():
                    add(tar, f"{key}.{suffix}", content)
                if task == "single" and labels:
                    add(tar, f"{key}.cls", str(labels[0]).encode())
                add(tar, f"{key}.json", json.dumps(prepared.record | {"digests": digests}).encode())
        return written

    def compared(self, file: Path) -> list[Record]:
        """The records of a shard that is there, whose samples must be those that it would have now."""
        try:
            there = scan(file, str(file))
        except ValueError as error:
            raise ValueError(f"{error}: delete it, and the same command writes it again") from error
        known = {record["path"]: record["source"] for record in there}
        for prepared in self.prepared([sample for sample in self.samples if sample.path not in known]):
            if not prepared.reason:
                raise ValueError(
                    f"{file}: lacks {prepared.sample.path}; the data have changed, give a new folder as out"
                )
            self.done.failed.append((prepared.sample.path, prepared.reason))
        here = [sample for sample in self.samples if sample.path in known]
        changed = [path for path, source in self.pool.map(self.source, here) if source != known[path]]
        if changed or len(here) < len(known):
            name = changed[0] if changed else sorted(known.keys() - {sample.path for sample in here})[0]
            raise ValueError(
                f"{file}: {name} is not as it was written; the data have changed, give a new folder as out"
            )
        self.shown.update(len(here))
        return there

    def source(self, sample: Sample) -> tuple[str, str]:
        """The path of a sample, and what tells it from others; "" if it cannot be read any more."""
        try:
            with self.dataset.opened(sample) as path:
                return sample.path, source_of(self.dataset, sample, contents_of(path))
        except (OSError, Unreadable):
            return sample.path, ""

    def prepared(self, samples: Sequence[Sample]) -> Iterator[Prepared]:
        """Reads and decodes samples, a few at a time."""
        prepare_one = partial(prepare, self.dataset, short_side=self.short_side)
        for start in range(0, len(samples), AT_ONCE):
            for prepared in self.pool.map(prepare_one, samples[start : start + AT_ONCE]):
                yield prepared
                self.shown.update(1)


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Adds a file of which the shard says nothing but its name, so that equal data give equal shards."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
