"""Opens samples of shards, which lie on this disk or are fetched whole when they are needed and kept for a while."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from attnpool.data.decoding.image import Unreadable
from attnpool.data.shards.index import Entry, Member, Record, scan
from attnpool.files import (
    CHECK,
    cache_folder,
    digest_of,
    is_full,
    is_intact,
    make_folder,
    replacing,
    sealed,
    write_bytes,
)
from attnpool.keypoints.joints import Joints

LIMIT = "ATTNPOOL_SHARD_CACHE"  # environment variable: gigabytes of fetched shards that are kept
DEFAULT_LIMIT = 20.0
ATTEMPTS = 3  # to fetch a shard
WAIT = 1.0  # seconds before the second attempt; twice as long before the next
STALE = 60 * 60  # seconds after which what was half fetched is taken for left behind
SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/+")


class Place(NamedTuple):
    """A shard: where it is, its size in bytes, and what tells its content from any other."""

    address: str
    bytes: int
    key: str

    @property
    def name(self) -> str:
        return self.address.rpartition("/")[2]


@dataclass(frozen=True, eq=False)
class Shards:
    """The samples of a dataset that lies in shards, for `Dataset.storage`.

    Attributes:
        places: the shards.
        entries: path of a sample -> where it is.
    """

    places: tuple[Place, ...]
    entries: dict[str, Entry]

    @contextmanager
    def opened(self, path: str) -> Iterator[Path]:
        """A sample as a file, or for the frames of a clip a folder, which is there until the block ends.

        Raises:
            Unreadable: (a ValueError) its bytes are not those that were written.
            OSError: its shard cannot be fetched, or there is no space for the file.
        """
        entry = self.entries[path]
        contents = [self.content(entry.shard, member, path) for member in entry.members]
        if entry.frames:
            with tempfile.TemporaryDirectory(prefix="attnpool-", ignore_cleanup_errors=True) as folder:
                for member, content in zip(entry.members, contents, strict=True):
                    Path(folder, member.name).write_bytes(content)
                yield Path(folder)
            return
        handle, name = tempfile.mkstemp(prefix="attnpool-", suffix=Path(entry.members[0].name).suffix)
        try:
            with open(handle, "wb") as file:
                file.write(contents[0])
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def content(self, shard: int, member: Member, path: str) -> bytes:
        """The bytes of a file in a shard."""
        place = self.places[shard]
        with open_shard(place) as file:
            file.seek(member.offset)
            content: bytes = file.read(member.size)
        if digest_of(content) != member.digest:
            raise Unreadable(Path(path), f"{place.name} is damaged or was changed since it was written")
        return content

    def people(self, path: str, frame: int | None) -> list[Joints]:
        """The joints of the people in a frame of a clip, or in all frames."""
        entry = self.entries[path]
        if entry.keypoints is None:
            return []
        of_frames = json.loads(self.content(entry.shard, entry.keypoints, path))
        found = chain(*of_frames.values()) if frame is None else of_frames.get(str(frame), ())
        return [tuple(None if joint is None else (joint[0], joint[1]) for joint in joints) for joints in found]

    def digest(self, path: str) -> str:
        """What tells the content of a sample from any other."""
        return self.entries[path].digest

    def size(self, path: str) -> tuple[int, int] | None:
        """Width and height of an image, or of a clip's first frame; None if they are not known."""
        return self.entries[path].size

    def block(self, path: str) -> int:
        """The number of the sample's shard."""
        return self.entries[path].shard


def is_remote(address: str) -> bool:
    """Whether an address is not a path on this disk."""
    return bool(SCHEME.match(address))


@contextmanager
def open_shard(place: Place) -> Iterator[Any]:
    """Opens a shard, which is fetched first if it is not here."""
    if not is_remote(place.address):
        with Path(place.address).open("rb") as file:
            yield file
        return
    for _ in range(ATTEMPTS):  # another process may remove it between the two steps
        with suppress(FileNotFoundError):
            file = fetched(place).open("rb")
            break
    else:
        raise OSError(f"{place.address}: is removed as soon as it is fetched; set {LIMIT} to more gigabytes")
    with file:
        yield file


def fetched(place: Place) -> Path:
    """The copy of a remote shard on this disk. Others, the longest unused, are removed to keep within the limit.

    Raises:
        OSError: it cannot be fetched.
    """
    folder = cache_folder() / "shards"
    file = folder / f"{place.key}.tar"
    with suppress(OSError):
        os.utime(file)  # reading is use
        return file
    make_folder(folder)
    with FileLock(folder / f"{place.key}.lock"):
        if not file.exists():
            make_room(folder, place.bytes)
            with replacing(file) as partial:
                download(place, partial)
    return file


