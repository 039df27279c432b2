"""Query filters of the recovery app, shared by API and console."""

from evidence.domain.history import Query
from evidence.filtersets import KeyFilter, RecordFilter
from recovery.documents import WORKER_RUN


class WorkerRunFilter(RecordFilter):
    """Filters of the list of worker runs (CONTRACT §6)."""

    dry_run = KeyFilter(choices=("true", "false"), help_text="true: dry runs; false: live ones.")

    @property
    def query(self) -> Query:
        """What the filters say together, about worker runs alone."""
        return super().query.having("metadata_kind", WORKER_RUN.name)
