"""What lists have in common that are paged by cursor alone: erasures, holds, overrides, the access log."""

from typing import Any, ClassVar

from django.db.models import Model, QuerySet
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from evidence.api import schemas
from evidence.api.history_views import ReadView
from evidence.domain import history, records
from evidence.domain.history import Place

REFUSED = dict.fromkeys((400, 401, 403), schemas.Problem)


class ListView(ReadView):
    """A GET of rows, newest first, paged by cursor."""

    paging = ("limit", "cursor")
    shown: ClassVar[type[serializers.Serializer[Any]]]
    schema_version: ClassVar[str]
    # The column that orders rows in time, as a cursor keeps it.
    at: ClassVar[str]

    def listed(self, request: Request, rows: "QuerySet[Any]") -> Response:
        """One page of what the filters leave of ``rows``."""
        asked = self.asked(request, rows.order_by("-pk"))
        matching = asked.filters.qs
        total, exact = history.capped_count(matching)
        if asked.cursor:
            matching = matching.filter(pk__lt=Place.of(asked.cursor).index)
        found: list[Model] = list(matching[: asked.limit + 1])
        page = found[: asked.limit]
        more = len(found) > asked.limit
        return Response(
            {
                "schema_version": self.schema_version,
                "product": records.PRODUCT,
                "items": self.shown(page, many=True).data,
                "total": total,
                "total_is_exact": exact,
                "limit": asked.limit,
                "cursor": Place(getattr(page[-1], self.at), page[-1].pk).cursor if more else None,
                "ignored_keys": asked.ignored_keys,
            }
        )
