"""The log for who checks it: signed heads, tiles, proofs, keys. Formats are those of C2SP; no GET writes anything."""

import base64
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

from django import forms
from django.db.models import QuerySet
from django.http import HttpResponse
from django.utils.cache import patch_vary_headers
from django.utils.text import compress_string
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from evidence.api.bodies import Body
from evidence.api.history_views import ReadView, found_record, page_answer
from evidence.api.schemas import Problem, answer, texts
from evidence.api.views import ID, ApiView, json_object
from evidence.domain import anchors, checkpoints, history, log_keys, proofs, records, tiles
from evidence.domain.clock import system_clock
from evidence.domain.history import Place
from evidence.errors import InvalidInput, NotFound
from evidence.models import Anchor, Checkpoint, LedgerKey, Person
from evidence.permissions import Permission

TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
# What is at these addresses never changes; what is read there needs a token, so no shared cache keeps it.
IMMUTABLE = "private, max-age=31536000, immutable"
MUTABLE = "private, no-cache"


def _described(content_type: str, kind: Any) -> dict[Any, Any]:
    return {(200, content_type): kind, **dict.fromkeys((401, 403, 404), Problem)}


# --- tlog-tiles -------------------------------------------------------------------------------------------------


class LogHead(ApiView):
    """The newest signed head (c2sp.org/tlog-checkpoint)."""

    permission = Permission.READ_EVIDENCE
    tag = "ledger"

    @extend_schema(operation_id="tlog_checkpoint", responses=_described("text/plain", OpenApiTypes.STR))
    def get(self, request: Request) -> HttpResponse:
        """The note as it was signed; 404 before the first one."""
        newest = checkpoints.newest()
        if newest is None:
            raise NotFound("No head of the log was signed yet.", code="no_checkpoint")
        return HttpResponse(newest.note, content_type=TEXT, headers={"Cache-Control": MUTABLE})


class LogTile(ApiView):
    """Hashes of the Merkle tree, 256 to a full tile (c2sp.org/tlog-tiles)."""

    permission = Permission.READ_EVIDENCE
    tag = "ledger"

    @extend_schema(operation_id="tlog_tile", responses=_described(BYTES, OpenApiTypes.BINARY))
    def get(self, request: Request, level: str, tile: str) -> HttpResponse:
        """Tile ``<L>/<N>``, or ``<L>/<N>.p/<W>`` for the first W hashes of one that is not full yet."""
        return HttpResponse(
            tiles.hashes(level, tile), content_type=BYTES, headers={"Cache-Control": IMMUTABLE}
        )


class LogEntries(ApiView):
    """Seal entries, the leaves of the tree, 256 to a full bundle (c2sp.org/tlog-tiles)."""

    permission = Permission.READ_EVIDENCE
    tag = "ledger"

    @extend_schema(operation_id="tlog_entries", responses=_described(BYTES, OpenApiTypes.BINARY))
    def get(self, request: Request, tile: str) -> HttpResponse:
        """Bundle ``<N>[.p/<W>]``: each entry behind its length in two bytes, compressed for who takes gzip."""
        bundle = tiles.entries(tile)
        response = HttpResponse(content_type=BYTES, headers={"Cache-Control": IMMUTABLE})
        patch_vary_headers(response, ["Accept-Encoding"])
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            response["Content-Encoding"] = "gzip"
            bundle = compress_string(bundle)
        response.content = bundle
        return response


# --- proofs -----------------------------------------------------------------------------------------------------


class RecordProof(ReadView):
    """Proof that a record's seal entry is in the log that was signed (c2sp.org/tlog-proof)."""

    tag = "records"

    @extend_schema(
        operation_id="record_proof",
        responses={**_described("text/plain", OpenApiTypes.STR), 409: Problem},
    )
    def get(self, request: Request, record_id: str) -> HttpResponse:
        """Index, inclusion path and the newest signed head. The leaf is what ``/seal`` gives.

        409 ``not_signed_yet`` while no signed head reaches the record.
        """
        record = found_record(record_id)
        proof = checkpoints.proof_of(record.index)
        headers = {
            "Cache-Control": MUTABLE,
            "Content-Disposition": f'attachment; filename="{record.record_id}.tlog-proof"',
            "X-Leaf-Index": str(record.index),
        }
        return HttpResponse(proof, content_type=TEXT, headers=headers)


class SizesForm(forms.Form):
    """Two sizes of the log. ``from`` is a word of Python's, so the fields are added by name."""


for _name in ("from", "to"):
    SizesForm.base_fields[_name] = forms.IntegerField(min_value=1, max_value=2**63 - 1)


