"""The command line: one verb, one library function. What can be typed stands in `verbs.py`; here is how it ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from attnpool.cli.flags import read_recipe
from attnpool.cli.parser import build_parser

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space left, as disks, quotas and limits of files say it


class Stopped(BaseException):
    """SIGTERM came while nothing had to be saved."""


def stop(signum: int, frame: FrameType | None) -> None:
    raise Stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        parser = build_parser(words)
        args = parser.parse_args(words)
        from attnpool.training.interruption import Interrupted, TrainingFailed

        if getattr(args, "recipe", None):  # read again, so that a flag wins even where it says what is the default
            args.parser.set_defaults(**read_recipe(args))
            args = parser.parse_args(words)
        value, text = args.run(args)
        print(json.dumps(value, ensure_ascii=False, allow_nan=False) if args.json else text, flush=True)
    except SystemExit:  # these three first: they may come before the others are imported
        raise
    except Stopped:
        return fail("stopped", 143)
    except KeyboardInterrupt:
        return fail("stopped", 130)
    except Interrupted as stopped:
        return fail(str(stopped), 128 + stopped.signum)
    except BrokenPipeError:  # the reader of standard output, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except TrainingFailed as failure:
        return fail(str(failure), 1)
    except ValueError as mistake:
        if os.environ.get("ATTNPOOL_DEBUG"):
            raise
        return fail(str(mistake), 2)
    except OSError as error:
        if os.environ.get("ATTNPOOL_DEBUG"):
            raise
        where = f"{error.filename}: {error.strerror or error}" if error.filename else str(error)
        # the number is lost where a library in another language does the writing, such as safetensors
        if error.errno in FULL or any(os.strerror(number) in str(error) for number in FULL):
            return fail(f"no space left: {where}; free some or use another disk, then run the same command again", 1)
        return fail(where, 2)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def fail(message: str, code: int) -> int:
    print(f"attnpool: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
