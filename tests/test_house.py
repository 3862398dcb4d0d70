"""The rules of the house: who may import whom, what stands where, and that importing does nothing else.

One test a rule, and each lists everything that breaks it.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import runpy
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import attnpool
from attnpool import pooling
from attnpool.data import READERS

ROOT = Path(attnpool.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
TESTS = Path(__file__).parent

# From below to above, as the design has it: a room imports what stands before it. Rooms of one level know nothing of
# each other, and nothing imports the public names of `attnpool` itself, which are above all.
ORDER = """
    child, files, progress < pooling, keypoints < backbones, data < models < features < evaluation < training
    < explain, playground < experiments < cli
"""
LEVELS = {room.strip(): level for level, rooms in enumerate(ORDER.split("<")) for room in rooms.split(",")}
# Rooms that know less than the order lets them: pooling is torch alone, data knows no network, models no dataset, and
# the playground writes for the readers of data without being one.
ONLY = {
    "pooling": set[str](),
    "data": {"child", "files", "progress", "keypoints"},
    "models": {"child", "files", "progress", "keypoints", "pooling", "backbones"},
    "playground": {"child", "files", "progress", "keypoints"},
}
# Who draws: nothing that trains or evaluates waits for these to be imported.
DRAWING = {"matplotlib": {"explain", "experiments"}, "gradio": {"explain", "experiments", "cli"}}


def module_of(path: Path) -> str:
    """`attnpool/data/dataset.py` -> `attnpool.data.dataset`; a package is its own `__init__`."""
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


def room_of(module: str) -> str:
    """`attnpool.data.dataset` -> `data`; empty for the package itself."""
    return "" if module in ("attnpool", "attnpool.__main__") else module.split(".")[1]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> dict[str, int]:
    """Every module that a file imports anywhere, for types too, written out in full, and the line where it does."""
    found: dict[str, int] = {}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full"
            # `from attnpool import data` imports a part, `from attnpool.data import read` a name
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [part if part in MODULES else str(node.module) for part in parts]
        else:
            continue
        for name in names:
            found.setdefault(name, node.lineno)
    return found


def arrows() -> Iterator[tuple[str, str, str]]:
    """(importing module, imported module, where) of every import of one part of the package by another."""
    for module, path in MODULES.items():
        for name, line in imports(path).items():
            if name.split(".")[0] == "attnpool":
                yield module, name, f"{path.relative_to(ROOT.parent)}:{line} imports {name}"


def none(violations: list[str]) -> None:
    """Asserts that there are none, or lists them all."""
    assert not violations, "\n".join(["", *violations])


def test_the_root_has_rooms_and_little_else() -> None:
    known = {*LEVELS, "__init__", "__main__", "py"}  # py.typed
    entries = [path for path in ROOT.iterdir() if path.name != "__pycache__"]
    none([f"attnpool/{path.name} has no place in the order" for path in entries if path.stem not in known])
    assert len(entries) <= 18


def test_imports_run_one_way() -> None:
    violations = []
    for module, name, where in arrows():
        room, other = room_of(module), room_of(name)
        if room in ("", other):
            continue
        below = other in LEVELS and LEVELS[other] < LEVELS[room]
        if not below or (room in ONLY and other not in ONLY[room]):
            violations.append(where)
    none(violations)


def test_no_module_imports_itself_by_a_detour() -> None:
    """Neither for types: whoever reads one file of a circle has to read them all."""
    below: dict[str, set[str]] = {module: set() for module in MODULES}
    for module, name, _ in arrows():
        below[module].add(name)

    def reached(start: str) -> set[str]:
        found, ahead = set[str](), list(below[start])
        while ahead:
            name = ahead.pop()
            if name in below and name not in found:
                found.add(name)
                ahead += below[name]
        return found

    reach = {module: reached(module) for module in MODULES}
    circles = {frozenset(b for b in reach[a] if a in reach[b]) for a in MODULES if a in reach[a]}
    none([f"a circle of {', '.join(sorted(circle))}" for circle in circles])


def test_pooling_imports_torch_alone() -> None:
    violations = []
    for path in (ROOT / "pooling").rglob("*.py"):
        for name, line in imports(path).items():
            first = name.split(".")[0]
            if first not in ("torch", "attnpool") and first not in sys.stdlib_module_names:
                violations.append(f"{path.relative_to(ROOT.parent)}:{line} imports {name}")
    none(violations)


def test_only_what_draws_imports_what_draws() -> None:
    none(
        [
            f"{path.relative_to(ROOT.parent)}:{line} imports {name}"
            for module, path in MODULES.items()
            for name, line in imports(path).items()
            if room_of(module) not in DRAWING.get(name.split(".")[0], {room_of(module)})
        ]
    )


# A file does one job and is as long as that job; under 300 lines is a hint that it does.
def test_no_file_is_long() -> None:
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    none([f"{module} has {length} lines" for module, length in lengths.items() if length > 300])


# Tested where they are used, by the test file that is named; every other module has a test file at its own path.
TESTED_BY = {
    # what draws a world: parts of one image, whose pixels and annotations are held against each other
    **dict.fromkeys(
        (
            *("playground.actions", "playground.annotation", "playground.backdrop", "playground.body"),
            *("playground.clutter", "playground.compose", "playground.crowd", "playground.draw", "playground.figure"),
            *("playground.ground", "playground.looks", "playground.objects", "playground.plan", "playground.raster"),
            *("playground.scene", "playground.staging"),
        ),
        "playground/test_world.py",
    ),
    "playground.motion": "playground/test_clip.py",
    "playground.mat": "playground/test_write_mpii.py",
    "playground.openpose": "playground/test_write_hmdb51.py",
    # programs that run in a process of their own, by whom starts them
    "data.decoding.matlab_worker": "data/decoding/test_matlab.py",
    "keypoints.mediapipe_worker": "keypoints/test_blazepose.py",
    "models.conversion.tensorflow_worker": "models/conversion/test_tensorflow.py",
    "models.conversion.tensorflow_names": "models/conversion/test_tensorflow.py",
    "__main__": "cli/test_main.py",
    # parts of one thing, which are tested together as that
    "backbones.classifiers": "models/conversion/test_classifier.py",
    "backbones.weights": "backbones/test_backbone.py",
    "data.check_report": "data/test_check.py",
    "data.clips": "models/test_clip_pooling.py",
    "data.dataset": "data/test_reading.py",
    "data.decoding.colour": "data/decoding/test_image.py",
    "data.decoding.video_stream": "data/decoding/test_video.py",
    "data.formats.coco_merging": "data/test_pose_labelling.py",
    "data.formats.entry": "data/test_reading.py",
    "data.formats.published": "data/formats/test_hico.py",
    "data.people": "models/test_instance_pooling.py",
    "data.order": "data/test_loader.py",
    "data.pose_store": "data/test_pose_labelling.py",
    "data.shards.prepare": "data/shards/test_write.py",
    "data.shards.report": "data/shards/test_write.py",
    "evaluation.splits": "evaluation/test_evaluate.py",
    **dict.fromkeys(
        (*("experiments.benchmark." + part for part in ("heads", "measure", "passes", "report")), "experiments.pages"),
        "experiments/benchmark/test_pooling.py",
    ),
    "experiments.benchmark.steps": "experiments/benchmark/test_training.py",
    "experiments.pooling_study.table": "experiments/pooling_study/test_run.py",
    "explain.image_figure": "explain/test_explain.py",
    "explain.lettering": "explain/test_overlay.py",
    "explain.plots": "explain/test_report.py",
    "features.features": "features/test_extraction.py",
    "keypoints.estimators": "data/test_pose_labelling.py",
    "models.conversion.linear_head": "models/conversion/test_classifier.py",
    "models.run": "models/test_recognizer.py",
    "models.state": "training/test_train.py",
    "training.checkpoint": "training/test_train.py",
    "training.class_weights": "training/test_losses.py",
    "training.interruption": "cli/test_main.py",
    "training.trainer": "training/test_train.py",
}


def test_tests_mirror_the_tree() -> None:
    violations = []
    for module, path in MODULES.items():
        place = path.relative_to(ROOT)
        if place.name == "__init__.py":
            continue
        elsewhere = TESTED_BY.get(module.removeprefix("attnpool."))
        test = TESTS / (elsewhere or place.with_name(f"test_{place.name}"))
        if not test.is_file():
            violations.append(f"{place} has no tests/{test.relative_to(TESTS)}")
    none(violations)
    none([f"attnpool.{name} is no module" for name in TESTED_BY if f"attnpool.{name}" not in MODULES])


# Formats of datasets are known to their readers, to who draws worlds in them and to the paper's tables.
FORMATS = ("folder", "table", "mpii", "hico", "hmdb51", "coco", "openpose")
KEYPOINT_FILES = (
    "coco",
    "openpose",
)  # which no dataset is, but which people of any dataset are read from and written to
KNOWN_TO = ("attnpool.data.formats", "attnpool.playground", "attnpool.experiments.paper")


def format_named(node: ast.AST) -> str:
    """The format that a piece of code asks for, in a comparison or as what a name begins with; else nothing."""
    if isinstance(node, ast.Compare):
        asked = [*ast.walk(node.left), *(inner for each in node.comparators for inner in ast.walk(each))]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.endswith("with"):
        asked = [inner for argument in node.args for inner in ast.walk(argument)]
    else:
        return ""
    texts = [str(inner.value).partition(":")[0] for inner in asked if isinstance(inner, ast.Constant)]
    return next((text for text in texts if text in FORMATS), "")


def test_formats_are_known_to_their_readers() -> None:
    """Elsewhere what differs between formats is asked of their entries in READERS."""
    violations = []
    for module, path in MODULES.items():
        if module.startswith(KNOWN_TO):
            continue
        where = path.relative_to(ROOT.parent)
        for name, line in imports(path).items():
            format = name.removeprefix("attnpool.data.formats.")
            known = KEYPOINT_FILES if room_of(module) == "data" else ()
            if format in FORMATS and format not in known and module != "attnpool.data":  # which has READERS
                violations.append(f"{where}:{line} imports {name}")
        for node in ast.walk(tree_of(path)):
            if named := format_named(node):
                violations.append(f"{where}:{node.lineno} asks for {named}")  # type: ignore[attr-defined]
    none(violations)


def test_no_module_is_a_drawer() -> None:
    none([module for module, path in MODULES.items() if path.stem in ("utils", "util", "helpers", "misc", "common")])


def test_options_are_written_out() -> None:
    """No `**kwargs` in a public signature: an option that does not exist must be an error, not ignored."""
    violations = []
    for path in FILES:
        body = tree_of(path).body
        classes = [node for node in body if isinstance(node, ast.ClassDef)]
        for node in [*body, *(inner for outer in classes for inner in outer.body)]:
            public = isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__init__")
            if public and node.args.kwarg is not None:
                violations.append(f"{path.relative_to(ROOT.parent)}:{node.lineno}: {node.name}")
    none(violations)


def test_modules_say_what_they_are() -> None:
    none([f"{module} has no docstring" for module, path in MODULES.items() if not ast.get_docstring(tree_of(path))])


def test_public_names_are_documented() -> None:
    violations = []
    for name in [*attnpool.__all__, *pooling.__all__]:
        value = getattr(attnpool, name)
        if isinstance(value, type) or callable(value):
            if not value.__doc__:
                violations.append(f"attnpool.{name} has no docstring")
            elif value.__doc__.startswith(f"{name}("):
                violations.append(f"attnpool.{name} has only the docstring that dataclass gave it")
    none(violations)


def test_examples_in_docstrings() -> None:
    """(What each failed example printed is in the captured output.)"""
    violations = []
    tried = [module for module, path in MODULES.items() if ">>>" in path.read_text(encoding="utf-8")]
    assert tried
    for module in tried:
        result = doctest.testmod(
            importlib.import_module(module), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        )
        if result.failed or not result.attempted:
            violations.append(f"{module}: {result.failed} of {result.attempted} examples fail")
    none(violations)


def test_only_the_readers_name_a_format() -> None:
    """What differs between formats is a field of their entry in READERS; the tables are about benchmarks by name."""
    allowed = ("data/formats/", "data/shards/", "playground/", "experiments/paper/", "cli/")
    names = [name for name in READERS if name != "folder"]  # "folder:DIR" is what users are told to write
    words = {*names, *(f"{name}:" for name in names)}
    found = []
    for path in FILES:
        place = path.relative_to(ROOT).as_posix()
        if not place.startswith(allowed):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and node.value in words:
                    found.append(f"{place}:{node.lineno}: {node.value!r}")
    assert found == []


IMPORT = """
import json, os, random, sys
import numpy, torch
seen = []
def hook(event, args):
    writes = event == "open" and (any(m in str(args[1]) for m in "wax+") or (args[2] or 0) & (os.O_WRONLY | os.O_RDWR))
    if writes or event in ("os.mkdir", "os.remove", "os.rename") or event.startswith(("socket.", "subprocess.")):
        seen.append([event, str(args[:2])])
