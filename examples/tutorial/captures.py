#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The captures of docs/tutorial.md: examples/tutorial/captures.py FOLDER writes step1.pcap to step4.pcap there.

Steps 5 to 7 use step3.pcap.
"""
import os
import sys

from scapy.all import ARP, Ether, IP, Raw, TCP, UDP, wrpcap

START = 1700000000
STEP = 0.0001   # seconds between two packets


class Connection:
    """Adds the packets of a TCP connection to a list that connections may share."""

    def __init__(self, packets, port, client="10.0.0.1", server_port=80):
        self.packets, self.client, self.ports = packets, client, (port, server_port)
        self.next = [1000, 5000]    # sequence numbers of the client, of the server
        self.segment(0, "S")
        self.next[0] += 1
        self.segment(1, "SA")
        self.next[1] += 1
        self.segment(0, "A")

    def segment(self, side, flags, data=b"", seq=None):
        addresses = (self.client, "10.0.0.80")
        p = Ether(src=f"02:00:00:00:00:0{1 + side}", dst=f"02:00:00:00:00:0{2 - side}")
        p /= IP(src=addresses[side], dst=addresses[1 - side])
        p /= TCP(sport=self.ports[side], dport=self.ports[1 - side], flags=flags, window=65535,
                 seq=self.next[side] if seq is None else seq, ack=self.next[1 - side] if "A" in flags else 0)
        self.packets.append(p / Raw(data) if data else p)

    def send(self, data, side=0):
        self.segment(side, "PA", data)
        self.next[side] += len(data)
        self.segment(1 - side, "A")
        return self

    def close(self):
        for side in 0, 1:
            self.segment(side, "FA")
            self.next[side] += 1
        self.segment(0, "A")
        return self


def step1():
    """A connection, a conversation in UDP, and something that is not IP."""
    packets = [Ether() / ARP()]
    Connection(packets, 40000).send(b"hello").send(b"welcome", side=1).close()
    for i in range(4):
        packets.append(Ether() / IP(src="10.0.0.1", dst="10.0.0.53") / UDP(sport=50000, dport=53) / Raw(b"%d" % i))
    return packets


def step2():
    """Three connections that carry text; in two of them there is the word, cut in three."""
    packets = []
    Connection(packets, 40000).send(b"nothing is for").send(b"gotten").close()
    c = Connection(packets, 40001).send(b"this is for").send(b"bid")
    c.segment(0, "PA", b"den")
    c.segment(0, "PA", b"den")      # once more: nobody has acknowledged it
    c = Connection(packets, 40002)
    c.segment(0, "PA", b"den", seq=c.next[0] + 6)   # the last third first
    c.segment(0, "PA", b"for")
    c.segment(0, "PA", b"bid", seq=c.next[0] + 3)   # with this one the word is there
    return packets


def step3():
    """Five connections from one address, and one from another."""
    packets = []
    for port in range(40000, 40005):
        Connection(packets, port).send(b"request").close()
    Connection(packets, 40000, client="10.0.0.2").send(b"request").close()
    return packets


def step4():
    """SMTP: servers that are slow, good and strange, and a client that cannot wait. Times are beside the packets."""
    packets = []
    slow = Connection(packets, 40000, server_port=25)
    for port in range(40001, 40005):
        c = Connection(packets, port, server_port=25).send(b"220 mail.example ready\r\n", side=1)
        c.send(b"EHLO client.example\r\n").close()
    Connection(packets, 40005, server_port=25).send(b"EHLO early.example\r\n")
    Connection(packets, 40006, server_port=25).send(b"SSH-2.0-strange\r\n", side=1)
    times = [i * STEP for i in range(len(packets))]
    slow.send(b"220 mail.example, at last\r\n", side=1)
    slow.send(b"EHLO client.example\r\n")
    return packets, times + [40 + i * STEP for i in range(len(packets) - len(times))]


def write(folder):
    for make in step1, step2, step3, step4:
        made = make()
        packets, times = made if isinstance(made, tuple) else (made, [i * STEP for i in range(len(made))])
        for p, t in zip(packets, times):
            p.time = START + t
        wrpcap(os.path.join(folder, make.__name__ + ".pcap"), packets)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(sys.argv[1])
