"""The embedded engine: llama.cpp's own HTTP server in one Python process, a drop-in for ``llama-server``.

``main`` runs it, ``table`` lists its flags, ``flags`` reads them, ``params`` hands them to xllamacpp, ``preflight``
finds what would fail before anything is loaded, ``stopping`` ends the process on a signal.
"""
