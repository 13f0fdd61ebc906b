"""The Node library `ws` as a client: the scripts in node/, each a scenario that ends with 0 if all of it held."""


def test_channels(server, run_node):
    run_node("node/channels.mjs", server.url("/ws"))


def test_echo(server, run_node):
    run_node("node/echo.mjs", server.url("/echo"))


def test_closes(server, run_node):
    run_node("node/closes.mjs", server.url("/ws"))
    assert server.wait_for_counter("connections_closed", 10)["close_timeout"] == 0


def test_shutdown(start_server, node):
    server = start_server("--shards", "2")
    with node("node/shutdown.mjs", server.url(), 50) as client:
        assert client.stdout.readline() == "ready\n"
        server.terminate()
        output, _ = client.communicate(timeout=15)
        assert client.returncode == 0, output
    assert server.stop() == 0
