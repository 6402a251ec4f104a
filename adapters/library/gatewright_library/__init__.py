"""Choosing models without a gateway: the selection, its memory and an executor as a Python library."""
