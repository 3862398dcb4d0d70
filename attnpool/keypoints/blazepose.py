"""The pose estimator BlazePose of mediapipe, which runs in a child process."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from attnpool.child import Child
from attnpool.keypoints.detections import Estimate, check_score, estimate

_WORKER = Path(__file__).with_name("mediapipe_worker.py")


class MediaPipe:
    """mediapipe's BlazePose (extra `pose`, mediapipe 0.10.14): it finds the most prominent person, without a box.

    It runs in a child process, so that it can have a Python environment of its own. The wheel of mediapipe includes the
    model, which has 33 joints. A person is kept if the detector's confidence is at least `min_score`, and a joint if
    its visibility is.

    Args:
        python: interpreter of an environment that has mediapipe; by default this one.
        min_score: least confidence and visibility, from 0 to 1.

    Raises:
        ValueError: `min_score` is out of range, or the environment has no working mediapipe.
    """

    def __init__(self, python: str | Path | None = None, *, min_score: float = 0.5) -> None:
        check_score(min_score)
        self.min_score = min_score
        fix = (
            "install it with: pip install 'attnpool[pose]' (Python below 3.13), or give the interpreter of an "
            "environment that has it as python"
        )
        if python is None and find_spec("mediapipe") is None:
            raise ValueError(f"mediapipe is not installed here; {fix}")
        command = [str(python or sys.executable), str(_WORKER), str(min_score)]
        try:
            self.child = Child(command, _environment())
        except OSError as error:
            raise ValueError(
                f"{command[0]}: cannot be run ({(error.strerror or str(error)).lower()}); {fix}"
            ) from error
        try:
            about = self.child.ask()
        except BaseException as error:
            self.child.stop()
            if isinstance(error, EOFError):
                raise ValueError(f"{command[0]}: mediapipe does not start ({error}); {fix}") from error
            raise
        self.name = f"mediapipe {about['version']}"
        self.joints: list[str] = about["joints"]

    def __call__(self, image: Image.Image) -> list[Estimate]:
        """Finds the person in an image. Raises OSError if the process has died."""
        pixels = np.asarray(image.convert("RGB"))
        try:
            answer = self.child.ask({"width": image.width, "height": image.height}, pixels.tobytes())
        except EOFError as error:
            raise OSError(f"the process of mediapipe died ({error}); run the same command again") from error
        joints = answer["joints"]
        if joints is None:
            return []
        person = estimate(self.joints, joints, image.size, self.min_score)
        return [] if person is None else [person]

    def close(self) -> None:
        """Ends the process."""
        self.child.stop()  # at once, as it has nothing to save


def _environment() -> dict[str, str]:
    """The environment variables without paths of this process, whose modules must not be imported in the other."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
