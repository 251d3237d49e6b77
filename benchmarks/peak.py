"""The memory that a call needs at its highest, beside what was there before it."""

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch

PROCESS = Path("/proc/self")


def peak_memory(function: Callable[[], object], device: torch.device) -> int | None:
    """Call a function once, and return the bytes by which memory rose at most.

    On a GPU that is what torch's allocator gave out. On the CPU it is resident memory, whose peak Linux resets for a
    process that asks (proc(5), clear_refs); what the allocator has kept free goes back to the system before, or a call
    could use it unseen. None where the system does not say.
    """
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        (PROCESS / "clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    before = _resident("VmRSS")
    function()
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB$", (PROCESS / "status").read_text(), re.MULTILINE)
    assert match, f"{name} is in every status"
    return int(match[1]) * 1024
