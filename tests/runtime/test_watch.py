"""Signs of life between processes, over a store in memory; the relay of bytes, over sockets of this process."""

import queue
import select
import socket
import time

import pytest

from scalevae_jax.runtime import relay
from scalevae_jax.runtime.watch import Watch


class Store:
    """As much of JAX's client as a watch uses."""

    def __init__(self):
        self.kept = {}

    def key_value_set(self, key, value, overwrite):
        self.kept[key] = value

    def key_value_try_get(self, key):
        if key not in self.kept:
            raise RuntimeError("NOT_FOUND")
        return self.kept[key]

    def key_value_dir_get(self, key):
        return [item for item in self.kept.items() if item[0].startswith(key)]


def _watches(count, limit=0.5):
    store, heard = Store(), [queue.Queue() for _ in range(count)]
    made = [Watch(store, i, count, limit, lambda *words, i=i: heard[i].put(words)) for i in range(count)]
    return made, heard


def test_a_silent_process_is_named_to_all():
    watches, heard = _watches(3)
    watches[1].stop()
    words = (3, "process 1 has given no sign of life for 0.5 s")
    assert heard[0].get(timeout=20) == words
    assert heard[2].get(timeout=20) == words
    for watch in watches:
        watch.stop()


def test_without_process_0_the_others_say_so():
    watches, heard = _watches(2)
    watches[0].stop()
    assert heard[1].get(timeout=20) == (3, "process 0 has given no sign of life for 0.5 s")
    watches[1].stop()


def test_last_words_reach_all():
    watches, heard = _watches(3, limit=60.0)
    watches[2].tell(2, "process 2 of 3: no room on the disk")
    assert heard[0].get(timeout=20) == heard[1].get(timeout=20) == (2, "process 2 of 3: no room on the disk")
    for watch in watches:
        watch.stop()


def test_processes_that_live_are_left_alone():
    watches, heard = _watches(3, limit=3.0)
    time.sleep(4)
    for watch in watches:
        watch.stop()
    assert [each.qsize() for each in heard] == [0, 0, 0]


def _relayed():
    closed = queue.Queue()
    server = socket.create_server(("127.0.0.1", 0))
    address = relay.open("127.0.0.1", server.getsockname()[1], lambda: closed.put(True))
    host, _, port = address.rpartition(":")
    near = socket.create_connection((host, int(port)))
    far, _ = server.accept()
    return near, far, closed


def test_the_relay_passes_bytes_and_says_when_the_far_end_closes():
    near, far, closed = _relayed()
    near.sendall(b"there")
    assert far.recv(10) == b"there"
    far.sendall(b"and back")
    assert near.recv(10) == b"and back"
    far.close()
    assert closed.get(timeout=20)
    near.settimeout(0.2)
    with pytest.raises(TimeoutError):  # still open, so that JAX's client sees nothing of it
        near.recv(10)


def test_the_relay_says_nothing_when_the_near_end_is_cut_off():
    near, far, closed = _relayed()
    far.sendall(b"unread")
    assert select.select([near], [], [], 20)[0]
    near.close()  # with bytes unread, which resets the connection
    assert far.recv(10) == b""
    time.sleep(0.2)
    assert closed.qsize() == 0


def test_the_relay_says_nothing_when_the_near_end_closes():
    near, far, closed = _relayed()
    near.close()
    assert far.recv(10) == b""
    time.sleep(0.2)
    assert closed.qsize() == 0
