"""What is in a capsule: files from stored bytes, what the log's keys sign over them, and the zip.

Formats: C2SP tlog-checkpoint and tlog-proof, in-toto Statement v1 in a DSSE envelope, and a zip whose bytes
follow from its files. ``evidence/capsule/verify.py`` reads them again with nothing of ours.
"""

import base64
import io
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db.models import Sum
from django.template.loader import render_to_string

from evidence.domain import lines, proofs, records
from evidence.domain.notes import Signer, key_id, tlog_proof
from evidence.errors import Conflict
from evidence.models import CaseLink, Checkpoint, Record, SealEntry

VERIFIER = Path(__file__).resolve().parent.parent / "capsule" / "verify.py"

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:cavra:evidence:case-capsule:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"

# What the verifier reads; no case comes near it.
MAX_RECORDS = 20_000
MAX_BYTES = 64 * 1024 * 1024
# Every file is dated like this: the first moment that a zip can name.
DATED = (1980, 1, 1, 0, 0, 0)

# What every record of a kind says alike: the page leaves it to the record itself.
ALIKE = frozenset({"schema_version", "product", "controls"})

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Link:
    """One record of the case: its place, its seal entry, and its body unless that was erased."""

    n: int
    record: Record
    entry: bytes
    path: Sequence[bytes]

    @property
    def name(self) -> str:
        """File name without folder and ending: the entry's index, so that files sort like the chain."""
        return f"{self.record.index:012d}"

    @property
    def seal(self) -> dict[str, Any]:
        """The seal entry, for reading."""
        return records.load(self.entry)


def links(case_id: str, size: int) -> list[Link]:
    """Records of a case among the first ``size`` entries, in the order of its chain.

    Raises ``Conflict`` (``capsule_too_large``) when they are more than a capsule holds.
    """
    chain = list(
        CaseLink.objects.filter(case_id=case_id, index__lt=size).order_by("n").values_list("n", "index")
    )
    indexes = [index for _, index in chain]
    rows = rows_of(case_id, size)
    total = rows.aggregate(total=Sum("size"))["total"] or 0
    if len(chain) > MAX_RECORDS or total > MAX_BYTES:
        raise Conflict(
            f"No capsule was made: the case has {len(chain):,} records of {total:,} bytes; a capsule holds up to "
            f"{MAX_RECORDS:,} records of {MAX_BYTES:,} bytes. Export the case instead.",
            code="capsule_too_large",
        )
    found = rows.in_bulk()
    seals = dict(SealEntry.objects.filter(index__in=_of(case_id, size)).values_list("index", "entry"))
    paths = proofs.inclusions(indexes, size)
    return [
        Link(n, found[index], bytes(seals[index]), path)
        for (n, index), path in zip(chain, paths, strict=True)
    ]


def rows_of(case_id: str, size: int) -> Any:
    """Rows of the case's records among the first ``size`` entries, in the order of the log."""
    return Record.objects.filter(index__in=_of(case_id, size)).order_by("index")


def _of(case_id: str, size: int) -> Any:
    return CaseLink.objects.filter(case_id=case_id, index__lt=size).values("index")


def content(
    capsule_id: str, case_id: str, head: Checkpoint, chain: Sequence[Link], signers: Sequence[Signer]
) -> bytes:
    """The zip about ``chain`` at ``head``, signed by all ``signers``."""
    files = {
        "checkpoint": head.note.encode(),
        "key.vkey": "".join(f"{signer.vkey}\n" for signer in signers).encode(),
    }
    for link in chain:
        files[f"entries/{link.name}.json"] = link.entry
        files[f"proofs/{link.name}.tlog-proof"] = tlog_proof(link.record.index, link.path, head.note).encode()
        if link.record.body is not None:
            files[f"records/{link.name}.json"] = bytes(link.record.body)
    verifier = VERIFIER.read_bytes()
    files["index.html"] = page(capsule_id, case_id, head, chain, signers).encode()
    predicate = {
        "v": 1,
        "capsule": capsule_id,
        "case": case_id,
        "as_of": records.timestamp(head.created_at),
        "records": len(chain),
        "log": {
            "origin": head.origin,
            "epoch": head.epoch,
            "size": head.size,
            "root": bytes(head.root).hex(),
        },
        "entries": [
            {"n": link.n, "index": link.record.index, "erased": link.record.body is None} for link in chain
        ],
        "verifier": {"sha256": records.digest(verifier)},
    }
    files["statement.dsse.json"] = envelope(statement(files, predicate), signers)
    return zipped({**files, "verify.py": verifier})


def statement(files: Files, predicate: Mapping[str, Any]) -> bytes:
    """An in-toto Statement v1 whose subjects are these files by SHA-256."""
    return records.canonical(
        {
            "_type": STATEMENT_TYPE,
            "subject": [
                {"name": name, "digest": {"sha256": records.digest(data)}}
                for name, data in sorted(files.items())
            ],
            "predicateType": PREDICATE_TYPE,
            "predicate": predicate,
        }
    )


def envelope(payload: bytes, signers: Sequence[Signer]) -> bytes:
    """A DSSE envelope, one signature of each key, in its RFC 8785 form."""
    signed = pae(PAYLOAD_TYPE, payload)
    return records.canonical(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {
                    "keyid": f"{signer.name}+{key_id(signer.name, signer.public_key).hex()}",
                    "sig": base64.b64encode(signer.key.sign(signed)).decode(),
                }
                for signer in signers
            ],
        }
    )


def pae(payload_type: str, payload: bytes) -> bytes:
    """What a DSSE signature signs (DSSE v1, "PAE").

    The same keys sign heads. Those begin with the log's name, which has no spaces, so neither is ever taken for
    the other.
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def zipped(files: Files) -> bytes:
    """A zip that follows from its files alone: names sorted, nothing compressed, one date, one mode."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(files.items()):
            info = zipfile.ZipInfo(name, DATED)
            info.create_system = 3  # Unix, wherever this runs
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, data)
    return target.getvalue()


# --- the page for reading -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """One record as the page tells it; ``line`` says no more than kind and time once the body was erased."""

    link: Link
    line: lines.Line
    at: str
    facts: Sequence[lines.Fact]

    @property
    def state(self) -> str:
        """What the record reports, in words; empty when it reports no state."""
        return self.line.state.replace("_", " ")

    @property
    def is_erased(self) -> bool:
        """Whether only entry and proof are left."""
        return self.link.record.body is None


def page(
    capsule_id: str, case_id: str, head: Checkpoint, chain: Sequence[Link], signers: Sequence[Signer]
) -> str:
    """``index.html``: the case as a story, what is proven, and how to check it. No script, nothing from elsewhere."""
    said = lines.lines([link.record for link in chain], about=case_id)
    told = [_told(link, line) for link, line in zip(chain, said, strict=True)]
    return render_to_string(
        "evidence/capsule.html",
        {
            "capsule_id": capsule_id,
            "case_id": case_id,
            "head": head,
            "root": bytes(head.root).hex(),
            "as_of": _moment(records.timestamp(head.created_at)),
            "told": told,
            "erased": [one for one in told if one.is_erased],
            "vkeys": [signer.vkey for signer in signers],
        },
    )


def _told(link: Link, line: lines.Line) -> Told:
    plain = [fact for fact in lines.facts(line.payload) if fact.value and fact.name not in ALIKE]
    return Told(link, line, _moment(link.seal["at"]), plain)


def _moment(timestamp: str) -> str:
    """``2026-06-01T10:30:00.000000+00:00`` for readers."""
    return f"{timestamp[:10]} {timestamp[11:19]} UTC"
