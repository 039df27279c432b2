"""Every table is either evidence, which never changes, or state, which may; never both."""

from django.apps import apps
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState

from evidence import erasable, guards

OURS = ("evidence", "recovery")

APPEND_ONLY = {
    "evidence.Anchor",
    "evidence.Attempt",
    "evidence.AuditPackage",
    "evidence.Canary",
    "evidence.CaseLink",
    "evidence.Checkpoint",
    "evidence.ConnectorEdit",
    "evidence.DeliveryPlan",
    "evidence.ErasureItem",
    "evidence.MerkleNode",
    "evidence.NotificationPlan",
    "evidence.Parking",
    "evidence.Record",
    "evidence.RecordKey",
    "evidence.SealEntry",
    "recovery.ApprovalPlan",
    "recovery.ApprovalPlanItem",
    "recovery.Attestation",
    "recovery.Closure",
    "recovery.EntryParty",
    "recovery.Playbook",
    "recovery.PlaybookItem",
    "recovery.PossibleAttempt",
    "recovery.RecoveryCase",
    "recovery.RetryPlan",
    "recovery.RetryPlanItem",
    "recovery.StepTick",
    "recovery.Vote",
}
# State with a history: it changes by its verbs, it never goes.
NEVER_DELETED = {
    "evidence.Breaker",
    "evidence.Capsule",
    "evidence.Case",
    "evidence.EpochProposal",
    "evidence.Erasure",
    "evidence.LedgerHead",
    "evidence.LedgerKey",
    "evidence.LegalHold",
    "evidence.Person",
    "evidence.RoleGrant",
    "evidence.Route",
    "evidence.StreamHead",
    "evidence.Trouble",
    "recovery.ApprovalEntry",
    "recovery.Disposition",
    "recovery.Execution",
    "recovery.Recovery",
    "recovery.RetryDecision",
    "recovery.RetrySet",
    "recovery.RetrySetItem",
    "recovery.WorkerRun",
}
# What may change and go, and why nothing is lost with it.
MUTABLE = {
    "evidence.AccessLogEntry": "who read what, beside the evidence; kept for a time",
    "evidence.AttemptAnswer": "the start of a receiver's answer, kept for a time",
    "evidence.CanaryTurn": "a canary that is under way; the record of what comes of it takes its place",
    "evidence.SendDiagnostic": "where a send really went, for who looks for a fault; kept for a time",
    "evidence.Connector": "configuration; every change is a record",
    "evidence.ConnectorWindow": "configuration; every change is a record",
    "evidence.Heartbeat": "when a worker was last seen",
    "evidence.MaintenanceWindow": "configuration; every change is a record",
    "evidence.PauseSwitch": "a row means paused; pausing and resuming are records",
    "evidence.RecordCounter": "numbers that verify_ledger counts again",
    "evidence.RetentionRule": "configuration; every change and confirmation is a record",
    "evidence.Schedule": "configuration; every change is a record",
    "evidence.ScheduleOwner": "configuration; every change is a record",
    "evidence.SigningRefusal": "why signing a head was refused; gone with the next head that is signed",
    "evidence.Verification": "what a pass over the log found; the log itself is the evidence",
    "recovery.Inquiry": "what a connector said last when it was asked; what settles a case is in the record of it",
    "recovery.Notice": "who was told of what waits for them; messages, not evidence",
    "recovery.RetryPolicy": "configuration; every change is a record",
}


# What of the tables above a confirmed erasure empties, and nothing else does (P24). RecordKey: rows that go.
ERASABLE = {
    "evidence.AttemptAnswer": {"excerpt"},
    "evidence.SendDiagnostic": {"host", "address"},
    "evidence.Capsule": {"content"},
    "evidence.Record": {"body"},
    "evidence.RecordKey": set(),
    "evidence.Route": {"external_ref", "notes", "reason"},
    "recovery.ApprovalEntry": {"body"},
    "recovery.Attestation": {"external_ref", "notes"},
    "recovery.Disposition": {"reason", "external_ref"},
    "recovery.StepTick": {"note"},
}


