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
_MAX_CACHE_BYTES = 2**30
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
    # TensorFlow's C++ log shows errors about absent GPUs in every CPU run. Errors that matter are
    # raised as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import undivided_tf.support.quiet  # noqa: F401 - Hides lines from before the level is read.

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
    is_configured = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if sys.platform != "linux" or is_configured:
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # Not so in musl.
        libc.mallopt(_M_TRIM_THRESHOLD, -1)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_ARENA_MAX, 1)
        os.environ["GLIBC_TUNABLES"] = _TUNABLES  # The same, read when a process starts.


def _keep_compiled_programs() -> None:
    """Makes XLA keep the programs that it compiles for the CPU, so that later processes load them.

    A resumed run, or one that differs in its seed alone, then starts at once. The environment
    variable `CACHE` names the directory, which is ~/.cache/undivided_tf by default; an empty value
    disables the cache. Each pair of a processor and a version of TensorFlow has its own folder
    there. The oldest programs are removed when all together exceed 1 GiB.
    """
    options = os.environ.get("TF_XLA_FLAGS", "")
    if "persistent_cache" in options or os.environ.get(CACHE) == "":
        return
    try:
        folder = _cache() / "xla" / _compiler()
        folder.mkdir(parents=True, exist_ok=True)
        _remove_oldest(folder.parent, _MAX_CACHE_BYTES)
    # No writable directory, no home directory, or no version of TensorFlow: do without the cache.
    except (OSError, RuntimeError, importlib.metadata.PackageNotFoundError):
        return
    options += f' --tf_xla_persistent_cache_directory="{folder}"'  # It may hold spaces.
    os.environ["TF_XLA_FLAGS"] = f"{options} --tf_xla_persistent_cache_device_types=CPU"


def _cache() -> pathlib.Path:
    """The cache directory; RuntimeError if this user has no home directory."""
    if given := os.environ.get(CACHE):
        return pathlib.Path(given)
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "undivided_tf"


def _compiler() -> str:
    """A hash of TensorFlow's version and the processor, which decide the compiled code."""
    facts = [importlib.metadata.version("tensorflow"), platform.machine()]
    cpu_info = pathlib.Path("/proc/cpuinfo")
    if cpu_info.exists():
        lines = cpu_info.read_text(encoding="utf-8").splitlines()
        names = ("model name", "flags", "Features")
        facts += dict.fromkeys(line for line in lines if line.startswith(names))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _remove_oldest(folder: pathlib.Path, max_bytes: int) -> None:
    """Removes files below a folder, the oldest first, until all have at most `max_bytes`."""
    paths = [(path.stat(), path) for path in folder.rglob("*") if path.is_file()]
    total = sum(status.st_size for status, _ in paths)
    for status, path in sorted(paths, key=lambda pair: pair[0].st_mtime):
        if total <= max_bytes:
            return
        path.unlink(missing_ok=True)
        total -= status.st_size


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
