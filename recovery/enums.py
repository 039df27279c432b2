"""Closed lists of words of the recovery app (DESIGN §2, CONTRACT §8.15)."""

from enum import StrEnum


class RetryAction(StrEnum):
    """What a retry plan says about a case."""

    RETRY = "retry"
    WAIT = "wait"
    SUPPRESS = "suppress"


class DecisionState(StrEnum):
    """Life of a retry decision: one open per case; used once its attempt was claimed."""

    OPEN = "open"
    USED = "used"
    SUPERSEDED = "superseded"
    CLOSED = "closed"


class RetryAckState(StrEnum):
    """An analyst's review of a decision. Accepted and resolved count as acknowledged."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    ESCALATED = "escalated"
    RESOLVED = "resolved"
    DISMISSED = "dismissed"


class PlanAction(StrEnum):
    """What an approval plan says about a case."""

    REQUEST_APPROVAL = "request_approval"
    WAIT_FOR_RETRY_ACK = "wait_for_retry_ack"
    WAIT_FOR_RETRY_WINDOW = "wait_for_retry_window"
    ALREADY_APPROVED = "already_approved"
    # Ours: nothing can be frozen while the connector cannot be used at all.
    WAIT_FOR_CONNECTOR = "wait_for_connector"
    # Ours: too few people could approve it.
    WAIT_FOR_APPROVERS = "wait_for_approvers"
    # Ours: public safety refuses what would be sent.
    WAIT_FOR_PUBLIC_SAFETY = "wait_for_public_safety"


class EntryState(StrEnum):
    """Life of an approval entry. Pending and approved are open; the rest is final."""

    PENDING = "pending"
    APPROVED = "approved"
    CLAIMED = "claimed"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    VOID = "manifest_changed"
    CANCELLED = "cancelled"


OPEN_ENTRY_STATES = (EntryState.PENDING, EntryState.APPROVED)


class ApprovalState(StrEnum):
    """What a vote says (CONTRACT §11)."""

    APPROVED = "approved"
    DENIED = "denied"
    DEFERRED = "deferred"
    EXPIRED = "expired"


class Part(StrEnum):
    """Why a person may not vote on an entry: what they did for this attempt."""

    PLANNER = "planner"
    ACKNOWLEDGER = "acknowledger"
    REQUESTER = "requester"
    CONNECTOR_EDITOR = "connector_editor"
    POLICY_EDITOR = "policy_editor"


class RunState(StrEnum):
    """Life of a worker run; ``queued`` ones wait for the worker command."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"


class ExecutionState(StrEnum):
    """Life of the once-only use of an approval."""

    CLAIMED = "claimed"
    DELIVERED = "delivered"
    FAILED = "failed"
    UNKNOWN = "outcome_unknown"
    # No byte left: the approval stands, another execution may use it (P9).
    NOT_SENT = "not_sent"


class ExecutionStatus(StrEnum):
    """``execution_status`` of an execution record."""

    DELIVERED = "delivered"
    FAILED = "failed"
    UNKNOWN = "outcome_unknown"
    SKIPPED = "skipped"


class SkipCode(StrEnum):
    """Why an approved entry was not claimed (CONTRACT, execution status)."""

    AUDIT_PACKAGE_NOT_FOUND = "audit_package_not_found"
    CONNECTOR_CONFIG_NOT_CONFIGURED = "connector_config_not_configured"
    APPROVAL_EXPIRED = "approval_expired"
    APPROVAL_REVOKED = "approval_revoked"
    MANIFEST_CHANGED = "manifest_changed"
    RETRY_WINDOW_NOT_OPEN = "retry_window_not_open"
    CONNECTOR_DISABLED = "connector_disabled"
    BREAKER_OPEN = "breaker_open"
    THROTTLED = "throttled"
    MAINTENANCE_WINDOW = "maintenance_window"
    SENDING_PAUSED = "sending_paused"
    CLOCK_BEHIND = "clock_behind"
    LEDGER_BEHIND = "ledger_behind"
    LEDGER_CLOSED = "ledger_closed"
    ACKNOWLEDGEMENT_WITHDRAWN = "acknowledgement_withdrawn"
    RETRY_LIMIT_REACHED = "retry_limit_reached"


class RecoveryState(StrEnum):
    """Life of one connector's trouble. Resolved and reopened are final for their epoch."""

    OPEN = "open"
    MITIGATED = "mitigated"
    DEFERRED = "deferred"
    ESCALATED = "escalated"
    RESOLVED = "resolved"
    REOPENED = "reopened"


class ClosureState(StrEnum):
    """The five outcomes of a recovery."""

    RESOLVED = "resolved"
    MITIGATED = "mitigated"
    DEFERRED = "deferred"
    ESCALATED = "escalated"
    REOPENED = "reopened"


class Seen(StrEnum):
    """What somebody saw at the receiver of an attempt whose outcome is unknown (P3)."""

    DELIVERED = "delivered"
    NOT_DELIVERED = "not_delivered"
    UNDETERMINED = "undetermined"


class Told(StrEnum):
    """What a connector told that was asked whether it has a case's message."""

    THERE = "there"
    NOT_THERE = "not_there"
    # The question failed, or the answer was no answer to it.
    NOTHING = "nothing"


class DispositionKind(StrEnum):
    """How two people settle a case that no delivery settles."""

    SUPERSEDED_BY = "superseded_by"
    ABANDONED = "abandoned"


class DispositionState(StrEnum):
    """Life of a disposition: one person proposes it, another one decides."""

    PROPOSED = "proposed"
    CONFIRMED = "confirmed"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"


class NoticeKind(StrEnum):
    """Why people are told that something waits for them."""

    APPROVAL_REQUESTED = "approval_requested"
    APPROVAL_RUNS_OUT = "approval_runs_out"
    OUTCOME_UNKNOWN = "outcome_unknown"


class ItemState(StrEnum):
    """Where an item of a set stands, in the order of the chain."""

    TO_PLAN = "to_plan"
    TO_ACKNOWLEDGE = "to_acknowledge"
    TO_REQUEST = "to_request"
    # Its tries are used up; nobody asks for another.
    USED_UP = "used_up"
    # Approval of the set was asked for without it.
    LEFT_OUT = "left_out"
    PENDING = "pending"
    APPROVED = "approved"
    # A run that is under way has not claimed it yet.
    QUEUED = "queued"
    SENDING = "sending"
    DELIVERED = "delivered"
    FAILED = "failed"
    UNKNOWN = "outcome_unknown"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    # Its clock ran out; the worker has not ended it yet.
    RUN_OUT = "run_out"
    EXPIRED = "expired"
    VOID = "manifest_changed"
    CANCELLED = "cancelled"


class Act(StrEnum):
    """What a person does about one case, in the order of the chain; the address below the case's page."""

    PLAN = "plan-retry"
    ACKNOWLEDGE = "ack-retry"
    REQUEST = "request-approval"
    DECIDE = "decide"
    RENEW = "renew"
    EXECUTE = "execute"
    ATTEST = "attest"
    WITHDRAW = "withdraw"
    # A question to the connector: beside the chain as well.
    ASK = "ask-connector"
    # Somebody else's first attempt that waits: before the chain begins.
    TAKE_OVER = "take-over"
    # Settling it without a delivery: beside the chain, never the one act that is due.
    PROPOSE_DISPOSITION = "propose-disposition"
    DECIDE_DISPOSITION = "decide-disposition"
    WITHDRAW_DISPOSITION = "withdraw-disposition"