def download(place: Place, target: Path) -> None:
    """Copies a shard from its address, again if the connection breaks."""
    system, path = filesystem(place.address)
    for attempt in range(ATTEMPTS):
        try:
            system.get_file(path, str(target))
            size = target.stat().st_size
            if size == place.bytes:
                return
            raise OSError(f"it has {size} bytes, not {place.bytes} as its index says")
        except Exception as error:  # every file system has its own
            if isinstance(error, OSError) and is_full(error):
                raise
            if attempt == ATTEMPTS - 1:
                raise OSError(f"{place.address}: cannot be fetched ({reason_of(error)})") from error
            time.sleep(WAIT * 2**attempt)


def make_room(folder: Path, needed: int) -> None:
    """Removes fetched shards, the longest unused first, until there is room for another within the limit.

    Raises:
        ValueError: the limit in the environment is no number.
    """
    text = os.environ.get(LIMIT, str(DEFAULT_LIMIT))
    try:
        left = float(text) * 1e9 - needed
    except ValueError:
        raise ValueError(f"{LIMIT} is {text!r}; give a number of gigabytes, such as 20") from None
    found = []
    for file in (*folder.glob("*.tar"), *folder.glob("*.tar.partial")):
        with suppress(OSError):
            about = file.stat()
            if file.suffix == ".tar" or about.st_mtime < time.time() - STALE:
                found.append((about.st_mtime, about.st_size, file))
    for _, size, file in sorted(found, reverse=True):  # the last used first
        left -= size
        if left < 0:
            file.unlink(missing_ok=True)


def scanned(place: Place) -> list[Record]:
    """The records of a shard without an index. A scan is kept for the next time.

    Raises:
        ValueError: it is no shard.
        OSError: it cannot be fetched.
    """
    kept = cache_folder() / "shards" / f"{place.key}.json"
    with suppress(OSError, ValueError):
        known = json.loads(kept.read_bytes())
        if CHECK in known and is_intact(known):
            return list(known["records"])
    with open_shard(place) as file:
        found = sealed({"records": scan(Path(file.name), place.address)})
    write_bytes(kept, json.dumps(found).encode())
    return list(found["records"])


def found_at(address: str) -> Place:
    """A shard whose content is told by what its file system says about it.

    Raises:
        ValueError: it is not there.
    """
    if is_remote(address):
        system, path = filesystem(address)
        try:
            size = int(system.info(path)["size"])
            return Place(address, size, key_of(address, str(system.ukey(path))))
        except Exception as error:  # every file system has its own
            raise ValueError(f"{address}: cannot be looked at ({reason_of(error)})") from error
    try:
        about = Path(address).stat()
    except OSError as error:
        raise ValueError(f"{address}: {(error.strerror or str(error)).lower()}; give the address of shards") from error
    return Place(address, about.st_size, key_of(str(Path(address).resolve()), about.st_size, about.st_mtime_ns))


def key_of(*content: Any) -> str:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=12).hexdigest()


def filesystem(address: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path there.

    Raises:
        ValueError: the protocol is unknown, or its package is not installed.
    """
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ValueError(f"{address}: {reason_of(error)}") from error
    return system, path


def read_lines(address: str) -> Iterator[bytes]:
    """The lines of a file on this disk or at an address.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it cannot be read.
    """
    try:
        if is_remote(address):
            system, path = filesystem(address)
            # whole, because some file systems say of any failure to open a file that it is not there
            yield from io.BytesIO(system.cat_file(path))
        else:
            with Path(address).open("rb") as file:
                yield from file
    except (FileNotFoundError, ValueError):
        raise
    except Exception as error:
        raise ValueError(f"{address}: cannot be read ({reason_of(error)})") from error


def listed(pattern: str) -> list[str]:
    """The addresses that a pattern with `*`, `?` or `[...]` matches, by name."""
    if not is_remote(pattern):
        return sorted(glob.glob(pattern))
    system, path = filesystem(pattern)
    try:
        return sorted(system.unstrip_protocol(found) for found in system.glob(path))
    except Exception as error:
        raise ValueError(f"{pattern}: cannot be listed ({reason_of(error)})") from error


def reason_of(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
