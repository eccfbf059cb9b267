// The channel benchmark's side of Node's mediasoup: takes steps from stdin, prints figures as JSON lines.
// The same steps, in the same order, as channel_ours.py. Only benchmarks.remote takes `latency` and `create_worker`,
// and leaves the choice of the worker's binary to the environment.
'use strict';

const fs = require('node:fs');
const { createRequire } = require('node:module');
const path = require('node:path');
const readline = require('node:readline');

const tests = path.join(__dirname, '..', 'tests', 'node', 'package.json');
const mediasoup = createRequire(tests)('mediasoup');

const scenario = JSON.parse(fs.readFileSync(process.argv[2]));
const texts = scenario.capabilities.map((caps) => JSON.stringify(caps));
const settings = { workerBin: scenario.workerBin, logLevel: 'none' };
const consumers = [];
let router;
let server;
const producers = [];

const print = (figures) => process.stdout.write(`${JSON.stringify(figures)}\n`);
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

async function created() {
  return { rate: await consume(await transports(scenario.endpoints)) };
}

async function memory() {
  const endpoints = await transports(scenario.memoryEndpoints);
  const before = residentKiB();
  await consume(endpoints);
  return { memory: ((residentKiB() - before) * 1000) / (endpoints.length * producers.length) };
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
  return { rate: total / (now() - started), cpu: ((cpuSeconds() - cpu) * 10_000) / total };
}

/** Round trips of single requests, in milliseconds. */
async function latency() {
  const [consumer] = consumers;
  const times = [];
  for (let i = 0; i < scenario.requests; i++) {
    const started = performance.now();
    await (i % 2 ? consumer.resume() : consumer.pause());
    times.push(performance.now() - started);
  }
  times.sort((one, other) => one - other);
  return Object.fromEntries([10, 50, 90, 99].map((percent) =>
    [`p${percent}`, times[Math.floor((times.length * percent) / 100)]]));
}

async function createWorker() {
  const started = performance.now();
  const worker = await mediasoup.createWorker(settings);
  const milliseconds = performance.now() - started;
  const closed = new Promise((resolve) => { worker.once('subprocessclose', resolve); });
  worker.close();
  await closed;
  return { milliseconds };
}

let notified = 0;
let expected = 0;
let done;
let listening = false;

function count() {
  if (++notified === expected) {
    done();
  }
}

async function notifications() {
  if (!listening) {
    listening = true;
    for (const consumer of consumers) {
      consumer.on('producerpause', count);
      consumer.on('producerresume', count);
    }
  }
  notified = 0;
  expected = 2 * scenario.pauses * consumers.length;
  const allNotified = new Promise((resolve) => { done = resolve; });
  const cpu = cpuSeconds();
  const started = now();
  for (let i = 0; i < scenario.pauses; i++) {
    await Promise.all(producers.map((producer) => producer.pause()));
    await Promise.all(producers.map((producer) => producer.resume()));
  }
  await allNotified;
  return { rate: expected / (now() - started), cpu: ((cpuSeconds() - cpu) * 10_000) / expected };
}

async function main() {
  const worker = await mediasoup.createWorker(settings);
  router = await worker.createRouter({ mediaCodecs: scenario.mediaCodecs });
  server = await worker.createWebRtcServer({ listenInfos: [{ protocol: 'udp', ip: '127.0.0.1' }] });
  for (const { kind, rtpParameters } of scenario.producers) {
    const transport = await router.createWebRtcTransport({ webRtcServer: server });
    producers.push(await transport.produce({ kind, rtpParameters }));
  }
  const steps = {
    consumers_created: created,
    memory,
    sequential: () => requests(1, scenario.requests),
    in_flight: () => requests(scenario.inFlight, scenario.requestsInFlight),
    notifications,
    latency,
    create_worker: createWorker,
  };
  print({ version: process.version, worker: worker.pid });
  for await (const step of readline.createInterface({ input: process.stdin })) {
    print(await steps[step.trim()]());
  }
  worker.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
