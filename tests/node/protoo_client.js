// Dials URL with protoo-client, joins, and prints each event as a JSON line. Ends when the peer closes for good.
'use strict';

const { Peer, WebSocketTransport } = require('protoo-client');

const transport = new WebSocketTransport(process.argv[2], {
  retry: { retries: 3, factor: 1, minTimeout: 100, maxTimeout: 100 },
});
const peer = new Peer(transport);

function print(event, data = {}) {
  process.stdout.write(`${JSON.stringify({ event, ...data })}\n`);
}

async function join() {
  try {
    const capabilities = await peer.request('getRouterRtpCapabilities');
    const { peers } = await peer.request('join', { displayName: 'node', device: { name: 'node' } });
    print('joined', { codecs: capabilities.codecs.length, peers });
  } catch (error) {
    print('refused', { code: error.code, reason: error.message });
  }
}

peer.on('open', () => {
  print('open');
  join();
});
peer.on('failed', (attempt) => print('failed', { attempt }));
peer.on('disconnected', () => print('disconnected'));
peer.on('close', () => {
  print('close');
  process.exit(0);
});
peer.on('notification', ({ method, data }) => print('notification', { method, data }));
peer.on('request', (request, accept, reject) => {
  print('request', { method: request.method });
  reject(403, 'I do not want to consume');
});
process.stdin.on('data', async (line) => {
  const { method, data } = JSON.parse(line);
  try {
    print('answer', { data: await peer.request(method, data) });
  } catch (error) {
    print('refused', { code: error.code, reason: error.message });
  }
});
process.stdin.on('end', () => process.exit(0));
