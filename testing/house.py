"""The map of the code: which package may import which, and what stands in the way, read from the code itself.

Every import counts, wherever it stands: at the top, in a function, or under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
KINDED = {"model", "pool", "record", "catalog", "run", "recipe", "options"}
"""What has a kind of data, if the word is in the name of what is asked for `.kind`."""
PRODUCT = ("mgd_core", "tasks", "flows")

MAY_IMPORT: dict[str, str] = {
    "flows": "submission studies explore report smoothness curation scoring modality ranks runs catalog evaluation "
    "export census sharding subset pool tables homes files mgd_core",
    "submission": "evaluation subset pool homes files mgd_core",
    "studies": "report modality catalog evaluation pool tables html homes files mgd_core",
    "explore": "subset pool tables homes files mgd_core",
    "report": "modality catalog evaluation runs pool tables html homes files",
    "smoothness": "curation modality runs catalog tables homes files mgd_core",
    "curation": "scoring modality ranks runs catalog evaluation export sharding subset pool tables homes files "
    "mgd_core",
    "scoring": "modality runs catalog evaluation pool tables homes files mgd_core",
    "modality": "runs catalog evaluation pool tables homes files mgd_core",
    "ranks": "catalog files mgd_core",
    "runs": "catalog evaluation export subset pool tables homes files mgd_core",
    "catalog": "evaluation sharding subset pool homes files mgd_core",
    "evaluation": "pool tables homes files mgd_core",
    "export": "subset pool tables homes files mgd_core",
    "census": "pool tables html homes files",
    "sharding": "pool tables homes files mgd_core",
    "subset": "pool tables homes files mgd_core",
    "pool": "tables homes files mgd_core",
    "tables": "homes files mgd_core",
    "html": "files",
    "homes": "files mgd_core",
    "files": "mgd_core",
    "mgd_core": "",
}
"""Packages of tasks/, between flows/ and mgd_core/, top to bottom: each with those below it that it may import."""

CORE_MAY_IMPORT: dict[str, str] = {
    "adapters": "engine plans training autodiff errors",
    "analysis": "engine training autodiff errors",
    "descent": "engine errors",
    "engine": "plans training autodiff ranks whole_files errors",
    "models": "training autodiff errors",
    "plans": "errors",
    "training": "autodiff ranks errors",
    "autodiff": "ranks errors",
    "ranks": "errors",
    "whole_files": "errors",
    "errors": "",
}
"""Packages of mgd_core/, the same way."""


class Import(NamedTuple):
    """``module`` imports ``imported`` on a line; ``hidden``: not at the top of the file."""

    module: str
    imported: str
    line: int
    hidden: bool


def modules(*folders: str) -> dict[str, Path]:
    """Every module below ``folders`` by its dotted name."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}


def imports(*folders: str) -> list[Import]:
    """All imports among the modules of ``folders``."""
    known = modules(*folders)
    return [found for name, path in known.items() for found in _imports(name, path, known)]


def package_of(module: str) -> str:
    """What a module counts as: its package of tasks/, its package of mgd_core/ behind a colon, or flows."""
    top, _, rest = module.partition(".")
    inner = rest.partition(".")[0]
    return {"tasks": inner, "mgd_core": f"mgd_core:{inner}"}.get(top, top)


def upward(found: list[Import]) -> list[Import]:
    """Imports that the table does not allow. The public surface of mgd_core may name what it likes."""
    return [one for one in found if one.module != "mgd_core" and not _allowed(one)]


def circles(found: list[Import]) -> list[list[str]]:
    """Groups of modules that reach each other (Tarjan's strongly connected components)."""
    graph = defaultdict(set)
    for one in found:
        if one.imported != one.module:
            graph[one.module].add(one.imported)
    order, low, stack, groups = dict[str, int](), dict[str, int](), list[str](), list[list[str]]()

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in order:
                visit(other)
            if other in stack:
                low[module] = min(low[module], low[other])
        if low[module] == order[module]:
            at = stack.index(module)
            groups.append(sorted(stack[at:]))
            del stack[at:]

    for module in sorted(graph):
        if module not in order:
            visit(module)
    return [group for group in groups if len(group) > 1]


def _allowed(one: Import) -> bool:
    a, b = package_of(one.module), package_of(one.imported)
    if a == b:
        return True
    if a.startswith("mgd_core:"):
        return b.startswith("mgd_core:") and b[9:] in CORE_MAY_IMPORT[a[9:]].split()
    return b.partition(":")[0] in MAY_IMPORT.get(a, "").split()


def _imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            named = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for full in named:
            while full and full not in known:
                full = full.rpartition(".")[0]
            if full and full != name:
                yield Import(name, full, node.lineno, node not in tree.body)


def kind_branches() -> list[str]:
    """Places in the product that ask what kind of data there is, outside tasks/modality: `isinstance` with a kind's own
    catalog or recipe, and comparisons with `.kind`, `.modality` or `["kind"]`."""
    return [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        for name, path in modules(*PRODUCT).items()
        if not name.startswith("tasks.modality")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if _asks_kind(node)
    ]


def folder_sizes() -> dict[str, int]:
    """Modules of each folder of the product, without `__init__`."""
    sizes = defaultdict[str, int](int)
    for path in modules(*PRODUCT).values():
        sizes[str(path.parent.relative_to(ROOT))] += path.name != "__init__.py"
    return dict(sizes)


def functions() -> dict[str, int]:
    """Lines of every function of the product, by place."""
    return {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path in modules(*PRODUCT).values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def lines() -> int:
    """Lines of the product's Python."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in modules(*PRODUCT).values())


def _asks_kind(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
        named = [x.id for x in ast.walk(node.args[1]) if isinstance(x, ast.Name)]
        return any(x.endswith(("Catalog", "Recipe")) and x not in ("BaseCatalog", "Recipe") for x in named)
    if isinstance(node, ast.Compare):
        return any(_is_kind(side) for side in (node.left, *node.comparators))
    return False


def _is_kind(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr == "modality" or (
            node.attr == "kind" and bool(KINDED & set(re.split(r"\W+|_", ast.unparse(node.value))))
        )
    return isinstance(node, ast.Subscript) and ast.unparse(node.slice) == "'kind'"
