// Drives mqtt.js by lines: see library_process_test.go for the protocol.
"use strict";

const mqtt = require("mqtt");
const fs = require("fs");
const readline = require("readline");

const version = process.argv[2] === "5" ? 5 : 4;
let client;
let testament;
let transport = {};

function say(...words) {
  process.stdout.write(words.join("\t") + "\n");
}

const verbs = {
  connect(host, port, name, clean) {
    return new Promise((resolve) => {
      client = mqtt.connect({
        ...transport,
        host,
        port: Number(port),
        clientId: name,
        clean: clean === "1",
        protocolVersion: version,
        reconnectPeriod: 0,
        resubscribe: false,
        will: testament,
        properties: version === 5 && clean !== "1" ? { sessionExpiryInterval: 3600 } : undefined,
      });
      client.on("connect", (ack) => resolve(["connected", Number(ack.sessionPresent)]));
      client.on("message", (topic, payload, packet) => say("message", topic, packet.qos, Number(packet.retain), payload.toString()));
      client.on("error", (err) => resolve(["error", err.message]));
      client.on("close", () => say("lost"));
    });
  },
  subscribe(filter, qos) {
    return new Promise((resolve) => {
      client.subscribe(filter, { qos: Number(qos) }, (err, granted) =>
        resolve(err ? ["error", err.message] : ["subscribed", granted[0].qos]));
    });
  },
  through(protocol, ca) {
    transport = { protocol, path: "/mqtt", ca: fs.readFileSync(ca) };
    return ["ready"];
  },
  will(topic, qos, retain, payload) {
    testament = { topic, payload: Buffer.from(payload), qos: Number(qos), retain: retain === "1" };
    return ["ready"];
  },
  publish(topic, qos, retain, payload) {
    return new Promise((resolve) => {
      client.publish(topic, payload, { qos: Number(qos), retain: retain === "1" }, (err) =>
        resolve(err ? ["error", err.message] : ["published"]));
    });
  },
  disconnect() {
    return new Promise((resolve) => client.end(false, {}, () => resolve(["disconnected"])));
  },
};

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [verb, ...words] = line.split("\t");
    try {
      say(...(await verbs[verb](...words)));
    } catch (err) {
      say("error", String(err));
    }
  }
  process.exit(0);
}

main();
