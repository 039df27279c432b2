"""``manage.py chain_diagram``: the chain as a picture, drawn from the tables that rule it."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from recovery.management import diagram

PICTURE = "docs/diagrams/go-backend-rollback-drill-live-retry-closure-evidence.svg"


class Command(BaseCommand):
    """Writes the picture; with ``--check`` only says whether it is what the tables say."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when it differs")

    def handle(self, *args: Any, check: bool, **options: Any) -> None:
        path = settings.BASE_DIR / PICTURE
        drawn = diagram.draw()
        if path.is_file() and path.read_text(encoding="utf-8") == drawn:
            self.stdout.write(f"{PICTURE} is what the tables say.")
        elif check:
            raise CommandError(f"{PICTURE} is not what the tables say. Run: manage.py chain_diagram")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(drawn, encoding="utf-8")
            self.stdout.write(f"{PICTURE} written.")
