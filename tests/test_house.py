"""The rules of the house: who may import whom, and who may speak."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = {
    path.relative_to(ROOT)
    .with_suffix("")
    .as_posix()
    .replace("/", ".")
    .removesuffix(".__init__"): ast.parse(path.read_text())
    for path in sorted((ROOT / "lib").rglob("*.py"))
}


def imports(name: str) -> set[str]:
    """Every module that this one imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def users_of(package: str) -> set[str]:
    return {name for name in MODULES if any(found.split(".")[0] == package for found in imports(name))}


WORKERS = ("lib.extractors", "lib.loader", "lib.transformer")


@pytest.mark.parametrize("worker", WORKERS)
def test_a_worker_knows_no_other_worker(worker: str) -> None:
    for name in (name for name in MODULES if name.startswith(worker)):
        for other in set(WORKERS) - {worker}:
            # the border of the extractors is types alone
            known = {found for found in imports(name) if found.startswith(f"{other}.")} - {
                "lib.extractors.ByteStream",
                "lib.extractors.Slice",
                "lib.extractors.SourceTable",
            }
            assert not known and (other not in imports(name) or other == "lib.extractors"), (name, other)


def test_http_is_the_extractors_business_alone() -> None:
    assert {name.rpartition(".")[0] for name in users_of("requests")} == {"lib.extractors"}


def test_the_driver_is_imported_by_four_modules_alone() -> None:
    assert users_of("psycopg2") == {"lib.database", "lib.history", "lib.loader", "lib.transformer"}


def test_nothing_in_lib_knows_the_sandbox_or_ends_the_process() -> None:
    assert users_of("sandbox") == set()
    for name, tree in MODULES.items():
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not calls & {"sys.exit", "exit", "quit", "os._exit"}, name


def test_only_the_console_prints() -> None:
    printing = {
        name
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert printing == {"lib.console"}


def test_a_change_is_taken_only_where_black_ruff_and_mypy_find_nothing() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile.partition("\ncheck:")[2].partition("\n\n")[0]
    assert re.findall(r"-m (\S.*)", recipe) == ["black --check .", "ruff check .", "mypy"]
    assert "make check" in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_oldest_and_the_newest_python_are_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest, beyond = re.findall(r"3\.(\d+)", project["requires-python"])
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert re.findall(r'"3\.(\d+)"', workflow) == [oldest, str(int(beyond) - 1)] and ".ci/run" in workflow
    assert f"(3, {oldest}) <= sys.version_info < (3, {beyond})" in (ROOT / "Makefile").read_text()


def test_three_hops_lead_from_a_script_to_the_driver() -> None:
    scripts = [ast.parse((ROOT / name).read_text()) for name in ("elt_daily_load.py", "elt_run_job.py")]
    for script in scripts:
        modules = {node.module for node in ast.walk(script) if isinstance(node, ast.ImportFrom)}
        assert modules == {"lib.command_line"}
    assert "lib.runner" in imports("lib.command_line")
    assert {"lib.database", "lib.history", "lib.stager", "lib.publisher"} <= imports("lib.runner")
