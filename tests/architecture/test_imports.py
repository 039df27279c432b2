"""Imports go downwards only (DESIGN §4). ``make check`` proves the layers; here are the rules nobody may bend."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)
APPS = ("cavra_site", "evidence", "recovery")
SURFACES = ("api", "console", "admin", "management")
# What speaks HTTP, to the outside or to a browser.
HTTP = (
    "aiohttp", "django.http", "django.shortcuts", "django.test", "django.urls", "django.views", "django_filters",
    "django_htmx", "drf_spectacular", "http", "httpx", "knox.auth", "requests", "rest_framework", "socket", "ssl",
    "urllib.request", "urllib3",
)  # fmt: skip


def modules(*under: str) -> list[Path]:
    """Source files of packages or modules, e.g. ``evidence/domain`` or ``evidence/admin``."""
    found = [path for name in under if (path := ROOT / f"{name}.py").is_file()]
    found += [path for name in under for path in (ROOT / name).rglob("*.py")]
    return [path for path in found if "migrations" not in path.parts]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, at any depth of its code: line and dotted name."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            # "from a import b" may mean the module a.b.
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def breaches(paths: list[Path], forbidden: tuple[str, ...]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in paths
        for line, name in imported(path)
        if any(f"{name}.".startswith(f"{module}.") for module in forbidden)
    ]


def test_evidence_never_imports_recovery_or_the_site() -> None:
    paths = modules("evidence")
    assert len(paths) > 40
    assert breaches(paths, ("recovery", "cavra_site")) == []


def test_recovery_never_imports_the_site() -> None:
    assert breaches(modules("recovery"), ("cavra_site",)) == []


@pytest.mark.parametrize("app", ("evidence", "recovery"))
def test_rules_and_tables_know_no_http(app: str) -> None:
    paths = modules(f"{app}/domain", f"{app}/models")
    assert len(paths) > 10
    assert breaches(paths, HTTP) == []


@pytest.mark.parametrize("app", ("evidence", "recovery"))
def test_rules_and_tables_know_no_surface(app: str) -> None:
    paths = modules(
        f"{app}/domain", f"{app}/models", f"{app}/execution", f"{app}/connectors", f"{app}/documents"
    )
    surfaces = tuple(f"{owner}.{surface}" for owner in ("evidence", "recovery") for surface in SURFACES)
    assert breaches(paths, (*surfaces, "evidence.filtersets", "recovery.filtersets")) == []


@pytest.mark.parametrize("surface", SURFACES)
def test_surfaces_never_import_each_other(surface: str) -> None:
    paths = modules(*(f"{app}/{surface}" for app in ("evidence", "recovery")))
    others = tuple(
        f"{app}.{other}" for app in ("evidence", "recovery") for other in SURFACES if other != surface
    )
    assert breaches(paths, others) == []


def test_tests_are_no_part_of_the_product() -> None:
    assert breaches(modules(*APPS), ("tests", "pytest")) == []


def test_the_rule_itself_sees_what_it_is_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checker that finds nothing anywhere would be green as well."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    source = tmp_path / "evidence" / "domain" / "verbs.py"
    source.parent.mkdir(parents=True)
    source.write_text("def act():\n    from recovery.domain import approvals\n    import aiohttp.web\n")
    (tmp_path / "evidence" / "admin.py").write_text("from .api import views\n")
    assert breaches(modules("evidence"), ("recovery",)) == [
        "evidence/domain/verbs.py:2 imports recovery.domain.approvals"
    ]
    assert breaches(modules("evidence/domain"), HTTP) == ["evidence/domain/verbs.py:3 imports aiohttp.web"]
    assert breaches(modules("evidence/admin"), ("evidence.api",)) == [
        "evidence/admin.py:1 imports evidence.api.views"
    ]
