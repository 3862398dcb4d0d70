"""The command line: parses arguments, calls a library function, prints its result and returns an exit code."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from types import FrameType
from typing import Any

from attnpool.cli.flags import Parser, add_flag, in_flags, is_positional, merged
from attnpool.cli.signatures import REQUIRED, Option
from attnpool.cli.verbs import VERBS, Verb, options
from attnpool.files import is_full
from attnpool.progress import is_first, process_count
from attnpool.training.interruption import Elsewhere, Interrupted, TrainingFailed

EXIT_CODES = """\
exit codes: 0 done, 1 the run failed, 2 wrong input, 130 or 143 stopped by Ctrl-C or SIGTERM with the state saved"""


class Stopped(BaseException):
    """SIGTERM was received while there was no state to save."""


def stop(signum: int, frame: FrameType | None) -> None:
    raise Stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if process_count() > 1:  # else every process says that all parameters have gradients
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    previous = signal.signal(signal.SIGTERM, stop)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show is no reason to lose a result
            stream.reconfigure(errors="backslashreplace")
    try:
        if not words or words[0] not in VERBS:
            root_parser().parse_args(words[:1])
        verb = VERBS[words[0]]
        calls, as_json = parse(words[0], verb, words[1:])
        result: Any = None
        for function, given in calls.items():
            module, _, name = function.partition(":")
            called = getattr(import_module(module), name)
            if "progress" in signature(called).parameters:
                given["progress"] = True
            result = called(**given) if result is None else called(result, **given)
        if not is_first():
            return 0
        if as_json:
            # An encoding other than UTF-8 may lack characters, and JSON can do without.
            escaped = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
            print(json.dumps(result.to_json(), ensure_ascii=escaped, allow_nan=False), flush=True)
        else:
            print(str(result), flush=True)
        for note in getattr(result, "notes", []):
            print(f"attnpool: {in_flags(note, option_names(words))}", file=sys.stderr)
        for problem in (problems := getattr(result, "problems", [])):
            fail(problem, result.exit_code)
        if problems:
            return int(result.exit_code)
    except Stopped:
        return fail("stopped", 143)
    except KeyboardInterrupt:
        return fail("stopped", 130)
    except Interrupted as stopped:  # all processes of a job stop together
        return fail(str(stopped), 128 + stopped.signum) if is_first() else 128 + stopped.signum
    except BrokenPipeError:  # the reader of standard output, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Elsewhere as failure:
        return 1 if failure.said else fail(str(failure), 1)
    except TrainingFailed as failure:
        return fail(str(failure), 1)
    except ValueError as mistake:
        if os.environ.get("ATTNPOOL_DEBUG"):
            raise
        return fail(in_flags(str(mistake), option_names(words)), 2)
    except OSError as error:
        if os.environ.get("ATTNPOOL_DEBUG"):
            raise
        where = f"{error.filename}: {error.strerror or error}" if error.filename else str(error)
        where = in_flags(where, option_names(words))
        if is_full(error):
            return fail(f"no space left: {where}; free some or use another disk, then run the same command again", 1)
        return fail(where, 2)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def option_names(words: Sequence[str]) -> list[str]:
    """The names of all options of the verb that was typed."""
    verb = VERBS[words[0]]
    return [option.name for found in (own_options(verb), *verb.groups().values()) for option in found]


def fail(message: str, code: int) -> int:
    """Prints a message in one line and returns the exit code.

    Of the processes of a job each says which it is. Before they have joined, all come to the same mistake, and the
    first of every machine says it.
    """
    if process_count() > 1:
        from torch import distributed

        if distributed.is_initialized():
            message = f"process {os.environ['RANK']}: {message}"
        elif os.environ.get("LOCAL_RANK", "0") != "0":
            return code
    print(f"attnpool: {' '.join(message.split())}", file=sys.stderr)
    return code


def root_parser() -> Parser:
    """The parser of `attnpool` itself, which reads the verb."""
    verbs = "\n".join(f"  {name:12}{verb.summary}" for name, verb in VERBS.items())
    parser = Parser(
        prog="attnpool",
        usage="attnpool VERB ...",
        description="Say what people are doing in an image or a clip, and show exactly where the evidence is.",
        epilog=f"verbs:\n{verbs}\n\nattnpool VERB --help describes a verb.\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="what to do")
    return parser


def verb_parser(name: str, verb: Verb) -> Parser:
    """The parser of a verb: a flag for every option of its functions and of its groups."""
    several = not isinstance(verb.function, str)
    own = own_options(verb)
    typed = [option.name.upper() + " ..." * option.many for option in own if is_positional(option)]
    typed += [f"--{option.name} ..." for option in own if option.default is REQUIRED and not is_positional(option)]
    parser = Parser(
        prog=f"attnpool {name}",
        usage=" ".join(["attnpool", name, *[verb.word.upper()] * several, *typed, "[options]"]),
        description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
        epilog=f"example:\n  {verb.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if several:
        parser.add_argument(verb.word, choices=verb.function, help="what to run")
    for title, found in {"": own, **verb.groups()}.items():
        group = parser.add_argument_group(title) if title else parser
        for option in found:
            add_flag(group, option)
    parser.add_argument("--json", action="store_true", help="print one JSON value on standard output")
    return parser


def own_options(verb: Verb) -> list[Option]:
    """The options of a verb's functions, without the options of its groups."""
    if isinstance(verb.function, str):
        return options(verb.function) + (options(verb.then) if verb.then else [])
    words: dict[str, list[str]] = {}  # function -> the words that select it
    for word, function in verb.function.items():
        words.setdefault(function, []).append(word)
    found = merged({", ".join(of): options(function) for function, of in words.items()})
    return [option for option in found if option.name != verb.word]


def parse(name: str, verb: Verb, words: Sequence[str]) -> tuple[dict[str, dict[str, Any]], bool]:
    """Parses a command line into the functions to call in turn, with their arguments, and whether to print JSON."""
    parser = verb_parser(name, verb)
    given = vars(parser.parse_args(words))
    as_json = given.pop("json")
    function = verb.function if isinstance(verb.function, str) else verb.function[given[verb.word]]
    grouped = {option.name for found in verb.groups().values() for option in found}
    calls = {}
    for path in filter(None, (verb.before, function, verb.then)):
        own = {option.name for option in options(path)}
        calls[path] = {key: given[key] for key in own & given.keys()}
    for key in {key for call in calls.values() for key in call}:
        del given[key]
    if verb.into:
        calls[function][verb.into] = {key: given.pop(key) for key in grouped & given.keys()}
    word = given.pop(verb.word, "")
    for key in given:
        parser.error(f"{word} has no --{key.replace('_', '-')}: leave it out")
    return calls, as_json
