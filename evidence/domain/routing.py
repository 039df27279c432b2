"""Routes as people answer them: everybody whom one announcement told through one connector, together."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import QuerySet

from evidence.enums import RouteAction, RouteState
from evidence.models import NotificationPlan, Route


@dataclass(frozen=True)
class Part:
    """One connector's part of one announcement; ``told`` have one answer, ``held`` were kept from it."""

    plan: NotificationPlan
    provider: str
    told: list[Route]
    held: list[Route]

    @property
    def key(self) -> str:
        """What a form sends to name this part: drill, announcement and connector."""
        return f"{self.plan.schedule.schedule_id}/{self.plan.plan_id}/{self.provider}"

    @property
    def answer(self) -> Route | None:
        """A route that bears the answer, which is the same for all of them; None when nobody was told."""
        return self.told[0] if self.told else None

    @property
    def answer_by(self) -> datetime | None:
        """When the first owner's time to answer ends; None once there is an answer."""
        waits = [
            route.created_at + timedelta(minutes=route.acknowledgement_minutes)
            for route in self.told
            if route.acknowledgement_state == RouteState.OUTSTANDING
        ]
        return min(waits, default=None)


def grouped(routes: "QuerySet[Route]") -> "QuerySet[Route, tuple[int, str]]":
    """Announcement and connector of each of ``routes`` once, the newest announcement first."""
    return routes.order_by("-plan_id", "provider").values_list("plan_id", "provider").distinct()


def parts(groups: list[tuple[int, str]]) -> list[Part]:
    """The parts of these announcements and connectors, in the given order, with every owner of each."""
    found: dict[tuple[int, str], list[Route]] = defaultdict(list)
    rows = Route.objects.filter(
        plan__in={plan for plan, _ in groups}, provider__in={provider for _, provider in groups}
    )
    for route in rows.select_related("plan__schedule", "acknowledged_by").order_by("pk"):
        found[route.plan_id, route.provider].append(route)
    return [
        Part(
            plan=found[group][0].plan,
            provider=group[1],
            told=[route for route in found[group] if route.action == RouteAction.DELIVER],
            held=[route for route in found[group] if route.action != RouteAction.DELIVER],
        )
        for group in groups
    ]
