"""What a process is told before TensorFlow starts in it; imports no TensorFlow."""

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
    """Environment and allocator as `benchmarks/README.md` found them best.

    To be called before TensorFlow is imported; processes that this one starts inherit it. What
    the environment says already is kept.

    Args:
        keep_freed_memory: for steps that are repeated. What is done once, such as a conversion,
            takes less memory without.
    """
    # TensorFlow's C++ log greets every CPU run with errors about absent GPUs; what goes wrong
    # for real reaches us as an exception.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import undivided_tf.support.quiet  # noqa: F401 - Hides what comes before that level is read.

    # TensorFlow leaves oneDNN off on processors with AVX2 alone, where it pays as well.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if keep_freed_memory:
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Has glibc use memory again that was freed, instead of giving it back to the system.

    By default every array of a step beyond some size is mapped anew, and the system clears its
    pages: up to a third of the time of a step where pages are dear, as on some virtual machines.
    Arenas beside the first are too small for such arrays. Other allocators have no such habit, and
    whoever set one up by the environment knows better.
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
    """Eight hexadecimal digits of the system that this process runs on.

    Two containers of one host number their own processes and are two machines here.
    """
    facts = [platform.node(), str(uuid.getnode())]
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        facts = [boot.read_text(encoding="utf-8"), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256(" ".join(facts).encode()).hexdigest()[:8]


def leave_with_parent() -> None:
    """Ends this process with the one that it works for, killed or not.

    A parent that is killed closes no queue, and its workers would wait for ever.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
