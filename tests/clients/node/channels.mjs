// Usage: channels.mjs URL. Subscribe, publish, receive, unsubscribe, errors, subprotocols.
import assert from 'node:assert/strict';
import { Client } from './client.mjs';

const url = process.argv[2];
const [reader, writer] = await Promise.all([Client.open(url), Client.open(url)]);

await reader.subscribe('news');
writer.send({ action: 'publish', channel: 'news', data: { title: 'hello' } });
await reader.expect('{"channel":"news","data":{"title":"hello"}}');

reader.send({ action: 'publish', channel: 'news', data: 1, echo: false, id: 'own' });
await reader.expect({ type: 'ack', requestId: 'own', channel: 'news' });
reader.send({ action: 'publish', channel: 'news', data: 2 });
await reader.expect({ channel: 'news', data: 2 });

reader.send({ action: 'unsubscribe', channel: 'news', id: 5 });
await reader.expect({
  channel: 'system',
  data: { type: 'unsubscription_confirm', channel: 'news', requestId: 5 },
});
writer.send({ action: 'publish', channel: 'news', data: 'unseen', id: 6 });
await writer.expect({ type: 'ack', requestId: 6, channel: 'news' });
await reader.subscribe('news');
writer.send({ action: 'publish', channel: 'news', data: 'seen' });
await reader.expect({ channel: 'news', data: 'seen' });

// Refused, in words; and the connection goes on.
reader.socket.send('{"action":"subscribe"');
const error = JSON.parse(await reader.receive());
assert.equal(error.channel, 'system');
assert.equal(error.data.type, 'error');
assert.equal(error.data.code, 'invalid_json');
assert.equal(typeof error.data.message, 'string');
reader.send({ type: 'ping' });
await reader.expect('{"type":"pong"}');
assert.equal(reader.socket.protocol, '');

const welcomed = await Client.open(url, ['unknown', 'stentor.v1.json']);
assert.equal(welcomed.socket.protocol, 'stentor.v1.json');
const welcome = JSON.parse(await welcomed.receive());
assert.equal(welcome.type, 'welcome');
assert.equal(welcome.version, '1.2');

// The server selects none of these, and this library, like a browser, insists on one.
await assert.rejects(Client.open(url, ['unknown']), /Server sent no subprotocol/);

await Promise.all([reader.close(1000), writer.close(1000), welcomed.close(1000)]);
