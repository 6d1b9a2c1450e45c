"""Files of /proc, and one field of /proc/PID/status (proc_pid_status(5))."""

from __future__ import annotations

from . import _ns


def kernels_own(path: str, _flags: int) -> int:
    """An opener for ``open()``: OSError EXDEV rather than something that lies over a file of /proc."""
    return _ns.open_proc(path)


def status_field(process: int | str, field: str) -> str | None:
    """Its value, or None where this kernel has no such field.

    The file starts with the name, which the process itself chooses: the kernel
    escapes a newline in it and nothing else that Python would take for the end
    of a line, nor bytes that are no text.
    """
    with open(f"/proc/{process}/status", "rb", opener=kernels_own) as file:
        _, found, rest = file.read().partition(f"\n{field}:".encode())
    return rest.partition(b"\n")[0].decode().strip() if found else None
