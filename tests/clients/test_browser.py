"""Chromium as a client: a page with the client of browser/client.mjs, which knows the documented shapes only."""

import functools
import http.server
import pathlib
import threading

import pytest

PAGES = pathlib.Path(__file__).resolve().parent / "browser"


class Pages(http.server.SimpleHTTPRequestHandler):
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def pages():
    """The url of browser/, on a server of its own: another origin than Stentor's."""
    handler = functools.partial(Pages, directory=str(PAGES))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as pages:
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{pages.server_port}"
        pages.shutdown()


def test_a_page_of_the_server_itself(server, run_node, chromium):
    run_node("browser/drive.mjs", chromium, "channels", server.url("/", "http"), server.url("/ws"))
    assert server.wait_for_counter("connections_closed", 2)["close_timeout"] == 0


def test_a_page_of_another_origin(server, run_node, chromium, pages):
    run_node("browser/drive.mjs", chromium, "channels", f"{pages}/client.html", server.url("/ws"))


def test_the_index_page_keeps_its_promises(server, run_node, chromium):
    run_node("browser/drive.mjs", chromium, "look", server.url("/", "http"), "")


def test_an_open_tab_answers_heartbeats(start_server, run_node, chromium, pages):
    server = start_server("--heartbeat", "500ms")
    run_node("browser/drive.mjs", chromium, "quiet", f"{pages}/client.html", server.url())
    counters = server.counters()
    assert counters["heartbeats_sent"] >= 5
    assert counters["no_heartbeat"] == 0


def test_a_shutdown_reaches_the_page(start_server, node, chromium, pages):
    server = start_server("--shards", "2")
    with node("browser/drive.mjs", chromium, "shutdown", f"{pages}/client.html", server.url()) as page:
        transcript = [page.stdout.readline()]
        while transcript[-1] not in ("", "ready\n"):
            transcript.append(page.stdout.readline())
        server.terminate()
        output, _ = page.communicate(timeout=30)
        assert page.returncode == 0, "".join(transcript) + output
    assert server.stop() == 0
