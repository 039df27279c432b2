"""What the benchmarks write, beside the documents of all kinds that tests of finding make."""

from evidence.documents import CONFIGURATION, Kind
from evidence.domain import records
from evidence.domain.clock import system_clock
from evidence.domain.records import Draft

# Writers share these cases, so that the chains of cases are contended for as the log is.
CASES = 50


# As little as a record can hold; it is no kind of the product.
FILLER = Kind(
    name="benchmark-filler",
    prefix="filler",
    id_field="filler_id",
    payload_key="filler",
    schema_version="cavra.benchmark.filler.v1",
    written_by=(),
    fields={"n": int},
    contract=False,
)


def filler(n: int) -> Draft:
    """Record ``n`` of many whose content does not matter."""
    return records.draft(FILLER, records.mint_id(FILLER), {"n": n}, at=system_clock(), by=None)


def about_a_case(n: int) -> Draft:
    """Document ``n``, about one of the shared cases: a change of configuration, which says nothing of any row."""
    return records.draft(
        CONFIGURATION,
        records.mint_id(CONFIGURATION),
        {
            "subject": "benchmark",
            "subject_id": f"benchmark-{n % 1000}",
            "change": "changed",
            "changed_fields": ["timeout_s", "title"],
            "configuration_digest": records.digest(str(n).encode()),
            "reason": "A benchmark writes this.",
            "at": records.timestamp(system_clock()),
        },
        at=system_clock(),
        by=None,
        cases=[f"gordackdelivery-{n % CASES:016x}.benchmark"],
    )
