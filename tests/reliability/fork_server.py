"""Runs commands in forked processes in which `faults.c` watches a folder; a job a line on standard input, as JSON.

It is a process of its own because LD_PRELOAD counts from the start of a process.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import traceback
from importlib import import_module

import torch

from attnpool.cli.main import main

# Imported before the forks, so that they need not do it.
for name in ("experiments.paper.reproduce", "experiments.pooling_study.run", "explain.report", "training.recipe"):
    import_module(f"attnpool.{name}")


def child(job: dict[str, object]) -> None:
    for name, number in (("out", 1), ("err", 2)):
        descriptor = os.open(str(job[name]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    faults = ctypes.CDLL(None)
    faults.watch.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_char_p]
    faults.watch(str(job["folder"]).encode(), job["fail_at"], str(job["log"]).encode() if job["log"] else None)
    torch.set_num_threads(1)
    if job["always_save"]:  # a checkpoint after every update, not every minute
        import_module("attnpool.training.trainer").SAVE_SECONDS = 0  # type: ignore[attr-defined]
    code = 70
    try:
        code = main([str(word) for word in job["words"]])  # type: ignore[attr-defined]
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        count = faults.written()
        faults.watch(b"", 0, None)
        sys.stdout.flush()
        sys.stderr.flush()
        with open(str(job["count"]), "w", encoding="utf-8") as file:
            file.write(str(count))
        os._exit(code)


for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        child(job)
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
