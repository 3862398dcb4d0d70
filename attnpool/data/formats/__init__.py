"""The formats of datasets: one reader per file, and an entry in `READERS` that describes its properties."""

from __future__ import annotations

from attnpool.data.formats import folder, hico, hmdb51, mpii, wds
from attnpool.data.formats.entry import Format, ReadOptions

__all__ = ["READERS", "Format", "ReadOptions"]

READERS: dict[str, Format] = {
    "folder": folder.FORMAT,
    "mpii": mpii.FORMAT,
    "hico": hico.FORMAT,
    "hmdb51": hmdb51.FORMAT,
    "hmdb51-2": hmdb51.FORMAT_2,
    "hmdb51-3": hmdb51.FORMAT_3,
    "wds": wds.FORMAT,
}
"""FORMAT in `FORMAT:PATH` -> its description and reader."""
