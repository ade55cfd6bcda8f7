"""Process settings that must be made before TensorFlow starts; imports no TensorFlow."""

import ctypes
import hashlib
import importlib.metadata
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import platform
import sys
import threading
import uuid

CACHE = "UNDIVIDED_TF_CACHE"  # Environment variable.
_MOST_BYTES = 2**30
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # Of glibc's malloc.h.
_TUNABLES = ":".join(
    (
        "glibc.malloc.trim_threshold=0x7fffffffffffffff",
        "glibc.malloc.mmap_max=0",
        "glibc.malloc.arena_max=1",
    )
)


def set_up(keep_freed_memory: bool = True) -> None:
    """Sets the environment and the allocator to the fastest settings of `benchmarks/README.md`.

    Call it before TensorFlow is imported. Child processes inherit the settings. Variables that are
    already set are kept.

    Args:
        keep_freed_memory: faster for repeated steps. Work that is done once, such as a conversion,
            needs less memory without it.
    """
    # TensorFlow's C++ log shows errors about absent GPUs in every CPU run. Real errors are raised
    # as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import undivided_tf.support.quiet  # noqa: F401 - Hides what comes before that level is read.

    # TensorFlow disables oneDNN on processors with AVX2 only, where it is faster too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    _keep_compiled_programs()
    if keep_freed_memory:
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Makes glibc keep freed memory for later use instead of returning it to the system.

    By default glibc maps each large array of a step anew, and the system clears its pages. On
    machines where mapping pages is slow, such as some virtual machines, this takes up to a third of
    the time of a step. Only the first arena is used, since the others are too small for such
    arrays. If the environment configures an allocator, this function changes nothing.
    """
    given = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if sys.platform != "linux" or given:
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # Not so in musl.
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_ARENA_MAX, 1)
        os.environ["GLIBC_TUNABLES"] = _TUNABLES  # The same, read when a process starts.


def _keep_compiled_programs() -> None:
    """Makes XLA keep what it compiles for the CPU, so that a later process need not compile it.

    A resumed run, or one that differs in its seed alone, then starts at once. The directory is
    `CACHE`, or else ~/.cache/undivided_tf; an empty `CACHE` turns this off. The programs of each
    processor and TensorFlow have a folder of their own there. The oldest go when all exceed 1 GiB.
    """
    options = os.environ.get("TF_XLA_FLAGS", "")
    if "persistent_cache" in options or os.environ.get(CACHE) == "":
        return
    try:
        folder = _cache() / "xla" / _compiler()
        folder.mkdir(parents=True, exist_ok=True)
        _remove_oldest(folder.parent, _MOST_BYTES)
    # No place to write, no home directory, or a TensorFlow without a version: compile each time.
    except (OSError, RuntimeError, importlib.metadata.PackageNotFoundError):
        return
    options += f' --tf_xla_persistent_cache_directory="{folder}"'  # It may hold spaces.
    os.environ["TF_XLA_FLAGS"] = f"{options} --tf_xla_persistent_cache_device_types=CPU"


def _cache() -> pathlib.Path:
    """The directory of what is kept; RuntimeError if this user has no home directory."""
    if given := os.environ.get(CACHE):
        return pathlib.Path(given)
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "undivided_tf"


def _compiler() -> str:
    """Identifies what decides the machine code of a program: TensorFlow and the processor."""
    facts = [importlib.metadata.version("tensorflow"), platform.machine()]
    about = pathlib.Path("/proc/cpuinfo")
    if about.exists():
        lines = about.read_text(encoding="utf-8").splitlines()
        named = ("model name", "flags", "Features")
        facts += dict.fromkeys(line for line in lines if line.startswith(named))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _remove_oldest(folder: pathlib.Path, most_bytes: int) -> None:
    """Removes files below a folder, the oldest first, until they have at most so many bytes."""
    known = [(path, path.stat()) for path in folder.rglob("*") if path.is_file()]
    total = sum(about.st_size for _, about in known)
    for path, about in sorted(known, key=lambda one: one[1].st_mtime):
        if total <= most_bytes:
            return
        path.unlink(missing_ok=True)
        total -= about.st_size


def machine() -> str:
    """Eight hexadecimal digits that identify the system that this process runs on.

    Two containers on one host have separate process ids, so they count as two machines.
    """
    facts = [platform.node(), str(uuid.getnode())]
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        facts = [boot.read_text(encoding="utf-8"), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256(" ".join(facts).encode()).hexdigest()[:8]


def leave_with_parent() -> None:
    """Ends this process when its parent ends, even if the parent is killed.

    A killed parent does not close its queues, so its workers would wait for ever.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
