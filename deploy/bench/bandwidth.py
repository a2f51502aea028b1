"""How fast this machine's memory can be read: threads that look for a byte that is not there."""

import ctypes
import mmap
import threading
import time

BYTES = 1 << 30
ROUNDS = 5


def measure(threads):
    """Bytes a second, the best of some rounds: the C library's memchr reads as fast as the memory allows."""
    libc = ctypes.CDLL(None)
    libc.memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    libc.memchr.restype = ctypes.c_void_p
    with mmap.mmap(-1, BYTES) as memory:
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        # Pages that were never written are all the same one, which the caches hold.
        ctypes.memset(start, 1, BYTES)
        share = BYTES // threads
        best = 0.0
        for _ in range(ROUNDS):
            readers = [
                threading.Thread(target=libc.memchr, args=(start + index * share, 0, share)) for index in range(threads)
            ]
            begun = time.monotonic()
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
            best = max(best, share * threads / (time.monotonic() - begun))
        # The view of the memory must go before the memory does.
        return best
