"""What the page of a record offers to who may propose its erasure."""

from typing import Any

from django.http import HttpRequest

from evidence.console.erasure_forms import ProposeErasureForm
from evidence.domain import erasures, policies
from evidence.models import Person, Record
from evidence.permissions import Permission


def offer(request: HttpRequest, record: Record, form: ProposeErasureForm | None = None) -> dict[str, Any]:
    """The form and what stands against it; nothing for a record without a body, and nothing to anybody else."""
    person: Person = request.user  # type: ignore[assignment]
    if record.body is None or policies.reasons_against_role(person, Permission.PROPOSE_ERASURE):
        return {}
    reasons = [sentence for _, sentence in erasures.reasons_against_proposing([record])]
    return {"erase": {"form": form or ProposeErasureForm(), "reasons": reasons}}
