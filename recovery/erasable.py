"""Where the bytes and the free text of records stand in this app's tables; emptied with the record (P24)."""

from evidence.erasable import Place

PLACES: list[Place] = [
    # The bytes that were approved are those of the audit package and its plan. Their digest and the manifest stay.
    Place("recovery.ApprovalEntry", columns=("body",), named_by="case__package__audit_id"),
    Place("recovery.ApprovalEntry", columns=("body",), named_by="case__plan__delivery_id"),
    Place("recovery.Attestation", columns=("external_ref", "notes"), named_by="attestation_id"),
    Place("recovery.Disposition", columns=("reason", "external_ref"), named_by="disposition_id"),
    Place("recovery.StepTick", columns=("note",), named_by="tick_id"),
]
