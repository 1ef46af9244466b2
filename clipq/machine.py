"""What this machine is: processor, cores, memory used, versions installed. Standard library only, nothing imported."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

from .version import VERSION

PACKAGES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "timm",
    "transformers",
    "datasets",
    "accelerate",
    "safetensors",
    "huggingface_hub",
    "numpy",
    "pillow",
)

_CPUINFO = Path("/proc/cpuinfo")
_STATUS = Path("/proc/self/status")
_NAME_FIELDS = ("model name", "Model", "cpu model", "Hardware", "Processor")


@cache
def cpu_name() -> str:
    """The processor's own name ("AMD EPYC 7763 64-Core Processor"), or its architecture where it has none."""
    fields = _fields(_CPUINFO)
    named = next((fields[key] for key in _NAME_FIELDS if fields.get(key)), "") or _sysctl("machdep.cpu.brand_string")
    return re.sub(r"\s+", " ", named or platform.processor() or platform.machine() or "unknown").strip()


@cache
def cpu_flags() -> frozenset[str]:
    """Instruction-set features, lower case, as Linux names them ("avx512_vnni", "asimddp").

    Linux reads `/proc/cpuinfo`. macOS asks sysctl and translates to the Linux names. Elsewhere the set is empty:
    nothing is known, so nothing may be assumed.
    """
    fields = _fields(_CPUINFO)
    if text := fields.get("flags") or fields.get("Features"):
        return frozenset(text.lower().split())
    return _mac_flags() if sys.platform == "darwin" else frozenset()


def cores() -> int:
    """Cores this process may run on (its CPU affinity where the system has one), at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def granted_cores() -> int | None:
    """Cores that Ray gave the actor or task this process runs for; None outside of one, or where it gave none."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.worker.mode != ray.WORKER_MODE:
        return None
    return int(context.get_assigned_resources().get("CPU", 0)) or None


def versions() -> dict[str, str]:
    """Installed versions of Python and the packages that decide the numbers, by distribution name; none is imported."""
    found = {"clipq": VERSION, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def peak_memory_bytes() -> int:
    """The most resident memory this process has held so far, in bytes; 0 where the system does not say (Windows)."""
    if high := _fields(_STATUS).get("VmHWM"):  # "123456 kB"; getrusage also counts what the parent held before exec
        return int(high.split()[0]) * 1024
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux and the BSDs kibibytes


def _fields(path: Path) -> dict[str, str]:
    """The "name: value" lines of a file of /proc (in cpuinfo: of the first processor); empty where there is none."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    fields: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return fields


def _mac_flags() -> frozenset[str]:
    intel = (_sysctl("machdep.cpu.features") + " " + _sysctl("machdep.cpu.leaf7_features")).lower()
    names = {"avx1.0": "avx", "avx512vnni": "avx512_vnni", "sse4.1": "sse4_1", "sse4.2": "sse4_2"}
    arm = {"FEAT_DotProd": "asimddp", "FEAT_I8MM": "i8mm", "FEAT_FP16": "asimdhp", "FEAT_BF16": "bf16"}
    found = {names.get(flag, flag) for flag in intel.split()}
    found |= {flag for key, flag in arm.items() if _sysctl(f"hw.optional.arm.{key}") == "1"}
    return frozenset(found)


def _sysctl(name: str) -> str:
    """One sysctl value on macOS; empty elsewhere or when the key does not exist."""
    if sys.platform != "darwin":
        return ""
    asked = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, check=False)
    return asked.stdout.strip() if asked.returncode == 0 else ""
