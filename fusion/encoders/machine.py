"""What kind of machine this is, as far as vectors in their last digits and speed go: its processor or its GPU."""

import platform
import re
import sys
from functools import lru_cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_GPUS = Path("/proc/driver/nvidia/gpus")
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "sve", "sve2")
"""Instruction sets for which BLAS, oneDNN and torch have kernels of their own."""

_NOISE = re.compile(r"\((?:R|TM)\)|\bCPU\b|\bProcessor\b|\b\d+-Core\b|@.*", re.IGNORECASE)


@lru_cache(maxsize=2)
def machine_kind(device: str) -> str:
    """A short name for all machines that are like this one: the processor's model and instruction sets, or the GPU's.

    Args:
        device: ``cpu`` or ``cuda``. A driver that has not imported torch asks the NVIDIA driver for the GPU's name.
    """
    return _gpu() if device.startswith("cuda") else describe_processor(_text(_CPUINFO))


def has_wide_vectors() -> bool:
    """Whether the processor computes on vectors of 512 bits; on one without, oneDNN's layers are usually the slower."""
    return "avx512f" in machine_kind("cpu")


def describe_processor(cpuinfo: str) -> str:
    r"""The processor that /proc/cpuinfo names; without one, what Python knows of the machine.

    >>> describe_processor("model name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\nflags\t: fpu avx avx2 avx512f")
    'Intel Xeon, avx2 avx512f'
    """
    fields: dict[str, str] = dict(re.findall(r"^([^:\n]+?)\s*:[ \t]*(.*)$", cpuinfo, re.MULTILINE))
    model = " ".join(_NOISE.sub(" ", fields.get("model name", "")).split())
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    sets = " ".join(name for name in _INSTRUCTIONS if name in flags)
    return ", ".join(filter(None, [model or platform.processor() or platform.machine(), sets]))


def _gpu() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    for about in sorted(_GPUS.glob("*/information")):
        if found := re.search(r"^Model:\s*(.+)$", _text(about), re.MULTILINE):
            return found.group(1).strip()
    return "GPU"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
