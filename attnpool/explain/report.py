"""The HTML report: one file that holds everything it shows and asks the network for nothing."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from attnpool.files import write_bytes

COLUMNS = {"mAP": "mAP", "accuracy": "Accuracy", "pointing": "Pointing"}


def write_report(
    path: str | Path,
    results: Mapping[str, Any],
    *,
    title: str,
    intro: str,
    plots: Sequence[tuple[str, bytes]] = (),
    panels: Sequence[tuple[str, bytes]] = (),
    command: str,
) -> None:
    """Write a comparison of heads as a self-contained page. It appears complete or not at all.

    Args:
        path: the file; missing directories are made.
        results: `{"seeds": [...], "heads": {name: {"mAP": [a fraction per seed], "accuracy": [...],
            "pointing": [...]}}, "seconds": ...}`; `None` or NaN where there is no value. Scores are printed in percent
            as mean ± standard deviation (n - 1) over the seeds.
        title: the heading.
        intro: text; an empty line starts a paragraph.
        plots: `(caption, PNG)` below the table.
        panels: `(caption, PNG)` of maps over images.
        command: what made the report.
    """
    heads: Mapping[str, Mapping[str, Sequence[float | None]]] = results.get("heads", {})
    keys = [key for key in COLUMNS if any(_values(scores.get(key)).size for scores in heads.values())]
    means = {
        key: {head: v.mean() for head, scores in heads.items() if (v := _values(scores.get(key))).size} for key in keys
    }
    rows = [
        {
            "head": head,
            "cells": [
                _cell(_values(scores.get(key)), len(heads) > 1 and means[key].get(head) == max(means[key].values()))
                for key in keys
            ],
        }
        for head, scores in heads.items()
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=False,
    )
    page = environment.get_template("report_template.html").render(
        title=title,
        intro=intro,
        columns=[COLUMNS[key] for key in keys],
        rows=rows,
        note=_note(keys, results.get("seeds", [])),
        plots=[_image(caption, data) for caption, data in plots],
        panels=[_image(caption, data) for caption, data in panels],
        command=command,
        made=_made(results),
    )
    write_bytes(Path(path), page.encode())


def _values(values: Sequence[float | None] | None) -> np.ndarray:
    """The values there are: neither `None` nor NaN."""
    return np.array([v for v in values or () if v is not None and not math.isnan(v)], dtype=np.float64)


def _cell(values: np.ndarray, best: bool) -> dict[str, Any]:
    if not values.size:
        return {"mean": "–", "sd": "", "best": False}
    sd = f"{100 * values.std(ddof=1):.1f}" if values.size > 1 else ""
    return {"mean": f"{100 * values.mean():.1f}", "sd": sd, "best": best}


def _note(keys: Sequence[str], seeds: Sequence[int]) -> str:
    spread = f"mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    parts = [f"In percent, {spread}."]
    if "mAP" in keys:
        parts.append("mAP is the mean average precision over classes (VOC2010 definition).")
    if "pointing" in keys:
        parts.append(
            "Pointing: in how many images the combined map of the true class peaks inside the box of the person with "
            "the object."
        )
    return " ".join(parts)


def _made(results: Mapping[str, Any]) -> str:
    parts = []
    seeds = results.get("seeds", [])
    if seeds:
        parts.append(f"{'Seeds' if len(seeds) > 1 else 'Seed'} {', '.join(map(str, seeds))}")
    if results.get("seconds") is not None:
        minutes, seconds = divmod(round(results["seconds"]), 60)
        parts.append(f"{minutes} min {seconds} s" if minutes else f"{seconds} s")
    return "; ".join(parts) + "." if parts else ""


def _image(caption: str, data: bytes) -> dict[str, Any]:
    """What an `img` needs. Wide images are shown at their size or the page's, whichever is smaller."""
    with Image.open(io.BytesIO(data)) as image:
        # Plots come at twice the density, so that they stay sharp on dense screens.
        width = round(image.width / 2) if image.info.get("dpi", (72, 72))[0] > 150 else image.width
    return {"caption": caption, "source": f"data:image/png;base64,{base64.b64encode(data).decode()}", "width": width}
