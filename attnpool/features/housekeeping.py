"""`attnpool cache`: what the feature cache holds, whether it is whole, and how it is made smaller."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attnpool.features.store import LONGEST, FeatureStore, Segment, checksum
from attnpool.files import cache_folder
from attnpool.progress import bar

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?\s*", re.IGNORECASE)
DAY = 24 * 60 * 60
# The names of stores, and of the files in them.
_STORE = re.compile(r".+-\d+-[0-9a-f]{16}")
_FILE = re.compile(r"lock|[0-9a-f]{16}\.(f16|jsonl|todo|lock)(\.partial)?")


@dataclass(frozen=True)
class Store:
    """The features of one backbone and preprocessing.

    Attributes:
        folder: where they are.
        rows: number of images or clips whose features are there.
        bytes: what the files take.
        used: when it was last read or written, in seconds since 1970.
        damaged: number of rows that do not match their checksum; None if nobody looked.
    """

    folder: Path
    rows: int
    bytes: int
    used: float
    damaged: int | None = None

    def __str__(self) -> str:
        day = time.strftime("%Y-%m-%d", time.localtime(self.used))
        state = "" if self.damaged is None else f", {self.damaged} damaged"
        return f"  used {day} {self.bytes / 1e6:9.1f} MB  {self.folder.name} ({self.rows} rows{state})"


@dataclass
class Cache:
    """What is in the cache; `str()` is a table.

    Attributes:
        folder: the cache's folder of features.
        stores: those that are there, or with `prune_cache` those that are left, the last used first.
        removed: those that `prune_cache` removed, or would remove.
        left: what could not be removed, and why.
        dry: whether nothing was removed after all.
    """

    folder: Path
    stores: list[Store]
    removed: Sequence[Store] = ()
    left: Sequence[str] = ()
    dry: bool = False

    exit_code = 1  # of a command that found damage, or left what it was to remove

    @property
    def problems(self) -> list[str]:
        damaged = [store for store in self.stores if store.damaged]
        return [
            *(
                f"{store.folder}: {store.damaged} rows are damaged; they are computed again when they are needed"
                for store in damaged
            ),
            *self.left,
        ]

    def to_json(self) -> dict[str, Any]:
        listed = {
            name: [{**asdict(store), "folder": str(store.folder)} for store in stores]
            for name, stores in (("stores", self.stores), ("removed", self.removed))
        }
        return {"folder": str(self.folder), **listed, "left": list(self.left), "dry_run": self.dry}

    def __str__(self) -> str:
        lines = [f"{self.folder}: {counted(self.stores)}", *map(str, self.stores)]
        if self.removed:
            lines += ["", f"{'would remove' if self.dry else 'removed'} {counted(self.removed)}"]
            lines += map(str, self.removed)
        return "\n".join(lines)


def counted(stores: Sequence[Store]) -> str:
    return f"{len(stores)} stores, {sum(store.bytes for store in stores) / 1e6:.1f} MB"


def list_cache(*, cache: str | Path | None = None) -> Cache:
    """Lists the features that are kept, the last used first.

    Args:
        cache: folder of features (default: $ATTNPOOL_CACHE or the user's cache).

    Raises:
        ValueError: there is no cache in the folder that was named.
    """
    root = features_folder(cache)
    return Cache(root, [store_at(folder) for folder in by_use(root)])


def verify_cache(*, cache: str | Path | None = None, progress: bool = False) -> Cache:
    """Reads every row and compares it with its checksum. What is damaged is computed again when it is needed.

    Args:
        cache: folder of features (default: $ATTNPOOL_CACHE or the user's cache).
        progress: show a progress bar.

    Raises:
        ValueError: there is a file in the folder's place.
    """
    root = features_folder(cache)
    folders = by_use(root)
    with bar(len(folders), "verify", "stores", hidden=not progress) as shown:
        stores = []
        for folder in folders:
            stores.append(store_at(folder, verify=True))
            shown.update(1)
    return Cache(root, stores)


def prune_cache(
    *,
    max_size: str | None = None,
    days: float | None = None,
    dry_run: bool = False,
    cache: str | Path | None = None,
) -> Cache:
    """Removes features that were not used for long, or the longest unused until the rest is small enough.

    Nothing is lost but time: what is needed again is computed again. Stores in which another process writes, and
    folders that hold anything else, are left.

    Args:
        max_size: size of what is kept, such as 20GB or 500MiB.
        days: age in days since the last use above which stores are removed.
        dry_run: only say what would be removed.
        cache: folder of features (default: $ATTNPOOL_CACHE or the user's cache).

    Raises:
        ValueError: neither limit is given, or one is malformed; or there is a file in the folder's place.
    """
    if max_size is None and days is None:
        raise ValueError("prune needs a limit: give max_size, such as 20GB, or days, such as 90")
    if days is not None and not 0 <= days < float("inf"):
        raise ValueError(f"days is {days}; give 0 or more")
    limit = None if max_size is None else size_of(max_size)
    root = features_folder(cache)
    oldest = 0.0 if days is None else time.time() - days * DAY
    kept: list[Store] = []
    removed: list[Store] = []
    left: list[str] = []
    for store in map(store_at, by_use(root)):
        too_much = limit is not None and sum(other.bytes for other in kept) + store.bytes > limit
        if store.used >= oldest and not too_much:
            kept.append(store)
            continue
        why = hindrance(store.folder)
        if not why and not dry_run:
            try:
                shutil.rmtree(store.folder)
            except OSError as error:
                why = (error.strerror or str(error)).lower()
        if why:
            left.append(f"{store.folder}: is left, {why}")
        (kept if why else removed).append(store)
    return Cache(root, kept, removed, left, dry_run)


def features_folder(cache: str | Path | None) -> Path:
    """The folder of all stores.

    Raises:
        ValueError: there is a file in its place.
    """
    root = (cache_folder() if cache is None else Path(cache)) / "features"
    if cache is not None and not os.path.lexists(root):
        raise ValueError(f"cache {cache}: is no cache, as it has no folder features; give the folder of a cache")
    for place in (root.parent, root):
        if place.exists() and not place.is_dir():
            raise ValueError(f"cache {place}: is a file; give a folder of features")
    return root


def by_use(root: Path) -> list[Path]:
    """The stores in a folder, the last used first; other folders are not among them."""
    if not root.is_dir():
        return []
    stores = [folder for folder in root.iterdir() if _STORE.fullmatch(folder.name) and folder.is_dir()]
    return sorted(stores, key=lambda folder: (-last_use(folder), folder.name))


def last_use(folder: Path) -> float:
    """When a store was last read or written; reading touches the folder."""
    return max(entry.stat().st_mtime for entry in (folder, *folder.iterdir()))


def store_at(folder: Path, *, verify: bool = False) -> Store:
    """What is in a store; with `verify` every row is read."""
    known: set[str] = set()
    damaged = 0
    for lines in sorted(folder.glob("*.jsonl")):
        array, rows = Segment(lines).read()
        known |= rows.keys()
        if verify and array is not None:
            damaged += sum(
                checksum(digest, row.matrix, row.frames, array[row.number]) != row.check for digest, row in rows.items()
            )
            damaged += len(lines.read_bytes().splitlines()) - 1 - len(rows)
        elif verify and (not Segment(lines).shape() or lines.stat().st_size > LONGEST):
            damaged += max(1, len(lines.read_bytes().splitlines()) - 1)
    size = sum(entry.stat().st_size for entry in folder.iterdir())
    return Store(folder, len(known), size, last_use(folder), damaged if verify else None)


def hindrance(folder: Path) -> str:
    """Why a store must not be removed, "" if it may be."""
    strangers = [entry.name for entry in folder.iterdir() if entry.is_dir() or not _FILE.fullmatch(entry.name)]
    segments = map(Segment, folder.glob("*.jsonl"))
    known = {file.name for segment in segments if segment.shape() for file in (segment.lines, segment.data)}
    unknown = [file.name for kind in ("*.f16", "*.jsonl") for file in folder.glob(kind) if file.name not in known]
    if unknown and not strangers:
        return f"because {unknown[0]} is damaged, or not of the cache; look at it, and delete the folder yourself"
    if strangers:
        return f"because it holds {strangers[0]}, which is not of the cache"
    return "because another process computes features in it" if FeatureStore(folder).held() else ""


def size_of(text: str) -> int:
    """The bytes of a size such as 20GB, 1.5GiB or 4096.

    Raises:
        ValueError: it is malformed.
    """
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f"max_size is {text!r}; give a number with a unit, such as 20GB or 500MiB")
    return int(float(found[1]) * UNITS[(found[2] or "").upper()])
