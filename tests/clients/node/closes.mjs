// Usage: closes.mjs URL. Every way a client or the server may end a connection.
import { Client } from './client.mjs';

const url = process.argv[2];

for (const [code, reason] of [[1000, ''], [1000, 'done'], [3000, 'é'.repeat(61)], [4999, 'bye']]) {
  const client = await Client.open(url);
  await client.subscribe('news');
  client.socket.close(code, reason);
  await client.expectClose(code, '');
}

// No code at all is answered with none.
const silent = await Client.open(url);
silent.socket.close();
await silent.expectClose(1005, '');

const binary = await Client.open(url);
binary.socket.send(Buffer.from([1]));
await binary.expectClose(1003, 'unsupported_data');

const broken = await Client.open(url);
broken.socket.send(Buffer.from([0xc3, 0x28]), { binary: false });
await broken.expectClose(1007, 'utf8');

const long = await Client.open(url);
long.socket.send('x'.repeat((64 << 10) + 1));
await long.expectClose(1009, 'too_big');

// The network takes it away without a word: the next one has nothing of it.
const lost = await Client.open(url);
await lost.subscribe('news');
lost.socket.terminate();
await lost.expectClose(1006, '');
const next = await Client.open(url);
next.send({ type: 'ping' });
await next.expect('{"type":"pong"}');
await next.close(1000);
