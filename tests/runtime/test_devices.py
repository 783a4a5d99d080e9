"""What a process keeps: freed memory, as large blocks of the heap, and compiled functions, for the next process."""

import ctypes
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from scalevae_jax.runtime import devices

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these options")

KEPT = """
import ctypes
from scalevae_jax.runtime import devices

class Info(ctypes.Structure):  # struct mallinfo2
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.mallinfo2.restype = Info

def take():
    block = libc.malloc(2**27)
    mapped = libc.mallinfo2().hblkhd
    libc.free(block)
    return mapped, libc.mallinfo2().arena

if {keep}:
    devices.keep_pages()
print(*take())
"""


@GLIBC
@pytest.mark.parametrize("keep", [True, False])
def test_a_large_block_stays_after_it_is_freed(keep):
    program = KEPT.replace("{keep}", str(keep))
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    mapped, heap = map(int, run.stdout.split())
    assert (mapped < 2**27) == keep
    assert (heap >= 2**27) == keep


GIVEN_BACK = """
import ctypes
from pathlib import Path
from scalevae_jax.runtime import devices

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = libc.memset.argtypes = None

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))

devices.keep_pages()
block, above = libc.malloc(2**27), libc.malloc(2**10)
libc.memset(ctypes.c_void_p(block), 1, ctypes.c_size_t(2**27))
libc.free(ctypes.c_void_p(block))
kept = resident()
devices.give_back()
print(kept - resident())
"""


@GLIBC
def test_memory_that_is_kept_and_not_in_use_is_given_back():
    run = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True)
    assert int(run.stdout) >= 120  # MiB, of 128 in a hole below another block


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    devices.keep_pages()


@pytest.mark.parametrize(("flags", "threads"), [("", None), ("--a=b --xla_force_host_platform_device_count=4", "8")])
def test_virtual_devices_have_two_threads_each(flags, threads, monkeypatch):
    monkeypatch.setattr(os, "environ", {"XLA_FLAGS": flags})
    devices.start()
    assert os.environ.get("NPROC") == threads


COMPILES = """
import collections, sys
import jax
from scalevae_jax.runtime import command, devices
from scalevae_jax.runtime.command import Parser

counts = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: counts.update([event.split("/")[-1]]))
devices.KEPT_BYTES = int(sys.argv.pop(1))

def main(_):
    for i in range(8):
        jax.jit(lambda x: x @ x + i)(jax.numpy.ones((i + 2, i + 2)))
    print("hits", counts["cache_hits"], "misses", counts["cache_misses"])

sys.exit(command.run(main, lambda: Parser("scalevae_jax.test", "")))
"""


def test_compiled_functions_are_kept_for_the_next_command_within_a_bound(tmp_path):
    """Two commands at once share the folder, a later one compiles nothing, and a small folder does not grow."""
    kept = {name: value for name, value in os.environ.items() if not re.match("JAX_(COMPILATION|PERSISTENT)", name)}

    def start(home: str = "home", most: int = 2**30) -> subprocess.Popen[str]:
        environment = kept | {"XDG_CACHE_HOME": str(tmp_path / home)}
        line = [sys.executable, "-c", COMPILES, str(most)]
        return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def counts(process: subprocess.Popen[str]) -> list[int]:
        out, err = process.communicate()
        assert (process.returncode, err) == (0, "")
        return [int(number) for number in re.findall(r"\d+", out)]

    def size(home: str) -> int:
        return sum(path.stat().st_size for path in (tmp_path / home).rglob("*-cache"))

    first, second = map(counts, [start(), start()])
    assert sum(first) == sum(second) > 8
    assert counts(start()) == [sum(first), 0]
    counts(start("small", size("home") // 2))
    assert 0 < size("small") <= size("home") // 2


@pytest.mark.parametrize("case", ["kept", "told not to", "set by the user", "no folder"])
def test_where_compiled_functions_are_kept(case, tmp_path, monkeypatch, capsys):
    config = {}
    monkeypatch.setattr(devices.jax, "config", SimpleNamespace(update=config.__setitem__))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    if case == "set by the user":
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "own")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" if case == "no folder" else tmp_path))
    (tmp_path / "file").touch()
    devices.keep_compiled(case != "told not to")
    monkeypatch.undo()
    assert config == {
        "kept": {
            "jax_compilation_cache_dir": f"{tmp_path}/scalevae_jax/compiled",
            "jax_compilation_cache_max_size": 2**30,
            "jax_persistent_cache_min_compile_time_secs": 0.0,
        },
        "told not to": {"jax_enable_compilation_cache": False},
    }.get(case, {})
    said = f"compiled functions are not kept: {tmp_path}/file/scalevae_jax/compiled: Not a directory\n"
    assert capsys.readouterr().err == (said if case == "no folder" else "")
    assert Path(tmp_path / "scalevae_jax/compiled").is_dir() == (case == "kept")
