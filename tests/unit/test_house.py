"""Rules for lib: which module may import which, and which may print."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

from tests.support import ROOT

MODULES = {
    path.relative_to(ROOT)
    .with_suffix("")
    .as_posix()
    .replace("/", ".")
    .removesuffix(".__init__"): ast.parse(path.read_text())
    for path in sorted((ROOT / "lib").rglob("*.py"))
}


def imports(name: str) -> set[str]:
    """All modules that this one imports, at its top or inside functions."""
    found: set[str] = set()
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def users_of(package: str) -> set[str]:
    return {name for name in MODULES if any(found.split(".")[0] == package for found in imports(name))}


#: packages by level, the lowest first: a module may import its own package and lower levels only
FLOORS = (
    ("errors",),
    ("stop",),
    ("config",),
    ("postgres", "extract"),
    ("load", "transform", "elt_schema"),
    ("run",),
    ("report", "scaffold"),
    ("cli",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room(module: str) -> str:
    """lib.run.plan -> run"""
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_a_floor_and_says_what_it_owns() -> None:
    assert {room(name) for name in MODULES} - {""} == set(FLOOR_OF)
    for name in MODULES:
        assert ast.get_docstring(MODULES[name]), name


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_one_way(name: str) -> None:
    for found in imports(name) & MODULES.keys() - {"lib"}:
        same_room = room(found) == room(name)
        assert same_room or FLOOR_OF[room(found)] < FLOOR_OF[room(name)], f"{name} imports {found}"


def test_no_imports_run_in_a_circle() -> None:
    known = {name: imports(name) & MODULES.keys() - {name, "lib"} for name in MODULES}
    # importing a submodule also runs its package; these packages only have docstrings, except for lib.extract
    while free := [name for name in known if not known[name] & known.keys()]:
        for name in free:
            del known[name]
    assert not known


def test_only_the_plan_knows_which_extractor_a_job_needs() -> None:
    users = {
        name
        for name in MODULES
        for found in imports(name) - {"lib.extract.catalog"}  # an interface, like lib.extract itself
        if found.startswith("lib.extract.") and found in MODULES
    }
    assert {name for name in users if room(name) != "extract"} == {"lib.run.plan"}


def test_http_is_the_extractors_business_alone() -> None:
    assert {room(name) for name in users_of("requests")} == {"extract"}


def test_duckdb_which_is_optional_is_imported_when_a_job_needs_it() -> None:
    assert users_of("duckdb") == {"lib.extract.duckdb"}
    for name, tree in MODULES.items():
        at_its_top = {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert "lib.extract.duckdb" not in at_its_top, name


def test_the_driver_is_known_to_rooms_that_talk_to_postgresql_alone() -> None:
    rooms = {"postgres", "load", "transform", "elt_schema", "run", "report"}
    assert {room(name) for name in users_of("psycopg2")} <= rooms


def test_the_packages_of_the_page_are_imported_by_the_page_alone() -> None:
    """A project without a page does not install them: `cli.report` imports the room when it is needed."""
    for package in ("jinja2", "pygal"):
        assert {room(name) for name in users_of(package)} == {"report"}
    for name, tree in MODULES.items():
        if room(name) != "report":
            at_its_top = {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
            assert not any(module.startswith("lib.report") for module in at_its_top), name


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
    assert printing == {"lib.cli.console"}


def test_a_change_is_taken_only_where_black_ruff_mypy_and_sqlfluff_find_nothing() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile.partition("\ncheck:")[2].partition("\n\n")[0]
    *for_python, for_sql = re.findall(r"-m (\S.*)", recipe)
    assert for_python == ["black --check .", "ruff check .", "mypy"]
    folders = {path for path in ROOT.glob("[!.]*") if path.is_dir()} - {ROOT / "venv"}
    with_sql = sorted(path.name for path in folders if any(path.rglob("*.sql")))
    assert for_sql == " ".join(["sqlfluff lint --quiet", *with_sql])
    assert "make check" in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_oldest_and_the_newest_python_are_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest, beyond = re.findall(r"3\.(\d+)", project["requires-python"])
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert re.findall(r'"3\.(\d+)"', workflow) == [oldest, str(int(beyond) - 1)] and ".ci/run" in workflow
    assert f"(3, {oldest}) <= sys.version_info < (3, {beyond})" in (ROOT / "Makefile").read_text()


def test_the_doors_stay_thin() -> None:
    for name in ("elt_daily_load.py", "elt_run_job.py"):
        assert len((ROOT / name).read_text().splitlines()) <= 25
