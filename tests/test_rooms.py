"""Dependencies between the rooms of utils/ point one way, and importing one room does not load the packages of
another."""

import ast
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter

import pytest
from import_graph import MODULES, ROOT, SCRIPTS, imported_by

LEVELS = {  # a module may import modules of its own room and of lower levels
    "foundation": 0, "scoring": 1, "models": 1, "data": 1, "runs": 2, "engine": 3, "plots": 3, "scripts": 4,
    "simulator": 5, "tools": 5, "notebook": 5, "kaggle": 5,
}  # fmt: skip
PROGRAMS = [room for room, level in LEVELS.items() if level == 5]  # which may also use one another


def _room(name):
    if name in SCRIPTS:
        return "scripts"
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and (ROOT / "utils" / parts[1]).is_dir() else "foundation"


def test_every_room_has_a_level_and_says_what_lives_in_it():
    rooms = {_room(name) for name in MODULES}
    assert rooms == set(LEVELS)
    for room in rooms - {"foundation", "scripts"}:
        assert ast.get_docstring(ast.parse((ROOT / "utils" / room / "__init__.py").read_text())), room


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_downwards(name):
    own = _room(name)
    upwards = [
        other for other in imported_by(name)
        if (room := _room(other)) != own and LEVELS[room] >= LEVELS[own] and not {room, own} <= set(PROGRAMS)
    ]  # fmt: skip
    assert not upwards, f"{name} ({own}) imports {upwards}"


def test_no_circles():
    tuple(TopologicalSorter({name: imported_by(name) - {name} for name in MODULES}).static_order())  # raises CycleError


def test_no_two_modules_share_a_name():
    names = Counter(path.stem for path in MODULES.values() if path.stem not in ("__init__", "__main__"))
    assert not [name for name, count in names.items() if count > 1]


def test_opencv_is_imported_in_one_place():
    """Else it could be loaded before its limits are set."""
    for name, path in MODULES.items():
        tree = ast.walk(ast.parse(path.read_text()))
        direct = [
            node for node in tree if isinstance(node, ast.Import) and any(alias.name == "cv2" for alias in node.names)
        ]
        assert not direct or name == "utils.opencv", name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("room", "unwanted"),
    [("foundation", ["cv2", "albumentations"]), ("scoring", ["torch", "cv2", "matplotlib"]), ("runs", ["torch", "matplotlib"])],
)  # fmt: skip
def test_importing_a_room_loads_only_what_it_needs(room, unwanted):
    names = [name for name in MODULES if _room(name) == room and name != "utils.opencv"]
    code = f"import sys\nfor name in {names}: __import__(name)\nprint([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
