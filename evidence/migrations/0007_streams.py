import json
from typing import Any

import django.db.models.deletion
from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

# Pure functions, and not a copy of them: an old case sends on retry, and is compared by, what they give today.
from evidence.domain.events import build, digest

AT_ONCE = 200


def place_existing(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Give the cases that are there a place each, in the order of their making.

    What was sent about them quoted no place, and their retries repeat it, so their digests cover it as it was.
    """
    Case = apps.get_model("evidence", "Case")
    Connector = apps.get_model("evidence", "Connector")
    StreamHead = apps.get_model("evidence", "StreamHead")
    for connector in Connector.objects.order_by("pk"):
        seq, previous, last = 0, "", 0
        of_connector = Case.objects.filter(connector=connector).select_related("plan", "package")
        while cases := list(of_connector.filter(pk__gt=last).order_by("pk")[:AT_ONCE]):
            payloads = _payloads(apps, cases)
            for case in cases:
                event = build(
                    payloads[case.plan.delivery_id],
                    payloads[case.package.audit_id],
                    audit_hash=case.package.record_hash,
                    stream=None,
                )
                seq += 1
                case.stream_seq, case.stream_prev, case.stream_digest = seq, previous, digest(event)
                previous, last = case.stream_digest, case.pk
            Case.objects.bulk_update(cases, ["stream_seq", "stream_prev", "stream_digest"])
        if seq:
            StreamHead.objects.update_or_create(
                connector=connector, defaults={"seq": seq, "digest": previous}
            )


def _payloads(apps: Apps, cases: list[Any]) -> dict[str, Any]:
    """Payloads of the cases' plans and packages by record id."""
    wanted = {record_id for case in cases for record_id in (case.plan.delivery_id, case.package.audit_id)}
    Record = apps.get_model("evidence", "Record")
    found = Record.objects.filter(record_id__in=wanted)
    return {record.record_id: json.loads(bytes(record.body))["payload"] for record in found}


class Migration(migrations.Migration):
    dependencies = [
        ("evidence", "0006_epochs"),
    ]

    operations = [
        migrations.CreateModel(
            name="StreamHead",
            fields=[
                (
                    "connector",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="stream",
                        serialize=False,
                        to="evidence.connector",
                    ),
                ),
                ("seq", models.PositiveBigIntegerField(default=0)),
                (
                    "digest",
                    models.CharField(
                        blank=True, help_text="SHA-256 of the newest event, hex.", max_length=64
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="case",
            name="head_origin",
            field=models.CharField(blank=True, db_default="", max_length=200),
        ),
        migrations.AddField(
            model_name="case",
            name="head_size",
            field=models.BigIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="case",
            name="stream_digest",
            field=models.CharField(db_default="", max_length=64),
        ),
        migrations.AddField(
            model_name="case",
            name="stream_prev",
            field=models.CharField(blank=True, db_default="", max_length=64),
        ),
        migrations.AddField(
            model_name="case",
            name="stream_seq",
            field=models.PositiveBigIntegerField(db_default=0),
        ),
        migrations.RunPython(place_existing, migrations.RunPython.noop, elidable=False),
        migrations.AddConstraint(
            model_name="case",
            constraint=models.UniqueConstraint(fields=("connector", "stream_seq"), name="case_place_once"),
        ),
        migrations.AddConstraint(
            model_name="case",
            constraint=models.CheckConstraint(
                condition=models.Q(("stream_seq__gte", 1), models.Q(("stream_digest", ""), _negated=True)),
                name="case_has_a_place",
            ),
        ),
    ]
