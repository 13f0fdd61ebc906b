// Usage: shutdown.mjs URL COUNT. Says `ready` with COUNT subscribed clients, and waits for the end of the server.
import { Client } from './client.mjs';

const [url, count] = process.argv.slice(2);
const clients = await Promise.all(Array.from({ length: Number(count) }, () => Client.open(url)));
await Promise.all(clients.map((client) => client.subscribe('news')));
console.log('ready');
await Promise.all(clients.map((client) => client.expectClose(1001, 'shutdown')));
