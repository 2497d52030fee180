"""The laws of the house, read from the source: who may import whom, where printing happens, how long a file is.

The picture that they keep is in docs/design.md.
"""

import ast
import functools
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxvid

PACKAGE = Path(jaxvid.__file__).resolve().parent
ROOT = PACKAGE.parent
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
TRACKED_SUFFIXES = {".py", ".md", ".toml", ".cfg", ".yml", ".yaml", ".json", ".ipynb", ".txt", ".sh", ""}

# What each room of jaxvid may import of the others; `paths`, `files` and `machine` stand beside `types` at the
# bottom.
MAY_IMPORT = {
    "types": set(),
    "paths": set(),
    "files": set(),
    "machine": set(),
    "ops": {"types"},
    "nn": {"types", "ops"},
    "models": {"types", "ops", "nn"},
    "data": {"types", "paths", "files"},
    "evaluation": {"types", "ops", "files"},
    "explain": {"types", "ops"},
    "config": set(),
    "train": {"config", "types", "ops", "nn", "models", "data", "evaluation", "paths", "files", "machine"},
    "inference": {"config", "types", "data", "evaluation", "explain", "train", "paths", "files"},
    "doctor": {"paths", "machine"},
    "benchmarks": {"config", "types", "ops", "nn", "models", "data", "evaluation", "train", "paths", "machine"},
    "progress": {"train", "types"},
    "cli": {"config", "types", "ops", "nn", "models", "data", "evaluation", "explain", "train", "inference", "paths",
            "files", "machine", "doctor", "benchmarks", "progress"},
}  # fmt: skip

NEVER = {"tensorflow", "torch", "torchvision", "clu", "cv2", "decord", "torchcodec"}
# What a room may not import when it is itself imported, or (``anywhere``) not even inside a function.
NOT_AT_IMPORT = {"data": {"jax", "jaxlib", "flax", "optax", "orbax", "chex"}}
NOT_ANYWHERE = {
    "ops": {"flax", "optax", "orbax", "grain", "av", "ml_collections"},
    "nn": {"optax", "orbax", "grain", "av", "ml_collections"},
    "models": {"optax", "orbax", "grain", "av", "ml_collections"},
    "data": {"flax", "optax", "orbax", "ml_collections"},
    "evaluation": {"flax", "optax", "orbax", "grain", "av", "ml_collections"},
    "explain": {"flax", "optax", "orbax", "grain", "av", "ml_collections"},
    "types": {"flax", "optax", "orbax", "grain", "av", "ml_collections"},
}
CONFIG_MAY_IMPORT = {*sys.stdlib_module_names, "ml_collections", "jaxvid"}


@functools.cache
def tree(file):
    return ast.parse((PACKAGE / file).read_text(encoding="utf-8"), filename=file)


def room(file):
    return file.split("/")[0].removesuffix(".py")


def imports(file, *, at_import_only=False):
    """Full names of what a file imports; `from a import b` counts as `a.b`."""
    package = ["jaxvid", *file.split("/")[:-1]]
    for node in nodes(tree(file), at_import_only):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += node.module.split(".") if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def nodes(node, at_import_only):
    """All nodes but those under `if TYPE_CHECKING:` and, at import only, those inside functions."""
    yield node
    if at_import_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from nodes(other, at_import_only)
        else:
            yield from nodes(child, at_import_only)


def rooms_imported(file):
    for name in imports(file):
        parts = name.split(".")
        if parts[0] == "jaxvid" and len(parts) > 1 and parts[1] != "__version__":
            yield parts[1]


# The readers above must see what they are for.


def test_the_reader_of_imports_sees_all_kinds(tmp_path, monkeypatch):
    source = """
from typing import TYPE_CHECKING
import a.b as c
from . import near
from ..train import far
if TYPE_CHECKING:
    import hidden
def f():
    from jaxvid.models import late
class K:
    import inner
"""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "example.py").write_text(source)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    name = "data/example.py"
    always = {"typing.TYPE_CHECKING", "a.b", "jaxvid.data.near", "jaxvid.train.far", "inner"}
    assert set(imports(name, at_import_only=True)) == always
    assert set(imports(name)) == always | {"jaxvid.models.late"}
    assert set(rooms_imported(name)) == {"data", "train", "models"}
    tree.cache_clear()


