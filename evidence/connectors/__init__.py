"""Sending evidence to other systems: settings and credentials in, one receipt per send out. Knows no database."""