class Consistency(ReadView):
    """Proof that the log of one size begins with the log of another (RFC 9162 section 2.1.4)."""

    tag = "ledger"

    @extend_schema(
        operation_id="ledger_consistency",
        parameters=[
            OpenApiParameter(
                "from", OpenApiTypes.INT, required=True, description="The older size, at least 1."
            ),
            OpenApiParameter("to", OpenApiTypes.INT, required=True, description="The newer size."),
        ],
        responses={
            200: answer(
                "ConsistencyProof",
                first=serializers.IntegerField(),
                second=serializers.IntegerField(),
                first_root=serializers.CharField(help_text="Base64, like every hash here."),
                second_root=serializers.CharField(),
                hashes=texts(),
            ),
            **dict.fromkeys((400, 401, 403), Problem),
        },
    )
    def get(self, request: Request) -> Response:
        """Roots and the hashes between them, lowest first."""
        form = SizesForm(request.query_params)
        if not form.is_valid():
            errors = {name: [str(sentence) for sentence in found] for name, found in form.errors.items()}
            name, sentences = min(errors.items())
            raise InvalidInput(f"{name}: {sentences[0]}", code="tree_size", errors=errors)
        first, second = form.cleaned_data["from"], form.cleaned_data["to"]
        old, new, hashes = proofs.shown_consistency(first, second)
        return Response(
            {
                "first": first,
                "second": second,
                "first_root": _base64(old),
                "second_root": _base64(new),
                "hashes": [_base64(each) for each in hashes],
            }
        )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- heads, keys, anchors ---------------------------------------------------------------------------------------


class SignedHead(serializers.Serializer):
    """A signed head."""

    origin = serializers.CharField()
    epoch = serializers.IntegerField()
    size = serializers.IntegerField()
    root_hash = serializers.SerializerMethodField(help_text="Hex; the note has it as base64.")
    note = serializers.CharField(help_text="C2SP tlog-checkpoint with its signatures, exactly as signed.")
    created_at = serializers.SerializerMethodField()

    def get_root_hash(self, row: Checkpoint) -> str:
        """The root as 64 hex digits."""
        return bytes(row.root).hex()

    def get_created_at(self, row: Checkpoint) -> str:
        """When it was signed."""
        return records.timestamp(row.created_at)


class SignBody(Body):
    """Nothing has to be said to have the log signed."""


class NewestFirst(ReadView):
    """A list of rows in the order they came, newest first, paged by a cursor."""

    tag = "ledger"
    paging = ("limit", "cursor")

    def page(
        self, request: Request, rows: QuerySet[Any], schema_version: str, shown: Callable[[list[Any]], Any]
    ) -> Response:
        """One page of ``rows``, which have a key and a ``created_at``, as ``shown`` describes them."""
        asked = self.asked(request)
        total, exact = history.capped_count(rows)
        rows = rows.order_by("-pk")
        if asked.cursor:
            rows = rows.filter(pk__lt=Place.of(asked.cursor).index)
        found = list(rows[: asked.limit + 1])
        page = found[: asked.limit]
        more = len(found) > asked.limit
        return Response(
            {
                "schema_version": schema_version,
                "product": records.PRODUCT,
                "items": shown(page),
                "total": total,
                "total_is_exact": exact,
                "limit": asked.limit,
                "cursor": Place(page[-1].created_at, page[-1].pk).cursor if more else None,
                "ignored_keys": asked.ignored_keys,
            }
        )


def _heads(rows: list[Checkpoint]) -> Any:
    return SignedHead(rows, many=True).data


class Checkpoints(NewestFirst):
    """Signed heads: listed, and made."""

    permission: ClassVar[Mapping[str, str]] = {
        "GET": Permission.READ_EVIDENCE,
        "HEAD": Permission.READ_EVIDENCE,
        "POST": Permission.SIGN_HEADS,
    }

    @extend_schema(
        operation_id="ledger_checkpoints",
        responses={
            200: page_answer(
                "CheckpointList", SignedHead(many=True), cursor=serializers.CharField(allow_null=True)
            ),
            **dict.fromkeys((400, 401, 403), Problem),
        },
    )
    def get(self, request: Request) -> Response:
        """Signed heads, newest first."""
        return self.page(request, Checkpoint.objects.all(), "cavra.ledger.checkpoint-list.v1", _heads)

    @extend_schema(
        operation_id="sign_checkpoint",
        parameters=[],
        request=SignBody,
        responses={
            200: answer(
                "CheckpointAnswer",
                checkpoint=SignedHead(),
                existing=serializers.BooleanField(help_text="Nothing was new: this one was signed before."),
                ignored_keys=texts(),
            ),
            **dict.fromkeys((400, 401, 403, 409, 503), Problem),
        },
    )
    def post(self, request: Request) -> Response:
        """Sign the log as it is now. Leaves since the head before are derived from stored bytes first.

        409 ``ledger_differs`` when they are not what was sealed, ``ledger_key_missing`` when nobody signs.
        """
        body = SignBody(data=json_object(request))
        body.is_valid(raise_exception=True)
        head, made = checkpoints.signed_now(by=cast(Person, request.user), clock=system_clock)
        return Response(
            {
                "checkpoint": SignedHead(head).data,
                "existing": not made,
                "ignored_keys": body.ignored_keys,
            }
        )