def test_every_room_is_known():
    assert {room(file) for file in FILES} - {"__init__"} <= set(MAY_IMPORT)


# Imports point down.


@pytest.mark.parametrize("file", FILES)
def test_imports_point_down(file):
    if file == "__init__.py":
        assert list(rooms_imported(file)) == []
        return
    own = room(file)
    wrong = set(rooms_imported(file)) - MAY_IMPORT[own] - {own}
    assert not wrong, f"{file} imports jaxvid.{', jaxvid.'.join(sorted(wrong))}, which {own} may not"


@pytest.mark.parametrize("file", FILES)
def test_foreign_packages_stay_in_their_rooms(file):
    anywhere = {name.split(".")[0] for name in imports(file)}
    at_import = {name.split(".")[0] for name in imports(file, at_import_only=True)}
    assert not anywhere & NEVER
    assert not at_import & NOT_AT_IMPORT.get(room(file), set())
    assert not anywhere & NOT_ANYWHERE.get(room(file), set())
    if room(file) == "config":
        assert anywhere <= CONFIG_MAY_IMPORT


def fresh(program):
    """Runs a program in a fresh interpreter, as a user would, and returns what it printed as JSON."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COV_", "PYTEST_"))}
    environment |= {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


LOADED = "sorted({name.split('.')[0] for name in sys.modules})"


def test_importing_jaxvid_touches_nothing_heavy():
    program = f"import sys; before = len(sys.modules); import jaxvid; import json; print(json.dumps({LOADED}))"
    loaded = set(fresh(program))
    assert "jaxvid" in loaded
    assert not loaded & {"jax", "flax", "tensorflow", "torch", "av", "numpy", "grain", "matplotlib", "orbax", "sklearn"}


def test_the_command_line_imports_nothing_heavy_before_it_is_needed():
    loaded = set(fresh(f"import sys, json; import jaxvid.cli; print(json.dumps({LOADED}))"))
    assert not loaded & {"jax", "flax", "tensorflow", "torch", "av", "grain", "matplotlib", "orbax", "sklearn"}


HEAVY = {"jax", "flax", "tensorflow", "torch", "orbax", "optax", "ml_collections", "sklearn"}


@pytest.mark.parametrize(
    "name",
    [
        "types",
        "paths",
        "machine",
        "data",
        "data.decode",
        "data.sampling",
        "data.augment",
        "data.clips",
        "data.datasets.digits",
    ],
)
def test_what_decodes_brings_no_jax(name):
    loaded = set(fresh(f"import sys, json; import jaxvid.{name}; print(json.dumps({LOADED}))"))
    assert not loaded & HEAVY


def test_the_pipeline_brings_nothing_heavy_but_what_grain_itself_brings():
    """Grain imports jax and a part of Orbax; our own files must not be the reason for anything more."""
    ours, grains = (
        set(fresh(f"import sys, json; import {name}; print(json.dumps({LOADED}))"))
        for name in ("jaxvid.data.pipeline", "grain")
    )
    assert not (ours - grains) & HEAVY
    assert not ours & {"flax", "tensorflow", "torch", "optax", "ml_collections"}


def test_every_module_can_be_imported_and_none_brings_tensorflow_or_torch():
    program = f"""
