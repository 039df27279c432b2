"""Cases as a caller names them: known or refused, the same for every verb."""

from collections.abc import Sequence

from evidence.errors import NotFound
from evidence.models import Case


def require_cases(case_ids: Sequence[str] | None) -> None:
    """Raise ``NotFound`` naming every id that is no case; None names none."""
    if case_ids is None:
        return
    known = set(Case.objects.filter(case_id__in=case_ids).values_list("case_id", flat=True))
    if unknown := [case_id for case_id in case_ids if case_id not in known]:
        raise NotFound(
            "There is no such case.",
            code="case_not_found",
            errors={"cases": [f"unknown: {c}" for c in unknown]},
        )


def case_by_id(case_id: str) -> Case:
    """The case with this id; ``NotFound`` otherwise."""
    row = Case.objects.filter(case_id=case_id).first()
    if row is None:
        raise NotFound("There is no such case.", code="case_not_found")
    return row
