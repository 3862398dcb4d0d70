"""A child process that finds joints in images with mediapipe, possibly in another Python environment.

`blazepose.MediaPipe` runs this file as `PYTHON mediapipe_worker.py MIN_SCORE`. Its environment needs mediapipe and
NumPy but not this package, which may need other versions of protobuf and OpenCV.

Standard output begins with a line `{"version": ..., "joints": [names]}`. For every image standard input has a line
`{"width": w, "height": h}` and then w * h * 3 bytes of RGB; the answer is a line `{"joints": [[x, y, score], ...]}` in
pixels, or `{"joints": null}` if nobody was found. The process ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import signal
import sys


def main() -> None:
    # Python puts this file's folder on the path; its modules must not be imported in place of the environment's.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != here]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes; the parent decides when to end
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not get between the answers

    import mediapipe
    import numpy as np

    pose = mediapipe.solutions.pose
    # The wheel includes only this model; the others would be downloaded.
    with pose.Pose(static_image_mode=True, model_complexity=1, min_detection_confidence=float(sys.argv[1])) as model:
        names = [joint.name.lower() for joint in pose.PoseLandmark]
        print(json.dumps({"version": mediapipe.__version__, "joints": names}), file=answers, flush=True)
        while line := sys.stdin.buffer.readline():
            size = json.loads(line)
            width, height = size["width"], size["height"]
            data = sys.stdin.buffer.read(3 * width * height)
            found = model.process(np.frombuffer(data, np.uint8).reshape(height, width, 3)).pose_landmarks
            joints = found and [[p.x * width, p.y * height, p.visibility] for p in found.landmark]
            print(json.dumps({"joints": joints}), file=answers, flush=True)


if __name__ == "__main__":
    main()
