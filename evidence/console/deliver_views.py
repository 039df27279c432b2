"""Telling a drill's owners, and delivering what they answered as an audit package."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from evidence.console.act_forms import AnnounceForm, DeliverForm
from evidence.console.pages import Refusal, act, carried_out, page
from evidence.documents import CONNECTOR_DELIVERY, NOTIFICATION_PLAN
from evidence.domain import deliveries, drills, policies
from evidence.domain.clock import system_clock
from evidence.domain.deliveries import Delivered, DeliveryRequest
from evidence.domain.drills import Announcement
from evidence.domain.packages import PackageFilters
from evidence.enums import CaseState, RouteAction
from evidence.models import Person, Route
from evidence.permissions import Permission
from evidence.templatetags.console import shown


@page(Permission.READ_EVIDENCE)
def deliver(request: HttpRequest) -> HttpResponse:
    """Both forms: tell the owners, deliver their answers."""
    return _forms(request)


@act
def notify(request: HttpRequest) -> HttpResponse:
    """Tell a drill's owners; then to the list of those who were told."""
    form = AnnounceForm(request.POST, at=system_clock())
    person: Person = request.user  # type: ignore[assignment]

    def verb(data: Mapping[str, Any]) -> Announcement:
        schedule = drills.schedule_to_announce(data["schedule_id"])
        return drills.announce(
            schedule, by=person, clock=system_clock, providers=data["providers"], force=data["force"]
        )

    done = carried_out(form, verb)
    if isinstance(done, Refusal):
        return _forms(request, announce=form, refusal=done)
    level, sentence = _notified(done)
    messages.add_message(request, level, sentence)
    return redirect(
        f"{reverse('console:routes')}?{urlencode({'schedule_id': form.cleaned_data['schedule_id']})}"
    )


@act
def send(request: HttpRequest) -> HttpResponse:
    """Deliver an audit package; then to its case, or to all cases when there are several."""
    form = DeliverForm(request.POST)
    person: Person = request.user  # type: ignore[assignment]

    def verb(data: Mapping[str, Any]) -> Delivered:
        filters = PackageFilters(
            schedule_id=data["schedule_id"], provider=data["provider"], owner=data["owner"]
        )
        asked = DeliveryRequest(
            filters=filters,
            providers=tuple(data["delivery_providers"]),
            despite_lost_entries=data["despite_lost_entries"],
        )
        return deliveries.deliver_audit(asked, by=person, clock=system_clock)

    done = carried_out(form, verb)
    if isinstance(done, Refusal):
        return _forms(request, deliver=form, refusal=done)
    sent = [case for case in done.cases if case.state != CaseState.PARKED]
    became = ", ".join(f"{case.case_id.rpartition('.')[2]} {shown(case.state)[2].lower()}" for case in sent)
    level = messages.SUCCESS if done.success else messages.WARNING
    messages.add_message(request, level, f"Sent: {became}." if sent else "Nothing was sent yet.")
    for parked in done.parked:
        messages.warning(
            request, f"Parked: {parked['reason']} It is sent by itself once nothing holds it back."
        )
    for held in done.held:
        messages.warning(request, f"Not sent to {held['provider']}: {deliveries.why_held([held])}")
    if len(done.cases) == 1:
        return redirect("console:case", case_id=done.cases[0].case_id)
    return redirect("console:cases")


def _forms(
    request: HttpRequest,
    *,
    announce: AnnounceForm | None = None,
    deliver: DeliverForm | None = None,
    refusal: Refusal | None = None,
) -> HttpResponse:
    person: Person = request.user  # type: ignore[assignment]
    extra = refusal.extra or {} if refusal else {}
    context = {
        "section": "deliver",
        "announce": announce or AnnounceForm(at=system_clock()),
        "deliver": deliver or DeliverForm(),
        "refused": announce or deliver,
        "refusal": refusal,
        "unsettled": [held["case"] for held in extra.get("held", ())],
        "perhaps_sent": "providers" in extra,
        "against": policies.reasons_against_role(person, Permission.DELIVER),
        "announced": Route.objects.filter(action=RouteAction.DELIVER).exists(),
    }
    return render(request, "evidence/deliver.html", context, status=refusal.status if refusal else 200)


def _notified(done: Announcement) -> tuple[int, str]:
    """What became of an announcement, as loud as it has to be said."""
    plan = done.plan.view[NOTIFICATION_PLAN.payload_key]
    if done.delivery is None:
        return messages.WARNING, f"Nobody was told; that is recorded. {plan['reason']}"
    sent = done.delivery.view[CONNECTOR_DELIVERY.payload_key]
    through = ", ".join(sent["providers"])
    count = plan["deliverable_route_count"]
    told = f"{count} route{'' if count == 1 else 's'} announced through {through}."
    if not sent["failed_providers"]:
        return messages.SUCCESS, told
    failed = ", ".join(sent["failed_providers"])
    return messages.WARNING, f"{told} {failed} did not take it; a notice is not sent again by itself."
