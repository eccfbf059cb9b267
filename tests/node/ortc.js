// Runs cases through mediasoup's ortc: a JSON line in, a JSON line with the result of each step out.
'use strict';

const path = require('node:path');
const readline = require('node:readline');

const lib = path.dirname(require.resolve('mediasoup'));
// SSRCs are random in mediasoup; here each step counts from the same numbers.
const utils = require(path.join(lib, 'utils.js'));
let taken = 0;
utils.generateRandomNumber = () => 100_000_000 * ++taken;

const ortc = require('mediasoup/ortc');
const flatbuffers = require(require.resolve('flatbuffers', { paths: [lib] }));

const clone = (value) => structuredClone(value);

// The result of a step, or that it threw; or nothing if a step before it did.
function step(results, name, needs, run) {
  if (!needs.every((need) => results[need] && 'value' in results[need])) {
    return;
  }
  const values = needs.map((need) => clone(results[need].value));
  taken = 0;
  try {
    results[name] = { value: run(...values) };
  } catch (error) {
    results[name] = { error: error.name, reason: error.message };
  }
}

function consumers(results, prefix, consumable) {
  for (const enableRtx of [false, true]) {
    for (const pipe of [false, true]) {
      step(results, `${prefix}.consumer.${enableRtx}.${pipe}`, [consumable, 'caps'], (params, caps) =>
        ortc.getConsumerRtpParameters({
          consumableRtpParameters: params, remoteRtpCapabilities: caps, enableRtx, pipe,
        }));
    }
    step(results, `${prefix}.pipe.${enableRtx}`, [consumable], (params) =>
      ortc.getPipeConsumerRtpParameters({ consumableRtpParameters: params, enableRtx }));
  }
}

function run(test) {
  const results = { rawCaps: { value: test.caps } };
  step(results, 'caps', [], () => {
    const caps = clone(test.caps);
    ortc.validateAndNormalizeRtpCapabilities(caps);
    return caps;
  });
  step(results, 'params', [], () => {
    const params = clone(test.params);
    ortc.validateAndNormalizeRtpParameters(params);
    return params;
  });
  step(results, 'router', [], () => ortc.generateRouterRtpCapabilities(clone(test.mediaCodecs)));
  for (const router of ['router', 'caps']) {
    step(results, `${router}.mapped`, ['params', router], (params, caps) => {
      const mapping = ortc.getProducerRtpParametersMapping(params, caps);
      return [params, mapping];
    });
    step(results, `${router}.serialized`, [`${router}.mapped`], ([, mapping]) => {
      const builder = new flatbuffers.Builder(256);
      builder.finish(ortc.serializeRtpMapping(builder, mapping));
      return Buffer.from(builder.asUint8Array()).toString('base64');
    });
    step(results, `${router}.consumable`, [`${router}.mapped`, router], ([params, mapping], caps) =>
      ortc.getConsumableRtpParameters(test.kind, params, caps, mapping));
    step(results, `${router}.canConsume`, [`${router}.consumable`, 'rawCaps'], ortc.canConsume);
    consumers(results, router, `${router}.consumable`);
  }
  step(results, 'params.canConsume', ['params', 'rawCaps'], ortc.canConsume);
  consumers(results, 'params', 'params');
  if (test.sctp !== undefined) {
    step(results, 'sctp', [], () => {
      const params = clone(test.sctp);
      ortc.validateAndNormalizeSctpStreamParameters(params);
      return params;
    });
  }
  delete results.rawCaps;
  return results;
}

ortc.generateRouterRtpCapabilities([]); // it fills a cache that pipe consumers are made from
readline.createInterface({ input: process.stdin }).on('line', (line) => {
  process.stdout.write(`${JSON.stringify(run(JSON.parse(line)))}\n`);
});
