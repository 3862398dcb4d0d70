"""What the verb `evaluate` leaves behind: the numbers of an evaluation in the run folder, and then their figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from attnpool.evaluation.evaluate import Evaluation
from attnpool.explain.plots import evaluation_plot
from attnpool.explain.png import marked
from attnpool.files import MARK, is_full, mark, require_ours, unused, write_bytes, write_json
from attnpool.models.run import EVALUATION_FILE


def evaluation_figure(
    path: str | Path, scores: Any, confusion: np.ndarray | None, classes: Sequence[str], words: str | None = None
) -> None:
    """Write the per-class AP and the confusion matrix as a PNG, readable with 14 classes and with 600.

    Args:
        path: the file; missing directories are made, and it appears complete or not at all.
        scores: from `metrics.score`.
        confusion: `(K, K)` counts from `metrics.confusion`, `None` if an image may have several classes.
        classes: K names.
        words: the mark of the file, see `files.mark`.
    """
    write_bytes(Path(path), marked(evaluation_plot(scores, confusion, classes), words))


@dataclass(frozen=True)
class DrawnEvaluation:
    """An evaluation and the files that hold it; `None` if nothing had a label, or where a file could not be written.

    Attributes:
        evaluation: the evaluation.
        record: JSON file of the numbers.
        plot: PNG file of the figure.
        problem: why a file could not be written, "" if all could.
    """

    evaluation: Evaluation
    record: Path | None = None
    plot: Path | None = None
    problem: str = ""
    exit_code: ClassVar[int] = 1

    @property
    def problems(self) -> list[str]:
        return [self.problem] if self.problem else []

    @property
    def notes(self) -> tuple[str, ...]:
        return self.evaluation.notes

    def to_json(self) -> dict[str, Any]:
        files = {"record": self.record, "plot": self.plot}
        return self.evaluation.to_json() | {name: path and str(path) for name, path in files.items()}

    def __str__(self) -> str:
        lines = [f"{name}: {path}" for name, path in (("numbers", self.record), ("plot", self.plot)) if path]
        return "\n".join([str(self.evaluation), *([""] if lines else []), *lines])


def check_plot(*, plot: str | Path | None = None) -> None:
    """Raises ValueError before the long work if the plot would replace a file that is not ours.

    Args:
        plot: see `draw_evaluation`.
    """
    if plot is not None:
        require_ours(Path(plot), "plot")


def draw_evaluation(found: Evaluation, *, plot: str | Path | None = None) -> DrawnEvaluation:
    """Writes what `evaluate` found into its run folder, evaluation-SPLIT.json, and draws it, see `evaluation_figure`.

    The same evaluation replaces its earlier files; another one, such as that of another dataset, takes a new name. A
    file that cannot be written is a `problem` of the result, and the numbers are not lost for it.

    Args:
        found: the evaluation.
        plot: PNG file to draw the per-class AP and the confusion matrix to (default: evaluation-SPLIT.png in the run).

    Raises:
        ValueError: there is a file that is not ours where the plot should be.
    """
    check_plot(plot=plot)
    if not found.scores.images:
        return DrawnEvaluation(found)
    assert found.run is not None, "an evaluation by `evaluate` knows its run"
    words = mark("evaluate", found.asked)
    record = unused(found.run, EVALUATION_FILE.format(found.split, "json"), words)
    target = unused(found.run, f"{record.stem}.png", words) if plot is None else Path(plot)
    done: dict[str, Any] = {}
    try:
        write_json(record, {MARK: words, "asked": found.asked} | found.to_json())
        done["record"] = record
        evaluation_figure(target, found.scores, found.confusion, found.classes, words)
        done["plot"] = target
    except OSError as error:
        missing = target if done else record
        reason = "no space left" if is_full(error) else (error.strerror or str(error)).lower()
        problem = f"{missing}: cannot be written ({reason}); free some space, or give another file as plot"
        return DrawnEvaluation(found, **done, problem=problem)
    return DrawnEvaluation(found, **done)
