"""Process settings that must be made before TensorFlow starts; imports no TensorFlow."""

import ctypes
import hashlib
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import platform
import sys
import threading
import uuid

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
