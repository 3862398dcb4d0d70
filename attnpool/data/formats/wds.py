"""`wds:PATTERN`: shards in WebDataset's layout, ours or of other programs, on this disk or at an fsspec address."""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path, PurePosixPath

from attnpool.data.dataset import Dataset, Sample, Task
from attnpool.data.decoding.contents import Media
from attnpool.data.formats.class_files import class_order
from attnpool.data.formats.entry import Format, ReadOptions
from attnpool.data.formats.folder import part_called
from attnpool.data.groups import with_groups
from attnpool.data.shards import storage
from attnpool.data.shards.index import (
    CLASS_LISTS,
    NAME,
    SHARDS,
    Entry,
    Header,
    Record,
    entry_of,
    header_of,
    read_index,
    sample_of,
)
from attnpool.data.shards.storage import Place, Shards
from attnpool.data.splits import hold_out
from attnpool.files import MARK_FILE

FIX = "give a folder of shards, or their names, such as wds:shards/train-{000000..000009}.tar"
MOST = 100_000  # shards that braces may name
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


def read_shards(root: Path, options: ReadOptions) -> dict[str, Dataset]:
    """Reads shards: tar files in which files of one name, up to the first dot, are a sample.

    `attnpool shard` writes them with an index, from which a dataset is opened without its shards being read. Shards of
    other programs need an image or a video and a `.cls` with the number or the name of its class in every sample; a
    `classes.txt` or `classnames.txt` beside them may name the classes. They are read once to find out what they hold.

    Shards with a word train, val or test in their names (or one that usually stands for it, see `folder.PARTS`) are
    these splits. Otherwise a stratified part of all samples becomes val, as with `folder:`.

    Args:
        root: the pattern: a folder or the address of one, or names of shards with `{000..009}`, `{a,b}`, `*`, `?`.
        options: all are used but those that leave out classes.

    Raises:
        ValueError: there are no shards, or they or their index are damaged or do not fit together.
    """
    addresses = shards_at(address_of(root))
    parts = parts_of(addresses)
    folder = addresses[0].rpartition("/")[0] or "."
    header, places, records = indexed(folder, addresses) or whole(folder, addresses)
    numbers = {name: number for number, name in enumerate(header.classes)}
    samples: dict[str, list[Sample]] = {}
    entries: dict[str, Entry] = {}
    for shard, place in enumerate(places):
        for record in records[place.name]:
            try:
                sample, entry = sample_of(record, numbers), entry_of(record, shard)
            except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
                what = f"{type(error).__name__}: {error}"
                raise ValueError(f"{place.address}: a record of it is malformed ({what}); write it again") from error
            if sample.path in entries:
                raise ValueError(f"{place.address}: {sample.path} is in it and in another shard; leave one of them out")
            entries[sample.path] = entry
            samples.setdefault(parts.get(place.address, "train"), []).append(sample)
    task: Task = "multi" if header.task == "multi" else "single"
    media: Media = "clips" if header.media == "clips" else "images"

    stored = Shards(tuple(places), entries)

    def dataset(part: str) -> Dataset:
        found, at = tuple(samples.get(part, ())), Path(folder)
        return Dataset(options.name, at, header.classes, found, task, part, media, options.format, storage=stored)

    if "val" in parts.values():
        splits = {part: dataset(part) for part in ("train", "val")}
    else:
        whole_train = dataset("train")
        if parts:
            note = f"{root}: there are no shards to validate on; a part of every class of train becomes val"
            whole_train = replace(whole_train, notes=(note,))
        if options.group_by:
            whole_train = with_groups(whole_train, options.group_by)
        rest, held = hold_out(whole_train, options.val_fraction, options.split_seed)
        splits = {"train": rest, "val": replace(held, split="val")}
    if "test" in parts.values() and options.test:
        splits["test"] = dataset("test")
    elif header.test_is_val and options.test:
        splits["test"] = splits["val"]
    for part, found in splits.items():
        if not len(found):
            raise ValueError(f"{root}: there are no samples in {part}; {FIX}")
    return splits


