"""What a retention rule says and when it acts (P24): the words of its records, and what a confirmation is about.

A rule's values are no secrets, so that the records of an edit and of a confirmation hold them and every erasure
under a rule can be held against both.
"""

from evidence.domain import records
from evidence.models import RetentionRule

_OFF = "Switched off. "


def kept(keep_days: int, legal_basis: str) -> str:
    """A rule's terms in words."""
    return f"Kept for {keep_days} days: {legal_basis}"


def said(rule: RetentionRule) -> str:
    """What the record of an edit says of the rule: whether it is on, and its terms."""
    return ("" if rule.enabled else _OFF) + kept(rule.keep_days, rule.legal_basis)


def told(words: str) -> tuple[bool, str]:
    """The other way round: whether the rule is on, and its terms as ``kept`` writes them."""
    return not words.startswith(_OFF), words.removeprefix(_OFF)


def digest(kind: str, terms: str) -> str:
    """What a confirmation is about: the kind, and its terms as ``kept`` writes them."""
    return records.digest(records.canonical([kind, terms]))


def terms(rule: RetentionRule) -> str:
    """The same of a rule as it stands."""
    return digest(rule.kind, kept(rule.keep_days, rule.legal_basis))


def in_force(rule: RetentionRule) -> bool:
    """Whether the rule acts: enabled, and confirmed as it stands."""
    return rule.enabled and bool(rule.confirmed_terms) and rule.confirmed_terms == terms(rule)
