"""mediapipe's BlazePose as an estimator, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from attnpool.keypoints.detections import Estimate, check_score, estimate

_WORKER = Path(__file__).with_name("mediapipe_worker.py")


class MediaPipe:
    """mediapipe's BlazePose (extra `pose`, mediapipe 0.10.14): the most prominent person, with 33 joints, no box.

    It runs in a process of its own, so that it may live in an environment of its own. Its wheel holds the model. A
    person is kept if the detector is at least `min_score` certain, and a joint if it is at least that likely visible.

    Args:
        python: the interpreter of the environment that has mediapipe; this one's if left out.
        min_score: 0..1.

    Raises:
        ValueError: a number out of range, or that environment has no mediapipe that works.
    """

    def __init__(self, python: str | Path | None = None, *, min_score: float = 0.5) -> None:
        check_score(min_score)
        self.min_score = min_score
        fix = (
            "install it with: pip install 'attnpool[pose]' (Python below 3.13), or name the interpreter of an "
            "environment that has it: --python ENV/bin/python"
        )
        if python is None and find_spec("mediapipe") is None:
            raise ValueError(f"mediapipe is not installed here; {fix}")
        command = [str(python or sys.executable), str(_WORKER), str(min_score)]
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=_environment()
            )
        except OSError as error:
            self.log.close()
            raise ValueError(
                f"{command[0]}: cannot be run ({(error.strerror or str(error)).lower()}); {fix}"
            ) from error
        try:
            about = json.loads(self._line())
        except (EOFError, ValueError) as error:
            reason = self._last_words()
            self.close()
            raise ValueError(f"{command[0]}: mediapipe does not start ({reason}); {fix}") from error
        self.name = f"mediapipe {about['version']}"
        self.joints: list[str] = about["joints"]

    def __call__(self, image: Image.Image) -> list[Estimate]:
        """Raises OSError if the process has died."""
        pixels = np.asarray(image.convert("RGB"))
        stream = self.process.stdin
        assert stream is not None
        try:
            stream.write(json.dumps({"width": image.width, "height": image.height}).encode() + b"\n")
            stream.write(pixels.tobytes())
            stream.flush()
            joints = json.loads(self._line())["joints"]
        except (BrokenPipeError, EOFError) as error:
            raise OSError(f"the process of mediapipe died ({self._last_words()}); run the same again") from error
        if joints is None:
            return []
        person = estimate(self.joints, joints, image.size, self.min_score)
        return [] if person is None else [person]

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()  # it holds nothing that could be lost
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None and not stream.closed:
                with contextlib.suppress(BrokenPipeError):  # what was still to be sent
                    stream.close()
        self.log.close()

    def _line(self) -> bytes:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return line

    def _last_words(self) -> str:
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            return "it said something unexpected"
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return said[-1][:300] if said else f"exit code {self.process.returncode}"


def _environment() -> dict[str, str]:
    """Without this process's paths: modules of this environment must not get into the other one."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
