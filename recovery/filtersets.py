"""Query filters of the recovery app, shared by API and console."""

from collections import OrderedDict

import django_filters

from evidence.domain.history import Query
from evidence.filtersets import KeyFilter, MomentFilter, RecordFilter
from recovery.documents import WORKER_RUN


class WorkerRunFilter(RecordFilter):
    """Filters of the list of worker runs (CONTRACT §6)."""

    dry_run = KeyFilter(choices=("true", "false"), help_text="true: dry runs; false: live ones.")

    @property
    def query(self) -> Query:
        """What the filters say together, about worker runs alone."""
        return super().query.having("metadata_kind", WORKER_RUN.name)


class PeriodFilter(django_filters.FilterSet):
    """The period of a statement, both ends required; a date alone is its midnight in UTC."""

    @classmethod
    def get_filters(cls) -> "OrderedDict[str, django_filters.Filter]":
        """The two ends. ``from`` cannot be an attribute: it is a word of the language."""
        return OrderedDict(
            {
                "from": MomentFilter(
                    label="From", required=True, help_text="Claims at this time or later; a date will do."
                ),
                "to": MomentFilter(
                    label="To, not included", required=True, help_text="Claims before this time."
                ),
            }
        )
