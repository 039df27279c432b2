"""P11: guards survive migrations. SQLite alters tables by writing them anew, which loses triggers silently."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.db.migrations import operations

from tests.conftest import vendor

ROOT = Path(settings.BASE_DIR)
FIRST = "0001_initial"

# Every operation of Django's on guarded tables; what renames one also renames it back, so that the list
# of guards fits again. The second value: SQLite writes ``evidence_attempt`` anew.
OPERATIONS: dict[str, tuple[str, bool]] = {
    "add_nullable_field": ("AddField('attempt', 'a', models.IntegerField(null=True))", False),
    "add_field": ("AddField('attempt', 'b', models.CharField(max_length=9, default='x'))", True),
    "add_unique_field": ("AddField('attempt', 'c', models.IntegerField(null=True, unique=True))", True),
    "add_foreign_key": (
        "AddField('attempt', 'd', models.ForeignKey('evidence.person', models.PROTECT, null=True, related_name='+'))",
        False,
    ),
    "add_many_to_many": ("AddField('attempt', 'e', models.ManyToManyField('evidence.person'))", False),
    "alter_field_to_not_null": ("AlterField('attempt', 'a', models.IntegerField(default=1))", True),
    "alter_field_type": ("AlterField('attempt', 'a', models.CharField(max_length=20, default=''))", True),
    "alter_field_to_unique": (
        "AlterField('attempt', 'b', models.CharField(max_length=9, default='x', unique=True))",
        True,
    ),
    "rename_field": ("RenameField('attempt', 'a', 'z')", False),
    "rename_unique_field": ("RenameField('attempt', 'b', 'y')", False),
    "remove_field": ("RemoveField('attempt', 'z')", False),
    "remove_unique_field": ("RemoveField('attempt', 'y')", True),
    "remove_foreign_key": ("RemoveField('attempt', 'd')", True),
    "remove_many_to_many": ("RemoveField('attempt', 'e')", False),
    "alter_unique_together": ("AlterUniqueTogether('attempt', {('case', 'started_at')})", False),
    "alter_unique_together_back": ("AlterUniqueTogether('attempt', set())", False),
    "add_check": (
        "AddConstraint('attempt', models.CheckConstraint(name='n', condition=models.Q(number__lt=1000)))",
        True,
    ),
    "add_unique": (
        "AddConstraint('attempt', models.UniqueConstraint(name='u', fields=['case', 'tries']))",
        True,
    ),
    "add_partial_unique": (
        "AddConstraint('attempt', models.UniqueConstraint(name='p', fields=['case'], condition=models.Q(number=1)))",
        False,
    ),
    "alter_constraint": (
        "AlterConstraint('attempt', 'n', models.CheckConstraint(name='n', condition=models.Q(number__lt=1000), "
        "violation_error_message='m'))",
        False,
    ),
    "remove_check": ("RemoveConstraint('attempt', 'n')", True),
    "remove_unique": ("RemoveConstraint('attempt', 'u')", True),
    "remove_partial_unique": ("RemoveConstraint('attempt', 'p')", False),
    "add_index": ("AddIndex('attempt', models.Index(name='i', fields=['tries']))", False),
    "rename_index": ("RenameIndex('attempt', new_name='j', old_name='i')", False),
    "remove_index": ("RemoveIndex('attempt', 'j')", False),
    "alter_model_table": (
        "AlterModelTable('attempt', 'elsewhere'), migrations.AlterModelTable('attempt', 'evidence_attempt')",
        False,
    ),
    "alter_table_comment": ("AlterModelTableComment('attempt', 'guarded')", False),
    "rename_model": ("RenameModel('Attempt', 'Trial'), migrations.RenameModel('Trial', 'Attempt')", False),
    "order_with_respect_to": ("AlterOrderWithRespectTo('attempt', 'case')", True),
    "order_with_respect_to_back": ("AlterOrderWithRespectTo('attempt', None)", False),
    "alter_options": ("AlterModelOptions('attempt', {'ordering': ['number']})", False),
    "alter_managers": ("AlterModelManagers('attempt', [])", False),
    "create_model": ("CreateModel('New', [('id', models.BigAutoField(primary_key=True))])", False),
    "delete_model": ("DeleteModel('New')", False),
    "run_sql_on_guarded_rows": ("RunSQL('UPDATE evidence_attempt SET tries = tries + 1')", False),
    "run_python": (
        "RunPython(lambda apps, editor: apps.get_model('evidence', 'Attempt').objects.update(tries=1))",
        False,
    ),
    "state_alone": ("SeparateDatabaseAndState()", False),
    # A table that others point to.
    "alter_referenced_key": ("AlterField('attempt', 'id', models.AutoField(primary_key=True))", True),
}
# Composite keys and single-row tables are rebuilt by the same code, on other columns.
OTHER_TABLES = ("record", "recordkey", "sealentry", "caselink", "merklenode", "ledgerhead", "case", "person")
OPERATIONS["add_field_to_others"] = (
    ", migrations.".join(
        f"AddField('{name}', 'extra', models.IntegerField(default=7))" for name in OTHER_TABLES
    ),
    False,
)

# PostgreSQL alters tables in place; there it is enough to see the guards go and come back.
IN_BRIEF = (
    "add_nullable_field",
    "add_field",
    "alter_field_type",
    "alter_unique_together",
    "rename_model",
    "run_sql_on_guarded_rows",
    "add_field_to_others",
)
TRIED = tuple(OPERATIONS) if vendor() == "sqlite" else IN_BRIEF

UNPROTECTED = "unprotected"
FAILING = "failing"


def _source(previous: str, body: str) -> str:
    return (
        "from django.db import migrations, models\n\n"
        "class Migration(migrations.Migration):\n"
        f"    dependencies = [('evidence', '{previous}')]\n"
        f"    operations = [{'migrations.' + body if body else ''}]\n"
    )


@pytest.fixture(scope="module")
def scratch_database(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any) -> Iterator[str]:
    """URL of an empty database that goes with the tests."""
    if vendor() == "sqlite":
        yield f"sqlite:///{tmp_path_factory.mktemp('scratch')}/rebuilds.sqlite3"
        return
    at = settings.DATABASES["default"]
    name = f"scratch_{secrets.token_hex(6)}"
    with django_db_blocker.unblock(), connection._nodb_cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}"')
    yield f"postgres://{at['USER']}:{at['PASSWORD']}@{at['HOST']}:{at['PORT']}/{name}"
    with django_db_blocker.unblock(), connection._nodb_cursor() as cursor:
        cursor.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="module")
def runs(scratch_database: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What ``rebuild_tables`` reported after each migration, by its name in the table above."""
    folder = tmp_path_factory.mktemp("migrations")
    package = folder / "scratch_migrations"
    shutil.copytree(ROOT / "evidence" / "migrations", package)
    first = max(path.stem for path in package.glob("0*.py"))
    (folder / "scratch_settings.py").write_text(
        "from cavra_site.settings import *\n"
        "MIGRATION_MODULES = {'evidence': 'scratch_migrations'}\n"
        "options = DATABASES['default']['OPTIONS']\n"
        # Nothing here has to survive a power cut.
        "options.update({k: v.replace('=FULL', '=OFF') for k, v in options.items() if k == 'init_command'})\n"
    )
    steps = {name: OPERATIONS[name][0] for name in TRIED}
    steps[UNPROTECTED] = "AddField('attempt', 'm', models.IntegerField(default=1))"
    # After a rebuild, within the same run, something goes wrong.
    steps[FAILING] = (
        "AddField('attempt', 'n', models.IntegerField(default=1)), migrations.RunSQL('SELECT a FROM nowhere')"
    )
    names = [f"{number:04}_{step}" for number, step in enumerate(steps, start=2000)]
    for previous, name, body in zip([first, *names], names, steps.values(), strict=False):
        (package / f"{name}.py").write_text(_source(previous, body))
    *tried, unprotected, failing = names
    # After both accidents: a run with nothing to do still puts the guards back.
    order = [*tried, f"!{unprotected}", unprotected, failing, unprotected]
    done = subprocess.run(
        [sys.executable, "-m", "tests.evidence.rebuild_tables", first, *order],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "scratch_settings",
            "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
            "DATABASE_URL": scratch_database,
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    keys = [*TRIED, UNPROTECTED, "after that", FAILING, "after the failure", "contents"]
    return dict(zip(keys, reports, strict=True))


def test_every_operation_of_django_is_tried() -> None:
    tried = {name for body, _ in OPERATIONS.values() for name in operations.__all__ if f"{name}(" in body}
    # Kept by Django for migrations of old; no model has the option any more.
    assert tried == set(operations.__all__) - {"AlterIndexTogether"}


@pytest.mark.parametrize("name", TRIED)
def test_guards_stand_after_every_operation(runs: dict[str, dict[str, Any]], name: str) -> None:
    assert runs[name]["differences"] == []
    assert runs[name]["failed"] == ""
    if vendor() == "sqlite" and OPERATIONS[name][1]:
        assert "evidence_attempt" in runs[name]["rebuilt"]


def test_rows_survive_as_well(runs: dict[str, dict[str, Any]]) -> None:
    assert runs["contents"]["kept"]


def test_a_failed_migration_is_seen_and_the_next_run_repairs_it(runs: dict[str, dict[str, Any]]) -> None:
    assert runs[FAILING]["failed"]
    assert "guard guard_evidence_attempt_update is missing" in runs[FAILING]["differences"]
    assert runs["after the failure"]["differences"] == []


@pytest.mark.only("sqlite")
def test_without_the_signals_a_rebuild_loses_guards(runs: dict[str, dict[str, Any]]) -> None:
    """What this file is about is real: the same migration in a product that did nothing."""
    assert runs[UNPROTECTED]["rebuilt"] == ["evidence_attempt"]
    assert "guard guard_evidence_attempt_delete is missing" in runs[UNPROTECTED]["differences"]
    assert runs["after that"]["differences"] == []
