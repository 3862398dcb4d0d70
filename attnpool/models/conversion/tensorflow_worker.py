"""Copies variables of a TensorFlow checkpoint to a .npz file, as a program for any Python (>= 3.8) with TensorFlow.

`python tensorflow_worker.py PREFIX OUT.npz` reads the wanted names from standard input, as a JSON list in one line. It
writes those that exist and hold numbers, and prints one JSON object in one line: `{"variables": {name: [shape, type]}}`
for all variables of the checkpoint; or `{"problem": text}`, with "errno" if the file cannot be written; or `{"missing":
text}` if TensorFlow cannot be imported. It does not import attnpool, so TensorFlow and PyTorch need not share an
environment.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main(prefix: str, out: str) -> dict[str, object]:
    """Copies the wanted variables of a checkpoint, and lists all its variables."""
    wanted = set(json.loads(sys.stdin.readline()))
    try:
        import tensorflow
    except ImportError as error:
        return {"missing": str(error)}
    import numpy  # TensorFlow depends on it

    try:
        reader = tensorflow.train.load_checkpoint(prefix)
        types = reader.get_variable_to_dtype_map()
        shapes = reader.get_variable_to_shape_map()
        numbers = [name for name in wanted & shapes.keys() if types[name].is_floating]
        arrays: dict[str, Any] = {name: numpy.asarray(reader.get_tensor(name)) for name in numbers}
        numpy.savez(out, **arrays)
    except OSError as error:  # the output file cannot be written
        return {"problem": str(error), "errno": error.errno}
    except Exception as error:  # TensorFlow's errors have no base class that old and new versions share
        return {"problem": str(getattr(error, "message", error))}
    return {"variables": {name: [list(shape), types[name].name] for name, shape in shapes.items()}}


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, whose files must not be imported in place of modules of the same name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not get before the answer
    print(json.dumps(main(*sys.argv[1:])), file=answers, flush=True)
