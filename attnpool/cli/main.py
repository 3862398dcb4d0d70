"""The command line: words in, one call of a library function, its result out as text or JSON, and an exit code."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import Any

from attnpool.cli.flags import Parser, add_flag, merged
from attnpool.cli.verbs import VERBS, Verb, options
from attnpool.training.interruption import Interrupted, TrainingFailed

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space left, as disks, quotas and limits of files say it
EXIT_CODES = """\
exit codes: 0 done, 1 the run failed, 2 the input is at fault, 130 or 143 stopped by Ctrl-C or SIGTERM, state saved"""


class Stopped(BaseException):
    """SIGTERM came while nothing had to be saved."""


def stop(signum: int, frame: FrameType | None) -> None:
    raise Stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        if not words or words[0] not in VERBS:
            root_parser().parse_args(words[:1])
        function, given, as_json = parse(words[0], words[1:])
        module, _, name = function.partition(":")
        result = getattr(import_module(module), name)(**given)
        said = json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False) if as_json else str(result)
        print(said, flush=True)
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


def root_parser() -> Parser:
    """The parser of `attnpool` without a verb."""
    verbs = "\n".join(f"  {name:12}{verb.summary}" for name, verb in VERBS.items())
    parser = Parser(
        prog="attnpool",
        usage="attnpool VERB ...",
        description="Say what people are doing in an image or a clip, and show exactly where the evidence is.",
        epilog=f"verbs:\n{verbs}\n\nattnpool VERB --help says more.\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="what to do")
    return parser


def verb_parser(name: str, verb: Verb) -> Parser:
    """The parser of a verb: a flag for every option of its function and of its groups."""
    parser = Parser(
        prog=f"attnpool {name}",
        description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
        epilog=f"example:\n  {verb.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if isinstance(verb.function, str):
        own = options(verb.function)
    else:
        parser.add_argument(verb.word, choices=verb.function, help="which")
        own = merged({word: options(function) for word, function in verb.function.items()})
        own = [option for option in own if option.name != verb.word]
    for option in own:
        add_flag(parser, option, verb.flags.get(option.name, ""))
    for title, found in verb.groups().items():
        group = parser.add_argument_group(title)
        for option in found:
            add_flag(group, option)
    parser.add_argument("--json", action="store_true", help="print one JSON value on standard output")
    return parser


def parse(name: str, words: Sequence[str]) -> tuple[str, dict[str, Any], bool]:
    """A verb's function, what it is to be called with, and whether the result is wanted as JSON."""
    verb = VERBS[name]
    parser = verb_parser(name, verb)
    given = vars(parser.parse_args(words))
    as_json = given.pop("json")
    function = verb.function if isinstance(verb.function, str) else verb.function[given[verb.word]]
    grouped = {option.name for found in verb.groups().values() for option in found}
    own = {option.name for option in options(function)}
    call = {key: value for key, value in given.items() if key in own}
    if grouped:
        call[verb.into] = {key: value for key, value in given.items() if key in grouped}
    for key in given.keys() - call.keys() - grouped - {verb.word}:
        parser.error(f"{given[verb.word]} has no --{key.replace('_', '-')}: leave it out")
    return function, call, as_json


if __name__ == "__main__":
    sys.exit(main())
