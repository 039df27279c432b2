"""What every view of the API has in common, first of all the order of checks (CONTRACT)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from django import forms
from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.exceptions import ParseError
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from evidence.api.bodies import SHOWN_KEYS, Body
from evidence.api.permissions import HasPermission
from evidence.api.public_safety import KEY, reason_in
from evidence.api.renderers import AlwaysFirst
from evidence.api.schemas import ActorAnswer, AutoSchema
from evidence.documents import KINDS
from evidence.domain import people, records, safety
from evidence.domain.records import Draft
from evidence.errors import InvalidInput, NotFound
from evidence.models import Case, Person, Record

# Anything that was ever an id of ours; what cannot be one names nothing.
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class ApiView(APIView):
    """A view of the API; ``permission`` is what ``HasPermission`` reads."""

    permission: ClassVar[str | tuple[str, ...] | Mapping[str, str]] = ""
    permission_classes: Sequence[type[BasePermission]] = (HasPermission,)
    content_negotiation_class = AlwaysFirst
    http_method_names = ("get", "head", "post", "put", "patch", "delete")
    schema = AutoSchema()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        for name, values in request.query_params.lists():
            if any("\0" in text for text in (name, *values)):
                raise InvalidInput("The query holds a NUL character.", code="invalid_text")


class ActView(ApiView):
    """A POST that performs one act.

    Order of checks: who (401), role (403), JSON (400), ids in the path (404), shape and public safety (400); then the
    verb: ids in the body (404), the person (403), the object (409).
    """

    body_class: ClassVar[type[Body]]
    answer: ClassVar[serializers.Serializer[Any]]
    # Key of the body in which reference clients put a name; it identifies nobody (P21).
    name_key: ClassVar[str] = "generated_by"

    def post(self, request: Request, **ids: str) -> Response:
        data = json_object(request)
        for value in ids.values():
            if not ID.fullmatch(value):
                raise NotFound("There is nothing with this id.")
        by = cast(Person, request.user)
        subject = self.subject(**ids)
        reason = reason_in(data)
        body = self.body_class(data={key: value for key, value in data.items() if key != KEY})
        body.is_valid(raise_exception=True)
        sent = body.validated_data
        claimed = people.claimed_actor(by, sent.get(self.name_key, ""))
        with safety.overriding(reason):
            # Here as well as in the record, so that a refusal names fields as they were sent.
            safety.require(sent)
            done = self.act(by, subject, sent, claimed_actor=claimed)
        done["actor"] = actor(by)
        if not body.refuses_unknown:
            # An act may add what it left out of an object that it reads itself.
            ignored = [*body.ignored_keys, *done.get("ignored_keys", ())]
            done["ignored_keys"] = ignored[:SHOWN_KEYS]
        return Response(done)

    def subject(self, **ids: str) -> Any:
        """The row that the path names; None where the path names none. Raises ``NotFound``."""
        return None

    def act(self, by: Person, subject: Any, sent: Mapping[str, Any], *, claimed_actor: str) -> dict[str, Any]:
        """Perform the act and describe what came of it."""
        raise NotImplementedError


def case_by_id(case_id: str, among: QuerySet[Case] | None = None) -> Case:
    """The case that a path names, of all there are or ``among`` these; ``NotFound`` otherwise."""
    rows = Case.objects.all() if among is None else among
    row = rows.filter(case_id=case_id).first() if ID.fullmatch(case_id) else None
    if row is None:
        raise NotFound("There is no case with this id.", code="case_not_found")
    return row


def checked_query(form: type[forms.Form], request: Request) -> dict[str, Any]:
    """What the query string says to ``form``, each name at most once; ``InvalidInput`` by name otherwise."""
    sent = request.query_params
    filled = form(sent)
    errors = {name: [str(sentence) for sentence in found] for name, found in filled.errors.items()}
    errors |= {name: ["Is given more than once."] for name in filled.fields if len(sent.getlist(name)) > 1}
    if errors:
        name, sentences = min(errors.items())
        raise InvalidInput(f"{name}: {sentences[0]}", errors=errors)
    return filled.cleaned_data


def json_object(request: Request) -> dict[str, Any]:
    """The request's body; ``ParseError`` when there is none."""
    data = request.data
    if request.stream is None:
        raise ParseError(
            "The body has to be a JSON object; none came, or without Content-Length.", code="not_json"
        )
    return cast(dict[str, Any], data)


def actor(person: Person) -> dict[str, Any]:
    """Who acted (CONTRACT §1.2)."""
    return {
        "actor": person.username,
        "subject": person.person_id,
        "issuer": "",
        "groups": sorted(person.groups.values_list("name", flat=True)),
        "repository": None,
    }


def stored(*drafts: Draft) -> list[dict[str, Any]]:
    """Committed drafts as ``metadata``, each with its place in the log."""
    found = records.by_ids([draft.record_id for draft in drafts])
    return [stored_record(found[draft.record_id]) for draft in drafts]


def stored_record(record: Record) -> dict[str, Any]:
    """A stored record as ``metadata``."""
    return records.view(KINDS[record.kind], record.body, record.digest, record.index)


ACTOR = ActorAnswer()