def test_every_model_is_listed_exactly_once() -> None:
    lists = (APPEND_ONLY, NEVER_DELETED, MUTABLE.keys())
    listed = [label for labels in lists for label in labels]
    models = [model._meta.label for app in OURS for model in apps.get_app_config(app).get_models()]
    assert sorted(listed) == sorted(models)


def test_append_only_models_are_those_the_database_guards() -> None:
    assert guards.append_only_models() == APPEND_ONLY


def test_what_never_goes_is_guarded_too() -> None:
    assert {guard.model for guard in guards.GUARDS if isinstance(guard, guards.NeverDeleted)} == NEVER_DELETED


def test_frozen_columns_exist_and_belong_to_what_never_goes() -> None:
    """A row that can be deleted and written again has no frozen columns."""
    for guard in guards.GUARDS:
        if isinstance(guard, guards.Frozen):
            assert guard.model in NEVER_DELETED
            assert set(guard.columns) <= {field.column for field in guard.meta().local_concrete_fields}


def test_what_an_erasure_empties_is_listed() -> None:
    """A category of its own: these columns of what never changes may be emptied, these rows may go."""
    found: dict[str, set[str]] = {}
    for place in erasable.PLACES:
        found.setdefault(place.model, set()).update(place.columns)
        assert place.rows == (place.model == "evidence.RecordKey")
    assert found == ERASABLE


def test_guards_say_so_where_they_stand_in_the_way() -> None:
    """Every trigger on an erasable column or row asks for a confirmed erasure without a legal hold."""
    for vendor in ("sqlite", "postgresql"):
        bent = {
            guard.model
            for guard in guards.GUARDS
            for trigger in guard.triggers(vendor)
            if '"evidence_erasureitem"' in trigger.condition and '"evidence_legalhold"' in trigger.condition
        }
        assert bent == {label for label in ERASABLE if label in APPEND_ONLY} | {
            guard.model
            for guard in guards.GUARDS
            if isinstance(guard, guards.Frozen) and ERASABLE.get(guard.model, set()) & set(guard.columns)
        }


def test_guard_names_fit_and_differ() -> None:
    """PostgreSQL cuts names at 63 bytes, silently."""
    for vendor in ("sqlite", "postgresql"):
        names = [trigger.name for guard in guards.GUARDS for trigger in guard.triggers(vendor)]
        assert len(names) == len(set(names))
        assert max(len(name) for name in names) <= 63


def test_nothing_of_evidence_goes_with_what_it_refers_to() -> None:
    """No cascade from outside into evidence or state."""
    for label in APPEND_ONLY | NEVER_DELETED:
        for field in apps.get_model(label)._meta.local_fields:
            if field.is_relation:
                assert field.remote_field.on_delete.__name__ == "PROTECT", f"{label}.{field.name}"


def test_the_ledger_refers_to_nothing() -> None:
    """Ids as text: the log outlives what it speaks of, and never waits for its locks."""
    for label in (
        "Record",
        "RecordKey",
        "SealEntry",
        "CaseLink",
        "MerkleNode",
        "LedgerHead",
        "LedgerKey",
        "Checkpoint",
        "Anchor",
        "RecordCounter",
    ):
        model = apps.get_model("evidence", label)
        assert [field.name for field in model._meta.get_fields() if field.is_relation] == []


def test_no_migration_is_missing_and_histories_do_not_fork() -> None:
    loader = MigrationLoader(None)
    found = MigrationAutodetector(loader.project_state(), ProjectState.from_apps(apps)).changes(
        graph=loader.graph
    )
    assert {
        app: [str(operation) for m in found[app] for operation in m.operations]
        for app in OURS
        if app in found
    } == {}
    assert loader.detect_conflicts() == {}
