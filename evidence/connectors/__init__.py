"""Sending evidence to other systems: settings and events in, one receipt per send out. No database."""
