"""llama.cpp's log: C code that writes to file descriptor 2, unknown to Python."""

import os
import sys

_IOLBF = 1  # "line buffered" in stdio.h of glibc, musl and Apple's C library
_BUFFER_BYTES = 8192


def write_by_lines() -> None:
    """Have whole lines written at once; without this, llama.cpp's time, level and text are three writes each."""
    import ctypes  # noqa: PLC0415 -- costs as much as the rest of the start; --help does not need it

    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    for name in ("stderr", "__stderrp"):  # the latter on macOS
        if hasattr(libc, name):
            stream = ctypes.c_void_p.in_dll(libc, name)
            # Never freed: C code may write until the very end of the process.
            buffer = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(_BUFFER_BYTES)))
            libc.setvbuf(stream, buffer, _IOLBF, ctypes.c_size_t(_BUFFER_BYTES))


def silence() -> None:
    """Send the log nowhere; ``sys.stderr`` goes on for the program's own errors."""
    sys.stderr = os.fdopen(os.dup(2), "w", errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