def own_split(root: Path) -> bool:
    """Whether there are shards to train on and others to validate on."""
    try:
        return "val" in parts_of(shards_at(address_of(root))).values()
    except ValueError:
        return False


FORMAT = Format(read_shards, own_split=own_split, sealed=True)


def address_of(root: Path) -> str:
    """What was typed: a path has one slash where an address had two. An address on this disk is a path."""
    return re.sub(r"^(file|local)://", "/", storage.SCHEME.sub(r"\1://", root.as_posix()))


def shards_at(pattern: str) -> list[str]:
    """The addresses of all shards that a pattern names, in order; all are in one folder.

    Raises:
        ValueError: there are none.
    """
    if not storage.is_remote(pattern) and Path(pattern).exists():  # whatever signs are in its name
        found = [pattern] if Path(pattern).is_file() else in_folder(pattern)
    else:
        found = [address for name in expanded(pattern) for address in named(name)]
    if not found:
        raise ValueError(f"{pattern}: there are no shards; {FIX}")
    if len({address.rpartition("/")[0] for address in found}) > 1:
        raise ValueError(f"{pattern}: names shards in several folders; {FIX}")
    if twice := sorted(address for address in set(found) if found.count(address) > 1):
        raise ValueError(f"{pattern}: names {twice[0]} twice; {FIX}")
    return found


def expanded(pattern: str) -> list[str]:
    """A pattern with every brace written out: `{08..10}` is 08, 09 and 10, `{a,b}` is a and b."""
    pieces: list[Sequence[str]] = []
    end = 0
    for found in _BRACES.finditer(pattern):
        pieces.append([pattern[end : found.start()]])
        first, last, names = found.groups()
        if names is None:
            if not 0 <= int(last) - int(first) < MOST:
                raise ValueError(f"{pattern}: {found[0]} is no range of at most {MOST} numbers; {FIX}")
            pieces.append([str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)])
        else:
            pieces.append(names.split(","))
        end = found.end()
    pieces.append([pattern[end:]])
    if (count := prod(map(len, pieces))) > MOST:
        raise ValueError(f"{pattern}: names {count} shards; give at most {MOST}")
    return ["".join(words) for words in itertools.product(*pieces)]


def named(name: str) -> list[str]:
    """The shards that a name without braces stands for: itself, those that it matches, or those in a folder."""
    if any(sign in name for sign in "*?["):
        return storage.listed(name)
    return [name] if name.endswith(".tar") else in_folder(name.rstrip("/"))


def in_folder(folder: str) -> list[str]:
    """The shards in a folder: those of its index, or all.

    Raises:
        ValueError: the index is damaged.
    """
    try:
        first = next(storage.read_lines(f"{folder}/{NAME}"), b"")
    except FileNotFoundError:
        return storage.listed(f"{folder if storage.is_remote(folder) else glob.escape(folder)}/*.tar")
    try:
        header = header_of(first)
    except (KeyError, TypeError, ValueError, RecursionError, AttributeError) as error:
        raise ValueError(f"{folder}/{NAME}: is no index of shards ({error}); write or copy the shards again") from error
    return [f"{folder}/{shard}" for shard in header.shards]


def parts_of(addresses: Sequence[str]) -> dict[str, str]:
    """The split of every shard by its name; none if no name says one.

    Raises:
        ValueError: some are of no split, or there is nothing to train on.
    """
    words = {address: re.split(r"[-_.\d]+", PurePosixPath(address).stem) for address in addresses}
    parts = {address: next(filter(None, map(part_called, each)), "") for address, each in words.items()}
    if not any(parts.values()):
        return {}
    if unknown := [address for address, part in parts.items() if not part]:
        raise ValueError(f"{unknown[0]}: its name does not say train, val or test as others do; rename it")
    if "train" not in parts.values():
        raise ValueError(f"{addresses[0]}: is not to train on, and no other shard is; name those of train, too")
    return parts


