"""Drives paho-mqtt by lines: see library_process_test.go for the protocol.

Works with versions 1 and 2 of the library.
"""

import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

TIMEOUT = 60
output = threading.Lock()


def say(*words):
    with output:
        print("\t".join(str(w) for w in words), flush=True)


class Driver:
    def __init__(self, version):
        self.v5 = version == "5"
        self.client = None
        self.scheme, self.ca = "mqtt", None
        self.testament = None
        self.answer = threading.Event()
        self.result = None

    def answered(self, *result):
        self.result = result
        self.answer.set()

    def wait(self):
        if not self.answer.wait(TIMEOUT):
            return ("error", "no answer")
        self.answer.clear()
        return self.result

    def connect(self, host, port, name, clean):
        clean = clean == "1"
        kind = {"protocol": mqtt.MQTTv5 if self.v5 else mqtt.MQTTv311, "reconnect_on_failure": False}
        if self.scheme in ("ws", "wss"):
            kind["transport"] = "websockets"
        if not self.v5:
            kind["clean_session"] = clean
        if hasattr(mqtt, "CallbackAPIVersion"):
            kind["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION1
        self.client = mqtt.Client(client_id=name, **kind)
        if self.scheme in ("mqtts", "wss"):
            self.client.tls_set(ca_certs=self.ca)
        if self.scheme in ("ws", "wss"):
            self.client.ws_set_options(path="/mqtt")
        self.client.on_connect = lambda c, u, flags, rc, *_: self.answered(
            "connected", int(flags["session present"])
        ) if rc == 0 else self.answered("error", f"CONNACK {rc}")
        self.client.on_disconnect = lambda *_: say("lost")
        self.client.on_message = lambda c, u, m: say("message", m.topic, m.qos, int(m.retain), m.payload.decode())
        self.client.on_subscribe = lambda c, u, mid, granted, *_: self.answered(
            "subscribed", getattr(granted[0], "value", granted[0])
        )
        self.client.on_publish = lambda *_: self.answered("published")
        options = {}
        if self.v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if clean else 3600
            options = {"clean_start": clean, "properties": properties}
        if self.testament:
            self.client.will_set(**self.testament)
        self.client.connect(host, int(port), keepalive=30, **options)
        # The library's own thread: it alone may write to a WebSocket or TLS.
        self.client.loop_start()
        return self.wait()

    def through(self, scheme, ca):
        self.scheme, self.ca = scheme, ca
        return ("ready",)

    def subscribe(self, topic_filter, qos):
        self.client.subscribe(topic_filter, int(qos))
        return self.wait()

    def will(self, topic, qos, retain, payload):
        self.testament = {"topic": topic, "payload": payload, "qos": int(qos), "retain": retain == "1"}
        return ("ready",)

    def publish(self, topic, qos, retain, payload):
        self.client.publish(topic, payload, int(qos), retain == "1")
        return self.wait()

    def disconnect(self):
        self.client.disconnect()
        self.client.loop_stop()
        return ("disconnected",)


def main():
    driver = Driver(sys.argv[1])
    for line in sys.stdin:
        verb, *words = line.rstrip("\n").split("\t")
        try:
            say(*getattr(driver, verb)(*words))
        except Exception as e:  # told to the test, which fails
            say("error", repr(e))


main()
