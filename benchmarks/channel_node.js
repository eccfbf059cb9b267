// The channel benchmark's side of Node's mediasoup: reads the scenario from a file, prints its figures as JSON.
// The same steps, in the same order, as channel_ours.py.
'use strict';

const fs = require('node:fs');
const { createRequire } = require('node:module');
const path = require('node:path');

const tests = path.join(__dirname, '..', 'tests', 'node', 'package.json');
const mediasoup = createRequire(tests)('mediasoup');

const scenario = JSON.parse(fs.readFileSync(process.argv[2]));
const texts = scenario.capabilities.map((caps) => JSON.stringify(caps));
const consumers = [];
let router;
let server;
const producers = [];

const now = () => performance.now() / 1000;

function cpuSeconds() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

function residentKiB() {
  global.gc();
  return process.memoryUsage.rss() / 1024;
}

async function transports(count) {
  const made = [];
  for (let i = 0; i < count; i++) {
    const transport = await router.createWebRtcTransport({ webRtcServer: server });
    made.push([transport, JSON.parse(texts[i % texts.length])]);
  }
  return made;
}

async function consume(endpoints) {
  const started = now();
  const made = [];
  for (const [transport, rtpCapabilities] of endpoints) {
    made.push(...await Promise.all(producers.map((producer) =>
      transport.consume({ producerId: producer.id, rtpCapabilities }))));
  }
  const seconds = now() - started;
  consumers.push(...made);
  return made.length / seconds;
}

async function memory() {
  const endpoints = await transports(scenario.memoryEndpoints);
  const before = residentKiB();
  await consume(endpoints);
  return ((residentKiB() - before) * 1000) / (endpoints.length * producers.length);
}

async function toggle(consumer, times) {
  for (let i = 0; i < Math.floor(times / 2); i++) {
    await consumer.pause();
    await consumer.resume();
  }
}

async function requests(inFlight, total) {
  const cpu = cpuSeconds();
  const started = now();
  await Promise.all(consumers.slice(0, inFlight).map((consumer) =>
    toggle(consumer, Math.floor(total / inFlight))));
  return [total / (now() - started), ((cpuSeconds() - cpu) * 10_000) / total];
}

async function notifications() {
  const expected = 2 * scenario.pauses * consumers.length;
  let notified = 0;
  let done;
  const allNotified = new Promise((resolve) => { done = resolve; });
  const count = () => {
    if (++notified === expected) {
      done();
    }
  };
  for (const consumer of consumers) {
    consumer.on('producerpause', count);
    consumer.on('producerresume', count);
  }
  const cpu = cpuSeconds();
  const started = now();
  for (let i = 0; i < scenario.pauses; i++) {
    await Promise.all(producers.map((producer) => producer.pause()));
    await Promise.all(producers.map((producer) => producer.resume()));
  }
  await allNotified;
  return [expected / (now() - started), ((cpuSeconds() - cpu) * 10_000) / expected];
}

async function main() {
  const worker = await mediasoup.createWorker({ workerBin: scenario.workerBin, logLevel: 'none' });
  router = await worker.createRouter({ mediaCodecs: scenario.mediaCodecs });
  server = await worker.createWebRtcServer({ listenInfos: [{ protocol: 'udp', ip: '127.0.0.1' }] });
  for (const { kind, rtpParameters } of scenario.producers) {
    const transport = await router.createWebRtcTransport({ webRtcServer: server });
    producers.push(await transport.produce({ kind, rtpParameters }));
  }
  const figures = {};
  figures.consumers_created = await consume(await transports(scenario.endpoints));
  figures.consumers_created_again = await consume(await transports(scenario.endpoints));
  figures.memory = await memory();
  await requests(1, Math.floor(scenario.requests / 4)); // warm up
  [figures.sequential, figures.cpu] = await requests(1, scenario.requests);
  [figures.in_flight, figures.cpu_in_flight] = await requests(scenario.inFlight, scenario.requestsInFlight);
  [figures.notifications, figures.cpu_notifications] = await notifications();
  figures.version = process.version;
  worker.close();
  process.stdout.write(`${JSON.stringify(figures)}\n`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
