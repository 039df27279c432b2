import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("evidence", "0004_checkpoints"),
    ]

    operations = [
        migrations.CreateModel(
            name="Capsule",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("capsule_id", models.CharField(max_length=60, unique=True)),
                ("case_id", models.CharField(max_length=90)),
                (
                    "records",
                    models.PositiveIntegerField(help_text="How many records of the case it speaks of."),
                ),
                (
                    "log_size",
                    models.BigIntegerField(help_text="Entries of the log under the head it is frozen at."),
                ),
                ("size", models.PositiveIntegerField(help_text="Bytes of the zip.")),
                ("sha256", models.CharField(max_length=64)),
                (
                    "content",
                    models.BinaryField(help_text="The zip; null once a body in it was erased.", null=True),
                ),
                ("created_at", models.DateTimeField()),
                ("record_hash", models.CharField(max_length=64)),
                (
                    "created_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ("-pk",),
                "indexes": [models.Index(fields=["case_id", "log_size"], name="capsule_of_case")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("records__gt", 0), ("size__gt", 0)),
                        name="capsule_is_of_something",
                    )
                ],
            },
        ),
    ]
