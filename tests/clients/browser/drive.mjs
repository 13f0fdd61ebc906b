// Usage: drive.mjs CHROMIUM SCENARIO PAGE SOCKET_URL [SCREENSHOT]
//
// Opens PAGE in Chromium and plays a scenario in it, with the client of client.mjs and no other help. A page that
// does not bring that client gets it injected. Ends with 0 if all held and no script of the page failed.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { chromium } from 'playwright-core';

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--no-proxy-server',
];

// Each function runs in the page, where `Client` is.
const scenarios = {
  /** The life of a subscription, between two tabs' worth of clients. */
  async channels(url) {
    const reader = new Client(url);
    const writer = new Client(url);
    await reader.until('open', ({ socket }) => socket.readyState === WebSocket.OPEN);
    await writer.until('open', ({ socket }) => socket.readyState === WebSocket.OPEN);

    reader.subscribe('chat:lobby');
    await reader.until('the confirmation', ({ confirmed }) => confirmed.length === 1);
    writer.publish('chat:lobby', { text: 'héllo 🦉', nested: [1, null, { a: 0.5 }] });
    writer.publish('elsewhere', 'not for the reader');
    writer.publish('chat:lobby', 'second');
    await reader.until('two publications', ({ publications }) => publications['chat:lobby']?.length === 2);

    // The publisher hears itself when it is subscribed.
    writer.subscribe('chat:lobby');
    await writer.until('the confirmation', ({ confirmed }) => confirmed.length === 1);
    writer.publish('chat:lobby', 'third');
    await writer.until('its own', ({ publications }) => publications['chat:lobby']?.length === 1);
    await reader.until('the third', ({ publications }) => publications['chat:lobby'].length === 3);

    // This client has no word for that confirmation: what comes back tells it nothing, and harms nothing.
    const frames = reader.frames.length;
    reader.unsubscribe('chat:lobby');
    await reader.until('an answer', (client) => client.frames.length === frames + 1);
    writer.publish('chat:lobby', 'fourth');
    await writer.until('the fourth', ({ publications }) => publications['chat:lobby'].length === 2);
    reader.subscribe('chat:lobby');
    await reader.until('the confirmation', ({ confirmed }) => confirmed.length === 2);
    writer.publish('chat:lobby', 'fifth');
    await reader.until('the fifth', ({ publications }) => publications['chat:lobby'].length === 4);

    reader.subscribe('system');
    await reader.until('the error', ({ errors }) => errors.length === 1);
    reader.socket.send('this is not JSON');
    await reader.until('the error', ({ errors }) => errors.length === 2);

    reader.ping();
    await reader.until('the pong', ({ pongs }) => pongs === 1);
    for (const client of [reader, writer]) {
      client.socket.close(1000, 'done');
      await client.until('the close', ({ closed }) => closed);
    }
    const { publications, confirmed, errors, frames: texts, closed } = reader;
    return { publications, confirmed, errors, texts, closed, protocol: reader.socket.protocol };
  },

  /** Nothing is sent for 5 s; the browser answers the server's pings by itself. */
  async quiet(url) {
    const client = new Client(url);
    await client.until('open', ({ socket }) => socket.readyState === WebSocket.OPEN);
    client.subscribe('quiet');
    await client.until('the confirmation', ({ confirmed }) => confirmed.length === 1);
    await new Promise((resolve) => {
      setTimeout(resolve, 5_000);
      client.socket.addEventListener('close', resolve);
    });
    if (client.closed) return client.closed;
    client.publish('quiet', 'still here');
    await client.until('the publication', ({ publications }) => publications.quiet?.length === 1);
    return client.frames;
  },

  /** Says that it is ready, and waits for the end of the server. */
  async shutdown(url) {
    const client = new Client(url);
    await client.until('open', ({ socket }) => socket.readyState === WebSocket.OPEN);
    client.subscribe('news');
    await client.until('the confirmation', ({ confirmed }) => confirmed.length === 1);
    console.info('ready');
    await client.until('the close', ({ closed }) => closed);
    return client.closed;
  },

  /** The page alone: its example does what its comments say, and the console has nothing to complain about. */
  async look() {
    const example = document.querySelector('pre').textContent;
    const promised = example.split('\n').filter((line) => line.startsWith('// ')).map((line) => line.slice(3));
    const printed = [];
    await new Promise((resolve) => {
      const log = (line) => printed.push(line) === promised.length && resolve();
      new Function('console', example)({ log });
      setTimeout(resolve, 10_000);
    });
    return { title: document.title, promised, printed };
  },
};

const checks = {
  channels({ publications, confirmed, errors, texts, closed, protocol }) {
    assert.deepEqual(confirmed, ['chat:lobby', 'chat:lobby']);
    assert.deepEqual(publications, {
      'chat:lobby': [{ text: 'héllo 🦉', nested: [1, null, { a: 0.5 }] }, 'second', 'third', 'fifth'],
    });
    assert.equal(errors.length, 2);
    for (const text of errors) assert.equal(typeof text, 'string');
    assert.equal(texts[0], '{"channel":"system","data":{"type":"subscription_confirm","channel":"chat:lobby"}}');
    assert.equal(texts[2], '{"channel":"chat:lobby","data":"second"}');
    assert.equal(texts.at(-1), '{"type":"pong"}');
    assert.deepEqual(closed, { code: 1000, reason: '', wasClean: true });
    assert.equal(protocol, '');
  },
  quiet(frames) {
    // Pings are no messages: the page sees nothing of them.
    assert.deepEqual(frames, [
      '{"channel":"system","data":{"type":"subscription_confirm","channel":"quiet"}}',
      '{"channel":"quiet","data":"still here"}',
    ]);
  },
  shutdown(closed) {
    assert.deepEqual(closed, { code: 1001, reason: 'shutdown', wasClean: true });
  },
  look({ title, promised, printed }) {
    assert.equal(title, 'Stentor');
    assert.equal(promised.length, 2);
    assert.deepEqual(printed, promised);
  },
};

const [executablePath, scenario, page_url, socket_url, screenshot] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: FLAGS });
try {
  const page = await browser.newPage({ viewport: { width: 1024, height: 768 } });
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(`${error}`));
  page.on('console', (message) => {
    console.log(message.text());
    if (scenario === 'look') complaints.push(`${message.text()} ${message.location().url}`);
  });
  await page.goto(page_url);
  if (!(await page.evaluate(() => 'Client' in window))) {
    const client = await readFile(new URL('client.mjs', import.meta.url), 'utf8');
    await page.addScriptTag({ type: 'module', content: `${client}\nwindow.Client = Client;` });
    await page.waitForFunction(() => 'Client' in window);
  }
  checks[scenario](await page.evaluate(scenarios[scenario], socket_url));
  if (screenshot) await page.screenshot({ path: screenshot, fullPage: true });
  assert.deepEqual(complaints, []);
} finally {
  await browser.close();
}
