"""Traces: what the machines were told and answered; replayed, told apart by request, and compared."""
