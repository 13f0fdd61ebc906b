"""The Python library `websockets` as a client."""

import asyncio
import contextlib
import json
import signal
import urllib.request

import pytest
from websockets.asyncio.client import connect as websockets_connect
from websockets.client import backoff
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_sync

PATIENCE = 10
MESSAGE_BYTES_MAX = 64 << 10


def connect(url, **options):
    return websockets_connect(url, proxy=None, **options)


async def receive_text(client):
    return await asyncio.wait_for(client.recv(), PATIENCE)


async def receive(client):
    return json.loads(await receive_text(client))


async def send(client, **message):
    await client.send(json.dumps(message))


async def ask(client, **message):
    await send(client, **message)
    return await receive(client)


def confirmation(channel, kind="subscription_confirm", **more):
    return {"channel": "system", "data": {"type": kind, "channel": channel, **more}}


async def subscribe(client, channel):
    assert await ask(client, action="subscribe", channel=channel) == confirmation(channel)


async def expect_close(client):
    """What the server's Close frame said: code and reason."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await receive_text(client)
    assert closed.value.rcvd is not None, "the connection ended without a Close frame"
    return closed.value.rcvd.code, closed.value.rcvd.reason


# Channels


async def test_the_life_of_a_subscription(server):
    async with connect(server.url("/ws")) as reader, connect(server.url("/any/other/path?x=1")) as writer:
        await subscribe(reader, "news")
        await send(writer, action="publish", channel="news", data={"title": "hello"})
        assert await receive(reader) == {"channel": "news", "data": {"title": "hello"}}
        left = await ask(reader, action="unsubscribe", channel="news")
        assert left == confirmation("news", "unsubscription_confirm")
        # The acknowledgement puts this publication before the next subscription: seen at all, it comes first.
        await ask(writer, action="publish", channel="news", data="unseen", id=1)
        await subscribe(reader, "news")
        await send(writer, action="publish", channel="news", data="seen")
        assert await receive(reader) == {"channel": "news", "data": "seen"}


async def test_subscribing_twice_is_confirmed_twice_and_delivers_once(server):
    async with connect(server.url()) as client:
        await subscribe(client, "a")
        await subscribe(client, "a")
        for number in (1, 2):
            await send(client, action="publish", channel="a", data=number)
        assert [(await receive(client))["data"] for _ in range(2)] == [1, 2]


async def test_a_publication_reaches_its_channel_only(server):
    async with connect(server.url()) as first, connect(server.url()) as second, connect(server.url()) as writer:
        for channel in ("chat:1", "both"):
            await subscribe(first, channel)
        for channel in ("chat:2", "both"):
            await subscribe(second, channel)
        for channel in ("chat:1", "chat:2"):
            await ask(writer, action="publish", channel=channel, data=channel, id=channel)
        assert (await receive(first))["data"] == "chat:1"
        assert (await receive(second))["data"] == "chat:2"
        await send(writer, action="publish", channel="both", data="end")
        assert (await receive(first))["data"] == (await receive(second))["data"] == "end"


async def test_a_publisher_hears_itself_unless_it_says_no(server):
    async with connect(server.url()) as client, connect(server.url()) as other:
        await subscribe(client, "c")
        await subscribe(other, "c")
        await send(client, action="publish", channel="c", data=1)
        await send(client, action="publish", channel="c", data=2, echo=False)
        await send(client, action="publish", channel="c", data=3, echo=True)
        assert [(await receive(client))["data"] for _ in range(2)] == [1, 3]
        assert [(await receive(other))["data"] for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    "data",
    [
        '{ "b" : 1.50e+3,\t"a":[ ],"b":0.1000 }',
        '"\\u00e9 é \\/ 🦉 \\ud83e\\udd89"',
        "-0.0",
        "123456789012345678901234567890",
        "null",
        "[" * 20 + "]" * 20,
    ],
)
async def test_data_passes_byte_for_byte(server, data):
    async with connect(server.url()) as client:
        await subscribe(client, "raw")
        await client.send(f'{{"data": {data} ,"channel":"raw","action":"publish"}}')
        assert await receive_text(client) == f'{{"channel":"raw","data":{data}}}'


async def test_channel_names_are_any_text_of_255_bytes(server):
    async with connect(server.url()) as client:
        for channel in ("x" * 255, "é" * 127, "with \"quotes\" and \\", "a:b:c", "日本語:部屋", " "):
            await subscribe(client, channel)
            assert (await ask(client, action="publish", channel=channel, data=1))["channel"] == channel


async def test_a_frame_may_hold_several_messages(server):
    lines = [
        {"action": "subscribe", "channel": "lines"},
        {"action": "publish", "channel": "lines", "data": [1, 2]},
        {"type": "ping", "id": "last"},
    ]
    async with connect(server.url()) as client:
        await client.send("\n".join(map(json.dumps, lines)))
        received = [await receive(client) for _ in lines]
        # Only what concerns a channel is in order: where it is at home on another shard, the pong is faster.
        received.remove({"type": "pong", "id": "last", "requestId": "last"})
        assert received == [confirmation("lines"), {"channel": "lines", "data": [1, 2]}]


# Ids, acknowledgements, errors


@pytest.mark.parametrize("request_id", ["a", "x" * 64, 'q"\n', 0, -7, 9007199254740993])
async def test_replies_carry_the_id_of_the_request(server, request_id):
    async with connect(server.url()) as client:
        reply = await ask(client, action="subscribe", channel="ids", id=request_id)
        assert reply == confirmation("ids", requestId=request_id)
        reply = await ask(client, action="publish", channel="ids", data=1, id=request_id, echo=False)
        assert reply == {"type": "ack", "requestId": request_id, "channel": "ids"}
        reply = await ask(client, action="publish", channel="ids", data=1, id=request_id, messageId="m-1", echo=False)
        assert reply == {"type": "ack", "messageId": "m-1", "requestId": request_id, "channel": "ids"}
        reply = await ask(client, action="unsubscribe", channel="ids", id=request_id)
        assert reply == confirmation("ids", "unsubscription_confirm", requestId=request_id)
        reply = await ask(client, action="unsubscribe", channel="ids", id=request_id)
        assert (reply["data"]["code"], reply["data"]["requestId"]) == ("not_subscribed", request_id)


async def test_a_message_id_alone_asks_for_an_acknowledgement(server):
    async with connect(server.url()) as client:
        reply = await ask(client, action="publish", channel="c", data=1, messageId="0b7f")
        assert reply == {"type": "ack", "messageId": "0b7f", "channel": "c"}


@pytest.mark.parametrize(
    ("text", "code", "channel"),
    [
        ("", "invalid_json", None),
        ("hello", "invalid_json", None),
        ('{"action":"subscribe","channel":"a"', "invalid_json", None),
        ('{"action":"subscribe","channel":"a",}', "invalid_json", None),
        ('{"action":"publish","channel":"a","data":' + "[" * 1000 + "]" * 1000 + "}", "invalid_json", None),
        ("[1]", "invalid_message", None),
        ("{}", "invalid_message", None),
        ('{"action":"subscribe"}', "invalid_message", None),
        ('{"action":"subscribe","channel":7}', "invalid_message", None),
        ('{"action":"publish","channel":"a"}', "invalid_message", "a"),
        ('{"action":"subscribe","channel":"a","id":{}}', "invalid_message", "a"),
        ('{"action":"subscribe","channel":"a","id":"' + "x" * 65 + '"}', "invalid_message", "a"),
        ('{"action":"subscribe","channel":"a","channel":"b"}', "invalid_message", None),
        ('{"action":"dance","channel":"a"}', "unknown_action", "a"),
        ('{"action":"unsubscribe","channel":"a"}', "not_subscribed", "a"),
        ('{"action":"subscribe","channel":"system"}', "channel_reserved", "system"),
        ('{"action":"publish","channel":"system","data":1}', "channel_reserved", "system"),
        ('{"action":"subscribe","channel":""}', "channel_invalid", ""),
        ('{"action":"subscribe","channel":"a\\u0000b"}', "channel_invalid", "a\x00b"),
        ('{"action":"publish","channel":"' + "é" * 128 + '","data":1}', "channel_invalid", None),
    ],
)
async def test_a_refused_action_says_why_and_the_connection_goes_on(server, text, code, channel):
    async with connect(server.url()) as client:
        await client.send(text)
        error = await receive(client)
        message = error["data"].pop("message")
        expected = {"type": "error", "code": code}
        if channel is not None:
            expected["channel"] = channel
        assert error == {"channel": "system", "data": expected}
        assert isinstance(message, str) and message
        await subscribe(client, "afterwards")


async def test_a_refused_type_is_answered_in_its_family(server):
    async with connect(server.url()) as client:
        reply = await ask(client, type="dance", id="d1")
        assert {key: reply[key] for key in ("type", "requestId", "code")} == {
            "type": "error",
            "requestId": "d1",
            "code": "no_route",
        }
        assert reply["id"] and isinstance(reply["timestamp"], int) and "dance" in reply["error"]


async def test_subscriptions_of_a_connection_are_limited(start_server):
    server = start_server("--set", "limits.max_subscriptions=2")
    async with connect(server.url()) as client:
        await subscribe(client, "a")
        await subscribe(client, "b")
        refused = await ask(client, action="subscribe", channel="c", id=3)
        assert (refused["data"]["code"], refused["data"]["requestId"]) == ("too_many_subscriptions", 3)
        await subscribe(client, "a")
        await ask(client, action="unsubscribe", channel="a")
        await subscribe(client, "c")


async def test_publications_of_a_connection_are_limited(start_server):
    server = start_server("--set", "limits.publish_rate=1", "--set", "limits.publish_burst=2")
    async with connect(server.url()) as client:
        replies = [await ask(client, action="publish", channel="c", data=1, id=number) for number in range(10)]
        assert [reply["type"] for reply in replies[:2]] == ["ack", "ack"]
        assert [reply["data"]["code"] for reply in replies if "data" in reply][:1] == ["rate_limited"]


# Subprotocols


async def test_without_a_subprotocol_nothing_comes_unasked(server):
    async with connect(server.url()) as client:
        assert client.subprotocol is None
        assert await ask(client, type="ping") == {"type": "pong"}


async def test_a_spoken_subprotocol_gets_a_welcome(server):
    offered = ["unknown", "stentor.v1.json"]
    async with connect(server.url(), subprotocols=offered) as one, connect(server.url(), subprotocols=offered) as two:
        welcomes = [await receive(one), await receive(two)]
        for client, welcome in zip((one, two), welcomes):
            assert client.subprotocol == "stentor.v1.json"
            assert set(welcome) == {"type", "id", "connectionId", "sessionId", "version", "heartbeat", "maxMessageSize"}
            assert (welcome["type"], welcome["version"]) == ("welcome", "1.2")
            assert (welcome["heartbeat"], welcome["maxMessageSize"]) == (25000, MESSAGE_BYTES_MAX)
            await subscribe(client, "news")
        ids = [welcome[name] for welcome in welcomes for name in ("connectionId", "sessionId")]
        # 128 bits in hexadecimal, none of them twice.
        assert len(set(ids)) == 4 and all(len(identity) >= 32 for identity in ids)


async def test_an_unknown_subprotocol_is_not_selected(server):
    async with connect(server.url(), subprotocols=["graphql-ws", "Stentor.V1.json"]) as client:
        assert client.subprotocol is None
        assert await ask(client, type="ping") == {"type": "pong"}


# Messages of every size and cut


async def test_a_message_of_the_limit_passes_and_one_more_byte_does_not(server):
    start, end = '{"action":"publish","channel":"big","data":"', '"}'
    room = MESSAGE_BYTES_MAX - len(start) - len(end)
    async with connect(server.url()) as reader, connect(server.url()) as writer:
        await subscribe(reader, "big")
        await writer.send(start + "x" * room + end)
        assert await receive(reader) == {"channel": "big", "data": "x" * room}
        await writer.send(start + "y" * (room + 1) + end)
        assert await expect_close(writer) == (1009, "too_big")
        # Nobody else is touched.
        await send(reader, action="publish", channel="big", data="next")
        assert await receive(reader) == {"channel": "big", "data": "next"}


async def test_messages_of_megabytes(start_server):
    server = start_server("--shards", "2", "--echo", "/echo", "--max-message-size", "8MiB")
    text = "0123456789abcdeé" * (4 << 16)
    async with connect(server.url(), max_size=None) as reader, connect(server.url()) as writer:
        await subscribe(reader, "big")
        for number in range(3):
            # Each is several times as large as a reader's send queue may be.
            await send(writer, action="publish", channel="big", data=[number, text])
            assert await receive(reader) == {"channel": "big", "data": [number, text]}
    async with connect(server.url("/echo"), max_size=None) as client:
        for message in (text, b"\x00\xff" * (4 << 20)):
            await client.send(message)
            assert await receive_text(client) == message


@pytest.mark.parametrize(
    "message",
    ["", "é" * 1000, b"", bytes(range(256)), "x" * 125, "x" * 126, "x" * 65535, b"x" * 65536],
    ids=lambda message: f"{type(message).__name__}-{len(message)}",
)
async def test_an_echo_has_the_type_and_bytes_of_its_message(server, message):
    async with connect(server.url("/echo")) as client:
        await client.send(message)
        assert await receive_text(client) == message


async def test_fragments_with_pings_between_them(server):
    message = json.dumps({"action": "publish", "channel": "cut", "data": "één 🦉"}, ensure_ascii=False).encode()
    pongs = []
    async with connect(server.url()) as client:
        await subscribe(client, "cut")

        async def one_byte_at_a_time():
            for index in range(len(message)):
                # Also inside of a character.
                yield message[index : index + 1]
                if index % 8 == 0:
                    pongs.append(await client.ping())

        await client.send(one_byte_at_a_time(), text=True)
        assert await receive(client) == {"channel": "cut", "data": "één 🦉"}
        await asyncio.wait_for(asyncio.gather(*pongs), PATIENCE)
        assert len(pongs) >= 8


async def test_fragments_of_an_echo(server):
    async with connect(server.url("/echo")) as client:
        await client.send([b"\x00" * 30000, b"", b"\x01" * 30000])
        assert await receive_text(client) == b"\x00" * 30000 + b"\x01" * 30000
        await client.send(["a", "", "b"])
        assert await receive_text(client) == "ab"


# Pings


async def test_pings_of_the_protocol_and_of_the_client(server):
    async with connect(server.url(), ping_interval=None) as client:
        for payload in (b"", b"payload", b"x" * 125):
            assert await asyncio.wait_for(await client.ping(payload), PATIENCE) >= 0
        assert await ask(client, type="ping", id="p", timestamp=1700000000000) == {
            "type": "pong",
            "id": "p",
            "requestId": "p",
            "timestamp": 1700000000000,
        }
        await client.pong(b"unasked")
        assert await ask(client, type="ping") == {"type": "pong"}


async def test_the_librarys_own_keepalive(server):
    async with connect(server.url(), ping_interval=0.05, ping_timeout=5) as client:
        await subscribe(client, "c")
        async with asyncio.timeout(PATIENCE):
            # Its `latency` is that of the latest pong; 0 until there is one.
            while client.latency == 0:
                await asyncio.sleep(0.01)
        assert await ask(client, type="ping") == {"type": "pong"}


async def test_a_silent_client_answers_heartbeats_and_stays(start_server):
    server = start_server("--heartbeat", "200ms")
    async with connect(server.url(), ping_interval=None) as client:
        await subscribe(client, "quiet")
        counters = await asyncio.to_thread(server.wait_for_counter, "heartbeats_sent", 5)
        assert counters["no_heartbeat"] == 0
        assert await ask(client, type="ping") == {"type": "pong"}


# Ends


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "gone"), (3000, "é" * 61), (4999, "bye")])
async def test_a_close_is_answered_with_its_code(server, code, reason):
    async with connect(server.url()) as client:
        await subscribe(client, "c")
        await client.close(code, reason)
        assert client.close_code == code
    await asyncio.to_thread(server.wait_for_counter, "connections_closed", 1)


@pytest.mark.parametrize(
    ("message", "as_text", "code", "reason"),
    [
        (b"binary", False, 1003, "unsupported_data"),
        (b'{"type":"ping","id":"\xff"}', True, 1007, "utf8"),
        (b"\xc3", True, 1007, "utf8"),
    ],
)
async def test_a_breach_closes_with_its_code(server, message, as_text, code, reason):
    async with connect(server.url()) as client:
        await client.send(message, text=as_text)
        assert await expect_close(client) == (code, reason)


async def test_refused_messages_without_end_close_with_1008(start_server):
    server = start_server("--set", "limits.max_errors=5")
    async with connect(server.url()) as client:
        for _ in range(5):
            await client.send("no json")
        assert await expect_close(client) == (1008, "too_many_errors")


async def test_reserved_paths_are_no_websocket(server):
    for path in ("/health", "/metrics", "/client.js", "/api/x", "/admin", "/connection/websocket", "/app/key"):
        with pytest.raises(Exception) as refused:
            async with connect(server.url(path)):
                pass
        assert refused.value.response.status_code // 100 == 4, path


async def test_a_shutdown_is_1001(start_server):
    server = start_server("--shards", "2", "--echo", "/echo")
    async with connect(server.url()) as client, connect(server.url("/echo")) as echo:
        await subscribe(client, "c")
        server.terminate()
        assert await expect_close(client) == (1001, "shutdown")
        assert await expect_close(echo) == (1001, "shutdown")
    assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0


async def test_sigint_is_a_shutdown_as_well(start_server):
    server = start_server()
    async with connect(server.url()) as client:
        await subscribe(client, "c")
        server.terminate(signal.SIGINT)
        assert await expect_close(client) == (1001, "shutdown")
    assert await asyncio.to_thread(server.process.wait, PATIENCE) == 0


async def test_the_library_reconnects_to_a_restarted_server(start_server, monkeypatch):
    # The library waits seconds before it comes back; here it need not.
    quick = {"initial_delay": 0.05, "min_delay": 0.05, "max_delay": 0.2}
    monkeypatch.setattr("websockets.asyncio.client.backoff", lambda: backoff(**quick))
    server = start_server()
    lives = 0
    async for client in connect(server.url()):
        with contextlib.suppress(ConnectionClosed):
            await subscribe(client, "c")
            lives += 1
            if lives == 3:
                assert (await ask(client, action="publish", channel="c", data="back"))["data"] == "back"
                break
            stopping = asyncio.create_task(asyncio.to_thread(server.stop))
            assert await expect_close(client) == (1001, "shutdown")
            assert await stopping == 0
            server = start_server(port=server.port)
    await client.close()


async def test_a_lost_connection_takes_its_subscriptions_along(server):
    async with connect(server.url()) as witness:
        await subscribe(witness, "c")
        lost = await connect(server.url())
        await subscribe(lost, "c")
        lost.transport.abort()
        await asyncio.to_thread(server.wait_for_counter, "connections_closed", 1)
        await send(witness, action="publish", channel="c", data=1)
        assert (await receive(witness))["data"] == 1
        assert (await asyncio.to_thread(server.counters))["deliveries"] == 1


# Many at once


def test_the_blocking_client(server):
    with connect_sync(server.url(), proxy=None) as client:
        client.send('{"action":"subscribe","channel":"sync"}')
        assert json.loads(client.recv(PATIENCE)) == confirmation("sync")
        client.send('{"action":"publish","channel":"sync","data":true}')
        assert client.recv(PATIENCE) == '{"channel":"sync","data":true}'
        assert client.ping(b"p").wait(PATIENCE)
    assert client.protocol.close_code == 1000


async def test_200_clients_publish_at_once_and_see_one_order(server):
    clients, publications = 200, 2

    async def take_part(number, everybody_is_there):
        async with connect(server.url(), ping_interval=None, max_queue=None) as client:
            await subscribe(client, "crowd")
            await everybody_is_there.wait()
            for count in range(publications):
                await send(client, action="publish", channel="crowd", data=[number, count])
            return [tuple((await receive(client))["data"]) for _ in range(clients * publications)]

    everybody_is_there = asyncio.Barrier(clients)
    async with asyncio.timeout(40):
        seen = await asyncio.gather(*(take_part(number, everybody_is_there) for number in range(clients)))
    assert sorted(seen[0]) == [(number, count) for number in range(clients) for count in range(publications)]
    assert all(order == seen[0] for order in seen)
    # One publisher's publications keep their order.
    assert all(seen[0].index((number, 0)) < seen[0].index((number, 1)) for number in range(clients))


async def test_health_answers_meanwhile(server):
    def health():
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(server.url("/health", "http"), timeout=PATIENCE) as response:
            return response.status, json.load(response)["status"]

    async with connect(server.url()) as client:
        await subscribe(client, "c")
        assert await asyncio.to_thread(health) == (200, "ok")
