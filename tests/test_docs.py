"""What README, CONTRIBUTING, docs/ and CITATION.cff say of the repository is there: paths, links, commands, names."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import yaml
from option_table import option_table, stated

import attnpool
from attnpool.cli.main import own_options, parse
from attnpool.cli.verbs import VERBS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Those that say where things are. The others also name files of the user's and of other projects. (Targets of links are
# a test of their own.)
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "design.md", ROOT / "docs" / "index.md"]
PATH = re.compile(r"(?<![\w/.:(-])((?:attnpool|tests|benchmarks|docs)/[\w./-]*\w/?)")
# What only a worked example of CONTRIBUTING.md makes, and what only a command does.
MADE = re.compile(r'^```\w+ title="([^"]+)"$', re.MULTILINE)
# What every verb has, and a flag of the script behind docs/study.md, which is in the history.
OTHERS = {"--help", "--json", "--world-seed"}


def named_text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_paths_exist() -> None:
    made = set(MADE.findall(named_text(ROOT / "CONTRIBUTING.md")))
    missing = [
        f"{page.relative_to(ROOT)}: {path}"
        for page in GUIDES
        for path in PATH.findall(named_text(page))
        if not (ROOT / path).exists() and path not in made
    ]
    assert missing == []


def test_links_lead_somewhere() -> None:
    missing = []
    for page in [*PAGES, ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\(([^)\s]+)\)", named_text(page)):
            if not target.startswith("http") and not (page.parent / target.partition("#")[0]).exists():
                missing.append(f"{page.relative_to(ROOT)}: {target}")
    assert missing == []


def test_every_page_is_in_the_index() -> None:
    index = named_text(ROOT / "docs" / "index.md")
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES if page.is_relative_to(ROOT / "docs")]
    assert [page for page in pages if page != "index.md" and f"({page})" not in index] == []


def commands(page: Path) -> list[str]:
    """The commands of blocks of code that call `attnpool`, without comments and without prompts."""
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```$", named_text(page), re.MULTILINE | re.DOTALL)
    lines = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line.removeprefix(".venv/bin/") for line in lines if re.match(r"(\.venv/bin/)?attnpool [a-z]", line)]


def test_commands_can_be_typed() -> None:
    """Every command in a block of code is taken apart as the command line does it."""
    wrong = []
    found = [(page, command) for page in PAGES for command in commands(page)]
    assert len(found) > 30
    for page, command in found:
        words = shlex.split(command)[1:]
        if "..." in words or words[0] == "VERB":
            continue
        try:
            parse(words[0], VERBS[words[0]], words[1:])
        except (SystemExit, KeyError) as error:
            wrong.append(f"{page.relative_to(ROOT)}: {command} ({error!r})")
    assert wrong == []


def test_flags_exist() -> None:
    """Every flag that a sentence speaks of is one of a verb."""
    options = [option for verb in VERBS.values() for option in own_options(verb)]
    options += [option for verb in VERBS.values() for group in verb.groups().values() for option in group]
    names = {option.name.strip("_").replace("_", "-") for option in options}
    known = {f"--{name}" for name in names} | {f"--no-{name}" for name in names} | OTHERS
    wrong = []
    for page in PAGES:
        if page.name == "CONTRIBUTING.md" or page.parent.name == "benchmarks":  # of pytest, and of scripts
            continue
        for line in named_text(page).splitlines():
            if page.name == "cluster.md":  # of torchrun, SLURM and Kubernetes
                line = line.partition("-m attnpool")[2]
            if "benchmarks/" not in line and "pytest" not in line:  # of scripts
                flags = re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", line)
                wrong += [f"{page.relative_to(ROOT)}: {flag}" for flag in flags if flag not in known]
    assert wrong == []


def test_names_exist() -> None:
    """`ap.NAME` in code and in sentences is a public name."""
    missing = [
        f"{page.relative_to(ROOT)}: ap.{name}"
        for page in PAGES
        for name in re.findall(r"\bap\.([A-Za-z_]+)", named_text(page))
        if name not in dir(attnpool) and not (page.name == "CONTRIBUTING.md" and name.startswith("GeM"))
    ]
    assert missing == []


def test_code_can_be_read() -> None:
    for page in PAGES:
        for block in re.findall(r"^```python.*?\n(.*?)^```$", named_text(page), re.MULTILINE | re.DOTALL):
            compile(block, str(page), "exec")


def test_options_of_the_poolings_are_what_the_page_says() -> None:
    """New options are added by `python tests/option_table.py`; a long test asks for them."""
    wrong = set(stated().splitlines()) - set(option_table().splitlines())
    assert not wrong, "\n".join(
        ["run python tests/option_table.py; these rows are not (any more) right:", *sorted(wrong)]
    )
    assert len(stated().splitlines()) > 30


def test_citation() -> None:
    about = yaml.safe_load(named_text(ROOT / "CITATION.cff"))
    project = tomllib.loads(named_text(ROOT / "pyproject.toml"))["project"]
    assert (about["version"], about["license"]) == (project["version"], project["license"])
    assert [author["family-names"] for author in about["preferred-citation"]["authors"]] == ["Girdhar", "Ramanan"]
