"""Words and tones of what is due about a case."""

from django import template

from recovery.enums import Act

register = template.Library()

# Act → what a case waits for, in words, and the tone of it.
WORDS: dict[str, tuple[str, str]] = {
    Act.PLAN: ("retry to plan", "warn"),
    Act.ACKNOWLEDGE: ("retry to acknowledge", "warn"),
    Act.REQUEST: ("approval to ask for", "warn"),
    Act.DECIDE: ("approval to decide", "warn"),
    Act.EXECUTE: ("approved, not executed", "warn"),
    Act.ATTEST: ("outcome unknown", "unknown"),
}


@register.filter
def waits_for(act: str | None) -> str:
    """What a case with this due act waits for; of none, nothing."""
    return WORDS[act][0] if act else "nothing is due"


@register.filter
def act_tone(act: str | None) -> str:
    """The tone of a due act."""
    return WORDS[act][1] if act else "ok"
