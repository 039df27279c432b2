"""Refusals of the recovery app."""

from evidence.errors import Conflict


class ManifestChanged(Conflict):
    """What would be sent is not what was shown or approved (409)."""

    default_code = "manifest_changed"


class ClosureNotEarned(Conflict):
    """The chosen outcome of a recovery is not earned yet (409)."""

    default_code = "closure_not_earned"