def state():
    settings = dict(os.environ), torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    return torch.get_rng_state().tolist(), random.getstate(), str(numpy.random.get_state()), settings
before = state()
sys.addaudithook(hook)
STATEMENTS
print(json.dumps({
    "seen": seen,
    "same": [a == b for a, b in zip(before, state())],
    "cuda": torch.cuda.is_initialized(),
    "loaded": sorted(name for name in sys.modules if "." not in name),
}))
"""


def state_after(statements: str, folder: Path) -> dict[str, Any]:
    """Imports in a fresh process, and what changed; seeds, settings, CUDA and the current folder never may."""
    command = [sys.executable, "-B", "-W", "error", "-c", IMPORT.replace("STATEMENTS", statements)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    found = json.loads(result.stdout)
    assert all(found["same"])
    assert not found["cuda"]
    assert list(folder.iterdir()) == []
    return found


def test_importing_does_nothing_else(tmp_path: Path) -> None:
    found = state_after("import attnpool", tmp_path)
    assert found["seen"] == []
    assert not {"timm", "matplotlib", "tensorboard", "sklearn", "scipy", "jsonargparse"} & set(found["loaded"])


def test_first_use_of_the_public_names_does_nothing_else(tmp_path: Path) -> None:
    """(Folders that torch and matplotlib make for themselves are theirs.)"""
    found = state_after("import attnpool\nfor name in dir(attnpool): getattr(attnpool, name)", tmp_path)
    assert [event for event in found["seen"] if event[0].startswith(("socket.", "subprocess."))] == []
    assert "timm" not in found["loaded"]


def test_planted_faults_can_be_planted() -> None:
    """Every fault of benchmarks/planted_faults.py has its place and its tests; code that moves takes them along."""
    planted = runpy.run_path(str(TESTS.parent / "benchmarks" / "planted_faults.py"))
    none(planted["problems"](planted["FAULTS"]))
