// A client as people write it in a web page. It knows these shapes and nothing else of the protocol:
// subscribe, unsubscribe, publish, the confirmation, the error, a publication, ping and pong.

export class Client {
  constructor(url) {
    /** Publications by channel, confirmations and errors in the order they came, all frames as text. */
    this.publications = {};
    this.confirmed = [];
    this.errors = [];
    this.pongs = 0;
    this.frames = [];
    this.waiting = [];
    this.closed = null;
    this.socket = new WebSocket(url);
    this.socket.onmessage = ({ data }) => {
      this.frames.push(data);
      this.handle(JSON.parse(data));
      this.look();
    };
    this.socket.onopen = () => this.look();
    this.socket.onclose = ({ code, reason, wasClean }) => {
      this.closed = { code, reason, wasClean };
      this.look();
    };
  }

  handle(message) {
    if (message.type === 'pong') {
      this.pongs += 1;
    } else if (message.channel === 'system') {
      switch (message.data.type) {
        case 'subscription_confirm':
          this.confirmed.push(message.data.channel);
          break;
        case 'error':
          this.errors.push(message.data.message);
          break;
      }
    } else {
      (this.publications[message.channel] ??= []).push(message.data);
    }
  }

  subscribe(channel) {
    this.socket.send(JSON.stringify({ action: 'subscribe', channel }));
  }

  unsubscribe(channel) {
    this.socket.send(JSON.stringify({ action: 'unsubscribe', channel }));
  }

  publish(channel, data) {
    this.socket.send(JSON.stringify({ action: 'publish', channel, data }));
  }

  ping() {
    this.socket.send(JSON.stringify({ type: 'ping' }));
  }

  /** Resolves when `condition` holds; it is asked after every event of the socket. */
  until(what, condition) {
    return new Promise((resolve, reject) => {
      const late = () => reject(new Error(`${what} did not come; frames: ${this.frames.join(' ')}`));
      const timer = setTimeout(late, 10_000);
      this.waiting.push({ condition, resolve: () => (clearTimeout(timer), resolve()) });
      this.look();
    });
  }

  look() {
    this.waiting = this.waiting.filter(({ condition, resolve }) => !condition(this) || resolve());
  }
}