class KeyShown(serializers.Serializer):
    """A key that signs heads, or did."""

    name = serializers.CharField()
    key_id = serializers.CharField()
    vkey = serializers.SerializerMethodField(
        help_text="What a verifier is configured with (C2SP signed-note)."
    )
    state = serializers.CharField()
    introduced_at = serializers.SerializerMethodField()
    ended_at = serializers.SerializerMethodField()
    reason = serializers.CharField()

    def get_vkey(self, row: LedgerKey) -> str:
        """The key as text."""
        return log_keys.vkey_of(row)

    def get_introduced_at(self, row: LedgerKey) -> str:
        """When it began to sign."""
        return records.timestamp(row.introduced_at)

    def get_ended_at(self, row: LedgerKey) -> str | None:
        """When it was retired or revoked."""
        return records.timestamp(row.ended_at) if row.ended_at else None


class AnchorShown(serializers.Serializer):
    """A head held outside, by whom, and what that is worth."""

    anchor_id = serializers.CharField(source="anchor.anchor_id")
    origin = serializers.CharField(source="anchor.origin")
    size = serializers.IntegerField(source="anchor.size")
    root_hash = serializers.SerializerMethodField()
    means = serializers.CharField(source="anchor.means")
    place = serializers.CharField(source="anchor.place")
    note = serializers.CharField(
        source="anchor.note", help_text="The signed head exactly as it was handed over."
    )
    administered_by = serializers.CharField(source="anchor.administered_by")
    worth = serializers.IntegerField(help_text="0: our own, 1: the organisation's, 2: a third party's.")
    sentence = serializers.CharField()
    attested_at = serializers.SerializerMethodField()
    created_at = serializers.SerializerMethodField()

    def get_root_hash(self, row: anchors.Rated) -> str:
        """The root as 64 hex digits."""
        return bytes(row.anchor.root).hex()

    def get_attested_at(self, row: anchors.Rated) -> str | None:
        """The keeper's own time."""
        return records.timestamp(row.anchor.attested_at) if row.anchor.attested_at else None

    def get_created_at(self, row: anchors.Rated) -> str:
        """When it was handed over."""
        return records.timestamp(row.anchor.created_at)


class Keys(ApiView):
    """Keys that sign heads of the log, oldest first, ended ones too."""

    permission = Permission.READ_EVIDENCE
    operation = "ledger_keys"
    tag = "ledger"
    answer = answer(
        "LedgerKeyList",
        schema_version=serializers.CharField(),
        product=serializers.CharField(),
        items=KeyShown(many=True),
    )

    def get(self, request: Request) -> Response:
        """All of them: there are few."""
        rows = LedgerKey.objects.order_by("pk")
        return Response(
            {
                "schema_version": "cavra.ledger.key-list.v1",
                "product": records.PRODUCT,
                "items": KeyShown(rows, many=True).data,
            }
        )


class Anchors(NewestFirst):
    """Heads that are held outside the database, newest first, each with what it is worth."""

    operation = "ledger_anchors"
    answer = page_answer(
        "LedgerAnchorList", AnchorShown(many=True), cursor=serializers.CharField(allow_null=True)
    )

    def get(self, request: Request) -> Response:
        """One page."""
        return self.page(
            request,
            Anchor.objects.all(),
            "cavra.ledger.anchor-list.v1",
            lambda rows: AnchorShown(anchors.rated(rows), many=True).data,
        )


class AnchorProof(ReadView):
    """What the keeper of a head gave as proof, as it was received."""

    tag = "ledger"

    @extend_schema(operation_id="ledger_anchor_proof", responses=_described(BYTES, OpenApiTypes.BINARY))
    def get(self, request: Request, anchor_id: str) -> HttpResponse:
        """A time-stamp response (RFC 3161), cosignature lines, or a commit's id; empty for a file."""
        anchor = Anchor.objects.filter(anchor_id=anchor_id).first() if ID.fullmatch(anchor_id) else None
        if anchor is None:
            raise NotFound("There is no anchor with this id.", code="anchor_not_found")
        headers = {
            "Cache-Control": IMMUTABLE,
            "Content-Disposition": f'attachment; filename="{anchor.anchor_id}.proof"',
        }
        return HttpResponse(bytes(anchor.proof), content_type=BYTES, headers=headers)
