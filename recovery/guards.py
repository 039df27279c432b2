"""What the database refuses about decisions and executions, as data (P1, P2, P4, P11)."""

from evidence.guards import AppendOnly, Frozen, Guard, InsertRefused, NeverDeleted

GUARDS: list[Guard] = [
    AppendOnly("recovery.RetryPlan"),
    AppendOnly("recovery.RetryPlanItem"),
    AppendOnly("recovery.ApprovalPlan"),
    AppendOnly("recovery.ApprovalPlanItem"),
    AppendOnly("recovery.EntryParty"),
    AppendOnly("recovery.Vote"),
    AppendOnly("recovery.Attestation"),
    AppendOnly("recovery.Playbook"),
    AppendOnly("recovery.PlaybookItem"),
    AppendOnly("recovery.RecoveryCase"),
    AppendOnly("recovery.Closure"),
    AppendOnly("recovery.StepTick"),
    AppendOnly("recovery.PossibleAttempt"),
    NeverDeleted("recovery.RetryDecision"),
    NeverDeleted("recovery.ApprovalEntry"),
    NeverDeleted("recovery.Execution"),
    NeverDeleted("recovery.Disposition"),
    NeverDeleted("recovery.RetrySet"),
    NeverDeleted("recovery.RetrySetItem"),
    NeverDeleted("recovery.WorkerRun"),
    NeverDeleted("recovery.Recovery"),
    Frozen("recovery.RetryDecision", columns=("case_id", "attempt_no", "policy_digest", "planned_by_id")),
    Frozen(
        "recovery.ApprovalEntry",
        columns=(
            "entry_id",
            "plan_id",
            "retry_plan_id",
            "case_id",
            "attempt_no",
            "connector_id",
            "decision_id",
            "manifest",
            "manifest_digest",
            "body",
            "required_approvals",
            "require_retry_ack",
            "requested_by_id",
            "requested_at",
            "not_before",
            "approve_by",
            "execute_within_minutes",
            "eligible_digest",
            "renews_id",
        ),
    ),
    Frozen(
        "recovery.Disposition",
        columns=(
            "disposition_id",
            "case_id",
            "kind",
            "superseded_by_id",
            "reason",
            "external_ref",
            "proposed_by_id",
            "proposed_through_id",
            "proposed_at",
            "record_hash",
        ),
    ),
    Frozen(
        "recovery.RetrySet", columns=("set_id", "created_at", "created_by_id", "selection", "record_hash")
    ),
    Frozen("recovery.RetrySetItem", columns=("retry_set_id", "case_id")),
    Frozen(
        "recovery.Execution",
        columns=(
            "claim_id",
            "claim_hash",
            "execution_id",
            "entry_id",
            "case_id",
            "attempt_no",
            "run_id",
            "executed_by_id",
            "claimed_at",
            "lease_token",
        ),
    ),
    Frozen("recovery.WorkerRun", columns=("run_id", "dry_run", "requested_by_id", "requested_at")),
    # P1: a second try exists only as the execution of an approval of exactly that attempt.
    InsertRefused(
        "evidence.Attempt",
        rule="attempt_needs_execution",
        condition=(
            'NEW."number" > 1 AND NOT EXISTS (SELECT 1 FROM "recovery_execution" e '
            'WHERE e."case_id" = NEW."case_id" AND e."attempt_no" = NEW."number" '
            "AND e.\"state\" <> 'not_sent')"
        ),
    ),
    # P2: only an approved, claimed entry of the same case and attempt can be executed.
    InsertRefused(
        "recovery.Execution",
        rule="execution_needs_claim",
        condition=(
            'NOT EXISTS (SELECT 1 FROM "recovery_approvalentry" a WHERE a."id" = NEW."entry_id" '
            'AND a."state" = \'claimed\' AND a."case_id" = NEW."case_id" AND a."attempt_no" = NEW."attempt_no")'
        ),
    ),
    # P4: who had a part in this attempt does not vote for it.
    InsertRefused(
        "recovery.Vote",
        rule="party_does_not_vote",
        condition=(
            'NEW."state" = \'approved\' AND EXISTS (SELECT 1 FROM "recovery_entryparty" p '
            'WHERE p."entry_id" = NEW."entry_id" AND p."person_id" = NEW."person_id")'
        ),
    ),
    # P4: an approval may be followed by the same person's deny or defer, never the reverse.
    InsertRefused(
        "recovery.Vote",
        rule="approval_comes_first",
        condition=(
            'NEW."state" = \'approved\' AND EXISTS (SELECT 1 FROM "recovery_vote" v '
            'WHERE v."entry_id" = NEW."entry_id" AND v."person_id" = NEW."person_id")'
        ),
    ),
]