def indexed(folder: str, addresses: Sequence[str]) -> tuple[Header, list[Place], Mapping[str, list[Record]]] | None:
    """What the index beside shards says; None if there is none.

    Raises:
        ValueError: it is damaged, or a shard is not in it, is missing or has another size.
    """
    try:
        header, records = read_index(storage.read_lines(f"{folder}/{NAME}"), f"{folder}/{NAME}")
    except FileNotFoundError:
        return None
    places = []
    for address in addresses:
        name = PurePosixPath(address).name
        if name not in header.shards:
            raise ValueError(f"{address}: is not in {folder}/{NAME}; move it to a folder of its own")
        size = header.shards[name]
        key = storage.key_of(address, size, [record["members"] for record in records[name]])
        if not storage.is_remote(address):
            there = Path(address).stat().st_size if Path(address).is_file() else 0
            if there != size:
                said = f"has {there} bytes, not {size}" if there else "is not there,"
                fix = "copy it again, or delete it and run the same attnpool shard again"
                raise ValueError(f"{address}: {said} as the index beside it says; {fix}")
        places.append(Place(address, size, key))
    return header, places, records


def whole(folder: str, addresses: Sequence[str]) -> tuple[Header, list[Place], Mapping[str, list[Record]]]:
    """What shards without an index hold, by reading them.

    Raises:
        ValueError: a shard is missing or damaged, has samples without labels, or another kind of samples than others.
    """
    if unfinished(folder):
        raise ValueError(f"{folder}: its shards were not all written; run the same attnpool shard again")
    places = [storage.found_at(address) for address in addresses]
    records = {place.name: storage.scanned(place) for place in places}
    every = [record for found in records.values() for record in found]
    if not every:
        raise ValueError(f"{addresses[0]}: there are no samples; {FIX}")
    kinds = {(record["task"], record["media"]) for record in every}
    if len(kinds) > 1:
        said = " and ".join(sorted(f"{media} with {task} labels" for task, media in kinds))
        raise ValueError(f"{folder}: its shards hold {said}; put them into folders of their own")
    task, media = kinds.pop()
    labels = {
        name for record in every for key in ("labels", "ambiguous", "negatives") for name in record.get(key) or ()
    }
    classes = listed_classes(folder)
    if not classes:
        classes = sorted(labels, key=class_order)
    elif not labels <= set(classes) and all(name.isdecimal() for name in labels):
        if (highest := max(map(int, labels))) >= len(classes):
            raise ValueError(
                f"{folder}: class {highest} of its shards is not in the list of {len(classes)} there; add it"
            )
        for record in every:
            record["labels"] = [classes[int(name)] for name in record["labels"]]
    elif strangers := sorted(labels - set(classes)):
        raise ValueError(f"{folder}: class {strangers[0]!r} of its shards is not in the list there; add it")
    return Header(tuple(classes), task, media, {place.name: place.bytes for place in places}), places, records


def unfinished(folder: str) -> bool:
    """Whether `attnpool shard` has begun to write here; it has not finished, if there is no index."""
    try:
        return any(SHARDS.encode() in line for line in storage.read_lines(f"{folder}/{MARK_FILE}"))
    except FileNotFoundError:
        return False


def listed_classes(folder: str) -> list[str]:
    """The classes that a list beside shards names; none without a list."""
    for name in CLASS_LISTS:
        try:
            content = b"".join(storage.read_lines(f"{folder}/{name}")).decode("utf-8-sig")
        except FileNotFoundError:
            continue
        except UnicodeDecodeError as error:
            raise ValueError(f"{folder}/{name}: is not UTF-8 ({error}); save it again") from error
        return [line.strip() for line in content.splitlines() if line.strip()]
    return []
