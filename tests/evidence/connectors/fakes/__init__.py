"""Strict stand-ins for services that cannot be run here, built from what their vendors publish."""
