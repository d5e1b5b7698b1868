"""What scripts with paho-mqtt do, in a row, without waiting for answers.

retain HOST PORT PREFIX ROUNDS             publish.single(retain=True)
reply HOST PORT PREFIX ROUNDS QOS          subscribe, publish a request; says how many answers came
device HOST PORT HOST PORT PREFIX ROUNDS   a device with a Will connects again and says Online

Works with versions 1 and 2 of the library.
"""

import sys
import threading

import paho.mqtt.client as mqtt
import paho.mqtt.publish as publish

TIMEOUT = 60


def new_client(name):
    if hasattr(mqtt, "CallbackAPIVersion"):
        return mqtt.Client(mqtt.CallbackAPIVersion.VERSION1, client_id=name)
    return mqtt.Client(client_id=name)


def retain(host, port, prefix, rounds):
    for i in range(int(rounds)):
        publish.single(f"{prefix}/{i}", "new", retain=True, hostname=host, port=int(port))


def reply(host, port, prefix, rounds, qos):
    waiting = []
    for i in range(int(rounds)):
        client, came = new_client(f"{prefix}-{i}"), threading.Event()

        def connected(c, *_, i=i):
            c.subscribe(f"{prefix}/reply/{i}", int(qos))
            c.publish(f"{prefix}/request/{i}", "hello", int(qos))

        client.on_connect = connected
        client.on_message = lambda *_, came=came: came.set()
        client.connect(host, int(port))
        client.loop_start()
        waiting.append((client, came))
    print(sum(came.wait(TIMEOUT if i == 0 else 5) for i, (_, came) in enumerate(waiting)))
    for client, _ in waiting:
        client.disconnect()
        client.loop_stop()


def device(host, port, other_host, other_port, prefix, rounds):
    for i in range(int(rounds)):
        connections = []
        for h, p in (host, port), (other_host, other_port):
            client, done = new_client(f"{prefix}-{i}"), threading.Event()
            client.will_set(f"{prefix}/{i}", "Offline", 1, True)
            client.on_connect = lambda c, *_: c.publish(f"{prefix}/{i}", "Online", 1, True)
            client.on_publish = lambda *_, done=done: done.set()
            # The library would connect the one that is taken over again.
            client.on_disconnect = lambda c, *_: c.loop_stop()
            client.connect(h, int(p))
            client.loop_start()
            if not done.wait(TIMEOUT):
                sys.exit(f"round {i}: no PUBACK")
            connections.append(client)
        connections[1].disconnect()


if __name__ == "__main__":
    {"retain": retain, "reply": reply, "device": device}[sys.argv[1]](*sys.argv[2:])
