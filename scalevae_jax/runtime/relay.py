"""A relay of bytes between JAX's client in this process and process 0.

JAX's client (jaxlib 0.10) ends its process by an abort, with a stack, the moment its connection to process 0 closes.
Through the relay that connection ends here and stays open, so that this process can end in its own words.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

Closed = Callable[[], None]


def open(host: str, port: int, closed: Closed) -> str:
    """Start a relay to process 0; the address for JAX's client. `closed` is called when process 0 closes."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept, args=(listener, (host, port), closed), daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}"


def _accept(listener: socket.socket, to: tuple[str, int], closed: Closed) -> None:
    while True:
        near, _ = listener.accept()
        try:
            far = socket.create_connection(to)
        except OSError:  # process 0 is not there yet: JAX's client tries again
            near.close()
            continue
        hung_up = threading.Event()
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_outward, args=(near, far, hung_up), daemon=True).start()
        threading.Thread(target=_inward, args=(far, near, hung_up, closed), daemon=True).start()


def _read(source: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):  # as good as closed
        while data := source.recv(1 << 16):
            yield data


def _outward(near: socket.socket, far: socket.socket, hung_up: threading.Event) -> None:
    with contextlib.suppress(OSError):  # of `far`: process 0's end, and `_inward` sees it too
        for data in _read(near):
            far.sendall(data)
        hung_up.set()
        far.shutdown(socket.SHUT_RDWR)


def _inward(far: socket.socket, near: socket.socket, hung_up: threading.Event, closed: Closed) -> None:
    with contextlib.suppress(OSError):  # of `near`: JAX's client has hung up, not process 0
        for data in _read(far):
            near.sendall(data)
        if not hung_up.is_set():
            closed()
