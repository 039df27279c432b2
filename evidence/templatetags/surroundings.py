"""What the frame of every page says about the service."""

from django import template
from django.template import Context

from evidence.domain import surroundings as domain
from evidence.domain.clock import system_clock

register = template.Library()

_KEPT = "_surroundings"


@register.simple_tag(takes_context=True)
def surroundings(context: Context) -> domain.Surroundings:
    """The state of the service, read once for a request: ``{% surroundings as around %}``."""
    request = context["request"]
    if not hasattr(request, _KEPT):
        setattr(request, _KEPT, domain.look(system_clock()))
    around: domain.Surroundings = getattr(request, _KEPT)
    return around
