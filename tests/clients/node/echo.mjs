// Usage: echo.mjs URL. Text and binary, of all lengths, whole and in fragments, with pings between.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Client, within } from './client.mjs';

const client = await Client.open(process.argv[2], { maxPayload: 0 });
const { socket } = client;

for (const length of [0, 1, 125, 126, 127, 65_535, 65_536]) {
  const text = 'x'.repeat(length);
  socket.send(text);
  assert.equal(await client.receive(), text);
  const bytes = Buffer.alloc(length, 0xff);
  socket.send(bytes);
  assert.deepEqual(await client.receive(), bytes);
}

// A character lies across the fragments, and a ping between them.
const owl = Buffer.from('🦉');
socket.send(owl.subarray(0, 1), { fin: false, binary: false });
socket.ping('between');
const [between] = await within('a pong', once(socket, 'pong'));
assert.equal(between.toString(), 'between');
socket.send(owl.subarray(1, 3), { fin: false });
socket.send(Buffer.alloc(0), { fin: false });
socket.send(owl.subarray(3), { fin: true });
assert.equal(await client.receive(), '🦉');

socket.send(Buffer.from([0]), { fin: false, binary: true });
socket.send(Buffer.from([255]), { fin: true });
assert.deepEqual(await client.receive(), Buffer.from([0, 255]));

// All at once: what comes back keeps its order.
const many = Array.from({ length: 1000 }, (_, number) => (number % 2 ? `${number}` : Buffer.from(`${number}`)));
for (const message of many) socket.send(message);
for (const message of many) assert.deepEqual(await client.receive(), message);

for (const payload of ['', 'p', 'x'.repeat(125)]) {
  socket.ping(payload);
  const [pong] = await within('a pong', once(socket, 'pong'));
  assert.equal(pong.toString(), payload);
}
await client.close(1000);