import importlib, json, pkgutil, sys
import jaxvid
names = [m.name for m in pkgutil.walk_packages(jaxvid.__path__, "jaxvid.") if not m.name.endswith("__main__")]
for name in names: importlib.import_module(name)
import jax
started = bool(jax._src.xla_bridge._backends)
print(json.dumps([names, {LOADED}, started]))
"""
    names, loaded, started = fresh(program)
    assert {name.removeprefix("jaxvid.").split(".")[0] for name in names} >= {"data", "evaluation", "ops", "train"}
    assert not set(loaded) & NEVER
    assert not started, "importing jaxvid's modules started a device"


def test_modules_do_not_hide_behind_a_function_of_their_own_name():
    for module in pkgutil.walk_packages(jaxvid.__path__, "jaxvid."):
        parent, _, name = module.name.rpartition(".")
        found = getattr(importlib.import_module(parent), name, None)
        assert found is None or found is sys.modules.get(module.name), f"{parent}.{name} hides the module {module.name}"


# Printing, files, names, docstrings.


def test_only_the_command_line_prints():
    allowed = {"cli/__init__.py", "cli/commands.py", "cli/data_commands.py", "progress.py"}
    for file in FILES:
        calls = [n.lineno for n in ast.walk(tree(file)) if isinstance(n, ast.Call) and ast.unparse(n.func) == "print"]
        assert file in allowed or not calls, f"{file} prints in the lines {calls}"


def test_asserts_are_for_tests():
    for file in FILES:
        lines = [node.lineno for node in ast.walk(tree(file)) if isinstance(node, ast.Assert)]
        assert not lines, f"{file} asserts in the lines {lines}; raise an error that names the rule"


@pytest.mark.parametrize("file", FILES)
def test_one_file_one_idea(file):
    assert Path(file).name not in {"utils.py", "util.py", "common.py", "helpers.py", "misc.py"}
    num_lines = len((PACKAGE / file).read_text(encoding="utf-8").splitlines())
    assert num_lines <= 400, f"{file} has {num_lines} lines"


@pytest.mark.parametrize("file", FILES)
def test_what_is_public_has_a_docstring(file):
    module = tree(file)
    missing = [] if ast.get_docstring(module) else ["the module"]
    for node in module.body:
        missing += undocumented(node, "")
    assert not missing, f"{file}: no docstring in {', '.join(missing)}"


def undocumented(node, prefix):
    """Public functions and classes, and their public methods, that say nothing."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
        return
    # A Linen module's __call__ and setup, and an override, are described by their class.
    if not ast.get_docstring(node) and not any(ast.unparse(d).endswith(("override", "overload", ".setter"))
                                               for d in node.decorator_list):  # fmt: skip
        yield prefix + node.name
    if isinstance(node, ast.ClassDef):
        for child in node.body:
            yield from undocumented(child, f"{node.name}.")


def test_the_docstring_law_sees_methods_and_not_what_is_private():
    source = "class A:\n  def b(self): ...\n  def _c(self): ...\n  def d(self):\n    'yes'\ndef _e(): ...\ndef f(): ..."
    found = [name for node in ast.parse(source).body for name in undocumented(node, "")]
    assert found == ["A", "A.b", "f"]


def tracked_files():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, timeout=60)
    if listed.returncode:
        pytest.skip("not a git checkout: nothing says which files are tracked")
    return [ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]


OWN_PATH = re.compile(r"(?<![\w.~])/(?:root|home|Users|work|tmp/w)/[\w.-]")


def test_no_path_of_a_developers_machine():
    for path in tracked_files():
        if path == Path(__file__).resolve() or path.suffix not in TRACKED_SUFFIXES or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            assert not OWN_PATH.search(line), f"{path.relative_to(ROOT)}:{number} names a path of one machine: {line}"


# The slashes are filled in, so that this file names no path itself.
@pytest.mark.parametrize("text", ["{}root/x", "'{}home/ann/videos'", "see {}Users/ann", "../main:{}work/data"])
def test_the_path_law_sees_such_paths(text):
    assert OWN_PATH.search(text.format("/"))
    assert not OWN_PATH.search("runs{0}work/x, https://example.org/home/page, ~/home/x, frame{0}work/".format("/"))


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.name)
def test_a_config_fits_on_a_screen_and_says_what_it_is(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    docstring = ast.get_docstring(ast.parse(text)) or ""
    assert f"--config=configs/{path.stem}.py" in docstring, "the docstring holds the exact command"
    names = {node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    assert "get_config" in names


def test_tests_mirror_the_package():
    """A test file is named after the file that it tests, or after what it tests across files."""
    for path in sorted((ROOT / "tests").glob("*/test_*.py")):
        folder = PACKAGE / path.parent.name
        assert folder.is_dir() or path.parent.name == "golden", f"{path.parent.name} is not a room"
