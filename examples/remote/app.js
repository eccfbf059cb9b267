// A mediasoup application that knows nothing of Mafalda: two workers, a pipe between them, a message through it.
//
//     node examples/remote/app.js                                        its workers run here
//     MEDIASOUP_WORKER_BIN=$(which mafalda-worker) MAFALDA_URL=ws://127.0.0.1:8080 MAFALDA_TOKEN=... \
//       node examples/remote/app.js                                      they run on media servers
'use strict';

const mediasoup = require('mediasoup');

async function main() {
  const workers = [await mediasoup.createWorker(), await mediasoup.createWorker()];
  for (const worker of workers) {
    worker.on('died', (error) => console.log(`worker ${worker.pid} died: ${error.message}`));
  }
  const [near, far] = await Promise.all(workers.map((worker) => worker.createRouter({ mediaCodecs: [] })));

  const source = await near.createDirectTransport();
  const producer = await source.produceData({ label: 'greetings' });
  await near.pipeToRouter({ dataProducerId: producer.id, router: far, enableSctp: true });

  const sink = await far.createDirectTransport();
  const consumer = await sink.consumeData({ dataProducerId: producer.id });
  const heard = new Promise((resolve) => consumer.once('message', (message) => resolve(message.toString())));
  // A pipe says nothing of when it is up, and what comes before is lost.
  const again = setInterval(() => producer.send('hello from the other worker'), 50);
  console.log(`heard: ${await heard}`);
  clearInterval(again);

  const listenInfos = [{ protocol: 'udp', ip: '0.0.0.0', announcedAddress: '203.0.113.1' }];
  const transport = await near.createWebRtcTransport({ listenInfos });
  const [candidate] = transport.iceCandidates;
  console.log(`clients are told to send to ${candidate.address}, port ${candidate.port}`);
  for (const worker of workers) {
    worker.close();
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
