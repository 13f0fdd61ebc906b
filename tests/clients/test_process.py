"""The server as a process: what an operator's tools see of it."""

from server import Server


def test_a_stop_in_the_moment_of_the_start_is_orderly():
    # Whoever reads the banner may tell the server to stop: it must have taken its signals by then.
    assert [Server().stop() for _ in range(50)] == [0] * 50
