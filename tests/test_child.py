"""Children answer, end or are stopped."""

from __future__ import annotations

import sys
import time

import pytest

from attnpool.child import Child


def child(code: str) -> Child:
    return Child([sys.executable, "-c", f"import json, os, sys, time\n{code}"])


ECHO = """
for line in sys.stdin.buffer:
    count = json.loads(line)["count"]
    print(json.dumps({"bytes": len(sys.stdin.buffer.read(count))}), flush=True)
"""


def test_a_child_answers_one_request_after_the_other() -> None:
    with child('print("{\\"ready\\": true}", flush=True)' + ECHO) as process:
        assert process.ask(seconds=60) == {"ready": True}
        for count in (0, 1, 3_000_000):  # more than a pipe holds
            assert process.ask({"count": count}, bytes(count), seconds=60) == {"bytes": count}
        assert process.running
        assert process.status == "running"
    assert not process.running
    process.stop()


@pytest.mark.parametrize(
    ("code", "words", "status"),
    [
        ("sys.exit(3)", "exit code 3", "exit code 3"),
        ("print('why', file=sys.stderr); print(file=sys.stderr); sys.exit(1)", "why", "exit code 1"),
        ("os.kill(os.getpid(), 11)", "SIGSEGV", "SIGSEGV"),
        ("print('{\"half\":', end='')", "exit code 0", "exit code 0"),
        ("print('[1]')", "exit code 0", "exit code 0"),
        ("print('hello')", "exit code 0", "exit code 0"),
    ],
)
def test_how_a_child_ended(code: str, words: str, status: str) -> None:
    with child(code) as process:
        with pytest.raises(EOFError) as caught:
            process.ask(["a request that it does not read"], seconds=60)
        assert (str(caught.value), process.status) == (words, status)
        with pytest.raises(EOFError):
            process.ask([], seconds=60)


@pytest.mark.parametrize("data", [b"", bytes(3_000_000)], ids=["waiting", "sending"])
def test_a_child_that_hangs(data: bytes) -> None:
    began = time.monotonic()
    with child("time.sleep(600)") as process, pytest.raises(TimeoutError):
        process.ask({}, data, seconds=0.5)
    assert time.monotonic() - began < 60
    assert process.status == "SIGKILL"


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        Child(["no/such/program"])


def test_a_childs_environment() -> None:
    code = "import json, os; print(json.dumps({'names': [os.environ.get('A'), os.environ.get('HOME')]}))"
    with Child([sys.executable, "-c", code], {"A": "1"}) as process:
        assert process.ask(seconds=60) == {"names": ["1", None]}
