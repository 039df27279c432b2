#!/usr/bin/env python
"""Django's command line for the Evidence Console."""

import os
import sys
from typing import TextIO, cast


def main() -> None:
    """Run one management command."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cavra_site.settings")
    from django.core.management import execute_from_command_line

    from evidence.connectors.redaction import Stream

    # What a command says when it fails holds no secret, its traceback included.
    sys.stderr = cast("TextIO", Stream(sys.stderr))
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
