"""The native library's own threads, in processes without OpenMP: kept, dismissed, forked, too few, or replaced."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "clipq" / "_native.so"
COMPILER = next((name for name in ("gcc", "clang", "cc") if shutil.which(name)), None)
pytestmark = [
    pytest.mark.skipif(not LIBRARY.is_file(), reason="the native library is not built: python hatch_build.py"),
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc, which is Linux's"),
]

HEAD = f"""
import ctypes, os, sys, threading, time
import numpy as np

native = ctypes.CDLL({str(LIBRARY)!r})
pointer, long = ctypes.c_void_p, ctypes.c_int64
native.clipq_packed_size.restype, native.clipq_packed_size.argtypes = ctypes.c_size_t, [ctypes.c_int, long, long]
native.clipq_pack.argtypes = [ctypes.c_int, pointer, long, long, pointer]
native.clipq_linear.argtypes = [ctypes.c_int, ctypes.c_int, pointer, long, long, *[pointer] * 4, long, long, long,
                                ctypes.c_int, ctypes.c_float, ctypes.c_int]
m, n, k, path = 200, 512, 512, native.clipq_path()  # more than a millisecond's work, so that threads are called
random = np.random.default_rng(0)
weight, x = random.integers(-127, 128, (n, k), dtype=np.int8), random.standard_normal((m, k), dtype=np.float32)
scale = random.random(n, dtype=np.float32)
packed = np.empty(native.clipq_packed_size(path, n, k), dtype=np.uint8)
assert native.clipq_pack(path, weight.ctypes.data, n, k, packed.ctypes.data) == 0

def linear(threads):
    y = np.empty((m, n), dtype=np.float32)
    status = native.clipq_linear(path, threads, x.ctypes.data, k, m, packed.ctypes.data, scale.ctypes.data, None,
                                 y.ctypes.data, n, n, k, 0, 0.0, 0)
    assert status == 0, status
    return y

def right(threads):
    assert np.array_equal(linear(threads), alone)

def others(threads):  # that many, but no more than processors: each call starts those besides the caller
    return min(threads, len(os.sched_getaffinity(0))) - 1

def tasks():
    return len(os.listdir("/proc/self/task"))

def settles(count):
    end = time.monotonic() + 20
    while tasks() != count and time.monotonic() < end:
        time.sleep(0.01)
    assert tasks() == count, (tasks(), count)

def ends_well(child):
    end = time.monotonic() + 20
    while (done := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
        time.sleep(0.01)
    assert done == (child, 0), done

alone, before = linear(1), tasks()
"""


def run(code: str, before: str = "", **environment: str) -> str:
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment}
    command = ["bash", "-c", f'{before}exec "$0" "$@"', sys.executable, "-W", "ignore", "-c", HEAD + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_threads_are_kept_between_calls_and_give_the_same():
    run("for threads in (4, 4, 2, 3, 4):\n    right(threads)\n    assert tasks() == before + others(4)")


def test_threads_that_slept_for_long_wake_up():
    run("for _ in range(20):\n    right(3)\n    time.sleep(0.02)")


def test_a_thread_that_ends_dismisses_its_own():
    run(
        "callers = [threading.Thread(target=right, args=(3,)) for _ in range(8)]\n"
        "for caller in callers: caller.start()\n"
        "for caller in callers: caller.join()\n"
        "settles(before)"
    )


CHILD = "child = os.fork()\nif child == 0:\n    {what}\n    sys.exit(0)\nends_well(child)\nright(3)"


@pytest.mark.parametrize("what", ["pass", "right(3)", "right(3); right(4); assert tasks() == 1 + others(4)"])
def test_a_forked_child_starts_its_own(what):
    run("right(3)\n" + CHILD.format(what=what))


def test_children_of_a_process_in_the_midst_of_calls():
    run(
        "stop = threading.Event()\n"
        "def calls():\n    while not stop.is_set(): right(2)\n"
        "callers = [threading.Thread(target=calls) for _ in range(2)]\n"
        "for caller in callers: caller.start()\n"
        "for _ in range(5):\n"
        + "".join(f"    {line}\n" for line in CHILD.format(what="right(2); os._exit(0)").splitlines())
        + "stop.set()"
    )


def test_where_no_more_threads_can_be_had_those_that_are_there_do_the_work():
    """Stacks of 12 GB in an address space of 14 GB leave room for none or one."""
    run("right(16)\nassert tasks() < before + 2\nright(16)", before="ulimit -s 12582912 -v 14680064; ")


OPENMP = """
int calls;
int omp_get_num_threads(void) { return 1; }
void GOMP_parallel(void (*run)(void*), void* data, unsigned threads, unsigned flags) { calls++; run(data); }
"""


@pytest.mark.skipif(COMPILER is None, reason="no C compiler on the PATH")
def test_openmp_that_is_loaded_after_the_first_calls_is_found(tmp_path):
    (tmp_path / "openmp.c").write_text(OPENMP)
    library = tmp_path / "openmp.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", tmp_path / "openmp.c", "-o", library], check=True)
    run(
        "right(2)\n"
        f"openmp = ctypes.CDLL({str(library)!r}, ctypes.RTLD_GLOBAL)\n"
        "calls = ctypes.c_int.in_dll(openmp, 'calls')\n"
        "for _ in range(70): right(2)\n"
        "found = calls.value\n"
        "assert found > 0\n"
        "for _ in range(9): right(2)\n"
        "assert calls.value == found + 9"
    )
