"""What `attnpool shard` says at its end."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

LISTED = 10  # number of files that the text lists


@dataclass
class Sharded:
    """What `shard` has written; `str()` says it.

    Attributes:
        source: the dataset.
        out: the folder of the shards.
        shards: number of shards.
        kept: number of those that an earlier call had written.
        samples: number of samples in them, by split.
        bytes: size of the shards.
        failed: `(path, reason)` of samples that are in no shard because they cannot be read.
        reduced: number of images that were reduced; None if that was not asked for.
        noted: `(path, what)` of samples that are there, but not all of them.
        notes: what of the dataset its reader left out.
    """

    source: str
    out: str
    shards: int = 0
    kept: int = 0
    samples: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    reduced: int | None = None
    noted: list[tuple[str, str]] = field(default_factory=list)
    notes: Sequence[str] = ()

    exit_code = 1  # if there are samples that are in no shard

    @property
    def problems(self) -> list[str]:
        return [f"{len(self.failed)} files are in no shard, because they cannot be read"] if self.failed else []

    def to_json(self) -> dict[str, Any]:
        listed = {
            name: [{"file": path, "reason": reason} for path, reason in getattr(self, name)]
            for name in ("failed", "noted")
        }
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | listed

    def __str__(self) -> str:
        lines = []
        for what, found in (("cannot be read", self.failed), ("note", self.noted)):
            lines += [f"{what}: {path} ({reason})" for path, reason in found[:LISTED]]
            if len(found) > LISTED:
                lines.append(f"and {len(found) - LISTED} more, see --json")
        parts = ", ".join(f"{count} {part}" for part, count in self.samples.items())
        before = f", {self.kept} of them by an earlier call" if self.kept else ""
        lines.append(f"{self.out}: {self.shards} shards{before}, {self.bytes / 1e6:.1f} MB, {parts}")
        if self.reduced is not None:
            lines.append(f"{self.reduced} of {sum(self.samples.values())} images were larger and are reduced")
        lines.append(f"read them as {shlex.quote(f'wds:{self.out}')}")
        return "\n".join(lines)
