"""Where the network must not be used, nothing can use it, and afterwards everything can."""

import socket
import urllib.request

import pytest

from hashzoo.storage.offline import OfflineError, is_offline, offline


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()


def test_no_connection_and_no_request_is_possible_offline(server):
    with offline():
        with pytest.raises(OfflineError):
            socket.create_connection(server, timeout=5)
        with socket.socket() as ours, pytest.raises(OfflineError):
            ours.connect(server)
        with pytest.raises(OSError, match="does not use the network"):
            urllib.request.urlopen(f"http://127.0.0.1:{server[1]}", timeout=5)
        with pytest.raises(OfflineError):
            socket.getaddrinfo("localhost", 80)


def test_the_network_is_back_after_the_last_block_ends(server):
    with offline():
        with offline():
            pass
        assert is_offline()
        with pytest.raises(OfflineError):
            socket.create_connection(server, timeout=5)
    assert not is_offline()
    socket.create_connection(server, timeout=5).close()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no sockets of its own")
def test_sockets_of_this_machine_are_allowed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket is limited to 107 characters
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as ours, offline():
        listening.bind("s")
        listening.listen()
        ours.connect("s")
