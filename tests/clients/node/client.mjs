// A `ws` client whose messages and end can be awaited, for the scripts beside this file.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import WebSocket from 'ws';

const PATIENCE_MS = 10_000;

export class Client {
  /** Connected, and not a message of it lost. */
  static async open(url, ...options) {
    const client = new Client(new WebSocket(url, ...options));
    await once(client.socket, 'open');
    return client;
  }

  constructor(socket) {
    this.socket = socket;
    this.unread = [];
    this.readers = [];
    socket.on('message', (data, isBinary) => {
      const message = isBinary ? data : data.toString();
      const reader = this.readers.shift();
      if (reader) reader(message);
      else this.unread.push(message);
    });
    /** Of the server's Close frame. */
    this.closed = once(socket, 'close').then(([code, reason]) => ({ code, reason: reason.toString() }));
    // Whoever awaits `closed` hears of the error there; it must not end the process before.
    this.closed.catch(() => {});
  }

  /** The next message: a string, or a Buffer if it was binary. */
  receive() {
    if (this.unread.length > 0) return Promise.resolve(this.unread.shift());
    return within('a message', new Promise((resolve) => this.readers.push(resolve)));
  }

  /** The next message must be this text, or equal this value as JSON. */
  async expect(expected) {
    const message = await this.receive();
    if (typeof expected === 'string') assert.equal(message, expected);
    else assert.deepEqual(JSON.parse(message), expected);
  }

  send(message) {
    this.socket.send(JSON.stringify(message));
  }

  async subscribe(channel) {
    this.send({ action: 'subscribe', channel });
    await this.expect({ channel: 'system', data: { type: 'subscription_confirm', channel } });
  }

  async expectClose(code, reason) {
    assert.deepEqual(await within('the close', this.closed), { code, reason });
  }

  async close(code, reason) {
    this.socket.close(code, reason);
    await within('the close', this.closed);
  }
}

export async function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come in ${PATIENCE_MS} ms`)), PATIENCE_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
