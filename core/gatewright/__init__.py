"""Gatewright: events in, commands out."""
