"""Which of the kit's modules import which."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRIPTS = ("make_folds", "train", "predict", "threshold", "ensemble")


def list_modules():
    """{dotted name: path} of the scripts and of all modules in utils/."""
    found = {name: ROOT / f"{name}.py" for name in SCRIPTS}
    for path in sorted((ROOT / "utils").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = list_modules()


def imported_by(name):
    """The kit's modules that one imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {
                inner if (inner := f"{node.module}.{alias.name}") in MODULES else node.module for alias in node.names
            }
    return found & set(MODULES)
