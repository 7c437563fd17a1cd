# SPDX-License-Identifier: Apache-2.0
"""The load balancer from outside: captures in, what is forwarded out. Which back end a connection gets is worked out here
once more, from the papers, and every frame that should leave is made anew with checksums of its own."""
import ipaddress
import json
import os
import random
import struct
import subprocess

import pytest
from scapy.all import Dot1Q, Ether, ICMP, ICMPv6PacketTooBig, IP, IPv6, Raw, TCP, UDP, rdpcap, wrpcap

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NETSTAR = os.path.abspath(os.environ.get("NETSTAR") or
                          os.path.join(os.environ.get("NETSTAR_BUILD", os.path.join(ROOT, "build")), "netstar"))
START = 1700000000
PLACES = 65537
MASK = 2**64 - 1

SERVICES = """\
service web tcp 10.99.0.10:80 {
    backend a 10.78.0.1:8080 weight 2
    backend b 10.78.0.2:8080
    backend c 10.78.0.3:8081
}
service web6 tcp [fd00:99::10]:80 {
    backend a [fd00:78::1]:8080
    backend b [fd00:78::2]:8080
}
service dns udp 10.99.0.10:53 {
    backend a 10.78.0.1
    backend b 10.78.0.2
}
service direct tcp 10.99.0.20:80 {
    mode dsr
    backend a 10.78.0.1 mac 02:00:00:00:01:01
    backend b 10.78.0.2 mac 02:00:00:00:01:02
}
"""
WEB = [("a", 2, "10.78.0.1", 8080), ("b", 1, "10.78.0.2", 8080), ("c", 1, "10.78.0.3", 8081)]
WEB6 = [("a", 1, "fd00:78::1", 8080), ("b", 1, "fd00:78::2", 8080)]
DNS = [("a", 1, "10.78.0.1", 53), ("b", 1, "10.78.0.2", 53)]
DIRECT = [("a", 1, "02:00:00:00:01:01", 80), ("b", 1, "02:00:00:00:01:02", 80)]
NAMES = {0: ("02:00:00:00:00:01", "02:00:00:00:00:02"), 1: ("02:00:00:00:00:02", "02:00:00:00:00:01")}


def number(seed, data):
    h = seed ^ 0xcbf29ce484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001b3 & MASK
    h = (h ^ h >> 33) * 0xff51afd7ed558ccd & MASK
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53 & MASK
    return h ^ h >> 33


_tables = {}


def table(backends):
    """Maglev's population, by the letter."""
    key = tuple(backends)
    if key not in _tables:
        place, left, at = [None] * PLACES, PLACES, []
        for name, *_ in backends:
            at.append([number(1, name.encode()) % PLACES, number(2, name.encode()) % (PLACES - 1) + 1])
        while left:
            for i, (_, weight, *_) in enumerate(backends):
                for _ in range(weight):
                    while place[at[i][0]] is not None:
                        at[i][0] = (at[i][0] + at[i][1]) % PLACES
                    if left:
                        place[at[i][0]] = i
                        left -= 1
                    if not left:
                        break
                if not left:
                    break
        _tables[key] = place
    return _tables[key]


class Balancer:
    """One service: what it gives to a connection, while none has ended."""

    def __init__(self, backends, vip, port, proto=6):
        self.backends, self.vip, self.port, self.proto = backends, vip, port, proto
        self.load = [0] * len(backends)

    def give(self, client, port, vlan=0):
        a, b = ipaddress.ip_address(client).packed, ipaddress.ip_address(self.vip).packed
        key = b"lb:" + struct.pack(">BH", self.proto, vlan) + a + struct.pack(">H", port) + b + struct.pack(">H", self.port)
        place, at = table(self.backends), number(3, key) % PLACES
        weights, everybody = sum(b[1] for b in self.backends), sum(self.load) + 1
        while True:
            i = place[at]
            if self.load[i] < -(-everybody * self.backends[i][1] * 5 // (weights * 4)):
                self.load[i] += 1
                return self.backends[i]
            at = (at + 1) % PLACES


def frame(side, src, sport, dst, dport, flags=None, data=b"", seq=0, ack=0, vlan=0, mac=None):
    macs = NAMES[side]
    f = Ether(src=macs[0], dst=mac or macs[1])
    if vlan:
        f /= Dot1Q(vlan=vlan)
    f /= (IPv6 if ":" in dst else IP)(src=src, dst=dst)
    if flags is None:
        f /= UDP(sport=sport, dport=dport)
    else:
        f /= TCP(sport=sport, dport=dport, flags=flags, seq=seq, ack=ack, window=5000)
    return bytes(f / Raw(data) if data else f)


class Talk:
    """One TCP connection: frames as they come, and as they should leave."""

    def __init__(self, wire, balancer, client, port, vlan=0, backend=None):
        self.wire, self.b, self.client, self.port, self.vlan = wire, balancer, client, port, vlan
        self.name, _, self.addr, self.bport = backend or balancer.give(client, port, vlan)
        self.next = [1000, 5000]

    def send(self, side, flags, data=b""):
        seq, ack = self.next[side], self.next[1 - side] if "A" in flags else 0
        more = dict(flags=flags, data=data, seq=seq, ack=ack, vlan=self.vlan)
        if side == 0:
            self.wire.append((frame(0, self.client, self.port, self.b.vip, self.b.port, **more),
                              frame(0, self.client, self.port, self.addr, self.bport, **more)))
        else:
            self.wire.append((frame(1, self.addr, self.bport, self.client, self.port, **more),
                              frame(1, self.b.vip, self.b.port, self.client, self.port, **more)))
        self.next[side] += len(data) + ("S" in flags) + ("F" in flags)
        return self

    def open(self):
        return self.send(0, "S").send(1, "SA").send(0, "A")

    def close(self):
        return self.send(0, "FA").send(1, "FA").send(0, "A")


@pytest.fixture
def run(tmp_path):
    def go(frames, *args, services=SERVICES, step=0.001, status=0):
        packets = []
        for i, f in enumerate(frames):
            p = Ether(f)
            p.time = START + i * step
            packets.append(p)
        wrpcap(str(tmp_path / "in.pcap"), packets)
        (tmp_path / "services").write_text(services)
        done = subprocess.run([NETSTAR, "run", "lb", "-r", "in.pcap", "-w", "out.pcap", "--services", "services", "--report",
                               "report", "--packets", "4096", "--flows", "4096", "--budget", "20s", *args],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=tmp_path, timeout=90)
        text = done.stderr + done.stdout
        assert done.returncode == status, text
        assert "Sanitizer" not in text and "runtime error:" not in text, text
        go.text = text
        if status:
            return None
        report = json.loads((tmp_path / "report").read_text())
        assert report["buffers"]["whole"], report
        go.report = report
        return [bytes(p) for p in rdpcap(str(tmp_path / "out.pcap"))]
    return go


def same(out, expected):
    for i, (a, b) in enumerate(zip(out, expected)):
        assert a == b, f"frame {i}:\n{Ether(a)!r}\n{Ether(b)!r}"
    assert len(out) == len(expected)


def counted(text, name):
    lines = [line for line in text.splitlines() if line.strip().startswith(name + "  ")]
    return int(lines[0].split()[-1]) if lines else 0


@pytest.mark.parametrize("vlan", [0, 7])
def test_connections_are_rewritten_there_and_back(run, vlan):
    wire, web, web6 = [], Balancer(WEB, "10.99.0.10", 80), Balancer(WEB6, "fd00:99::10", 80)
    talks = []
    for i in range(40):
        talks.append(Talk(wire, web, f"10.1.{i % 3}.{i}", 40000 + i, vlan).open())
        talks.append(Talk(wire, web6, f"fd00:1::{i:x}", 50000 + i, vlan).open())
    chance = random.Random(1)
    for _ in range(300):
        t = chance.choice(talks)
        side = chance.randrange(2)
        t.send(side, "PA", chance.randbytes(chance.randrange(1, 1400))).send(1 - side, "A")
    for t in talks:
        t.close()
    same(run([a for a, _ in wire]), [b for _, b in wire])
    assert {t.name for t in talks} == {"a", "b", "c"}
    assert counted(run.text, "connections opened") == 80


def test_load_is_bounded(run):
    """One client after another whose number falls on the same back end: it takes its share and a quarter, and no more."""
    web = Balancer(WEB, "10.99.0.10", 80)
    place, picked = table(WEB), []
    for port in range(1024, 60000):
        key = b"lb:\x06\x00\x00" + bytes([10, 1, 0, 1]) + struct.pack(">H", port) + bytes([10, 99, 0, 10, 0, 80])
        if place[number(3, key) % PLACES] == 1:
            picked.append(port)
        if len(picked) == 60:
            break
    wire = []
    for port in picked:
        Talk(wire, web, "10.1.0.1", port).open()
    same(run([a for a, _ in wire]), [b for _, b in wire])
    assert web.load[1] < 20 and sum(web.load) == 60
    assert counted(run.text, "passed over as full") > 30


def test_datagrams(run):
    wire, dns = [], Balancer(DNS, "10.99.0.10", 53, 17)
    for i in range(30):
        _, _, addr, port = dns.give("10.1.0.1", 30000 + i)
        for n in range(2):
            wire.append((frame(0, "10.1.0.1", 30000 + i, dns.vip, 53, data=b"who?%d" % n),
                         frame(0, "10.1.0.1", 30000 + i, addr, port, data=b"who?%d" % n)))
            wire.append((frame(1, addr, port, "10.1.0.1", 30000 + i, data=b"me%d" % n),
                         frame(1, dns.vip, 53, "10.1.0.1", 30000 + i, data=b"me%d" % n)))
    same(run([a for a, _ in wire]), [b for _, b in wire])


def test_direct_return(run):
    """Only the Ethernet address changes; answers come from the service's own address, and pass, where they pass here."""
    wire, direct = [], Balancer(DIRECT, "10.99.0.20", 80)
    for i in range(30):
        mac = direct.give("10.1.0.1", 40000 + i)[2]
        for flags, data in (("S", b""), ("A", b""), ("PA", b"hello"), ("FA", b"")):
            wire.append((frame(0, "10.1.0.1", 40000 + i, direct.vip, 80, flags, data),
                         frame(0, "10.1.0.1", 40000 + i, direct.vip, 80, flags, data, mac=mac)))
            if i % 2:
                f = frame(1, direct.vip, 80, "10.1.0.1", 40000 + i, "A")
                wire.append((f, f))
    same(run([a for a, _ in wire]), [b for _, b in wire])


def test_what_is_not_a_service_passes(run):
    frames = [frame(0, "10.1.0.1", 1, "10.99.0.10", 81, "S"), frame(0, "10.1.0.1", 1, "10.99.0.11", 80, "S"),
              frame(0, "10.1.0.1", 1, "10.99.0.10", 80, data=b"udp"), frame(0, "10.1.0.1", 1, "10.78.0.1", 22, "S"),
              frame(0, "10.1.0.1", 5, "10.78.0.1", 8080, "S"),         # to a back end itself, as whoever looks after it does
              frame(1, "10.78.0.1", 8080, "10.1.0.1", 5, "SA"),
              bytes(Ether() / IP(src="10.1.0.1", dst="10.99.0.10") / ICMP() / b"ping"), b"\xff" * 12 + b"\x08\x06" + bytes(46)]
    same(run(frames), frames)


@pytest.mark.parametrize("unknown", ["drop", "reset", "hash"])
def test_unknown_connections(run, unknown):
    """The middle of a connection that no record knows: dropped, answered with a reset, or given to whom the hash says."""
    wire, web = [], Balancer(WEB, "10.99.0.10", 80)
    t = Talk(wire, web, "10.1.0.1", 40000)
    t.send(0, "PA", b"in the middle")
    out = run([wire[0][0]], "--unknown", unknown)
    if unknown == "hash":
        same(out, [wire[0][1]])
    elif unknown == "drop":
        assert out == []
        assert counted(run.text, "packets of unknown connections") == 1
    else:
        answer = Ether(out[0])
        assert len(out) == 1
        assert (answer[IP].src, answer[IP].dst, answer[TCP].sport, answer[TCP].dport) == ("10.99.0.10", "10.1.0.1", 80, 40000)
        assert "R" in answer[TCP].flags and answer[TCP].seq == 5000


def test_nobody_there(run):
    out = run([frame(0, "10.1.0.1", 40000, "10.99.0.10", 80, "S", seq=77)],
              services="service web tcp 10.99.0.10:80 {\n backend a 10.78.0.1 drain\n backend b 10.78.0.2 weight 0\n}\n")
    answer = Ether(out[0])
    assert len(out) == 1 and "R" in answer[TCP].flags and answer[TCP].ack == 78
    assert counted(run.text, "without a back end") == 1


def test_a_tuple_that_is_taken(run):
    """Two services have the same back ends: a client's port may be in use at one of them for the other service."""
    services = "".join(f"service s{i} tcp 10.99.0.{i}:80 {{\n backend a 10.78.0.1:80\n backend b 10.78.0.2:80\n}}\n"
                       for i in (1, 2))
    pair = [("a", 1, "10.78.0.1", 80), ("b", 1, "10.78.0.2", 80)]
    one, two = Balancer(pair, "10.99.0.1", 80), Balancer(pair, "10.99.0.2", 80)
    wire, collisions = [], 0
    for port in range(40000, 40040):
        first = one.give("10.1.0.1", port)
        second = two.give("10.1.0.1", port)
        if first == second:     # the other one has to do
            two.load[pair.index(second)] -= 1
            second = pair[1 - pair.index(second)]
            two.load[pair.index(second)] += 1
            collisions += 1
        Talk(wire, one, "10.1.0.1", port, backend=first).open()
        Talk(wire, two, "10.1.0.1", port, backend=second).open()
    same(run([a for a, _ in wire], services=services), [b for _, b in wire])
    assert collisions > 5 and counted(run.text, "tuples taken already") == collisions


def test_strangers(run):
    """In mode nat nothing comes from the service's own address, and nothing goes to a back end in a connection's name."""
    wire, web = [], Balancer(WEB, "10.99.0.10", 80)
    t = Talk(wire, web, "10.1.0.1", 40000).open()
    frames = [a for a, _ in wire]
    frames.append(frame(1, "10.99.0.10", 80, "10.1.0.1", 40000, "PA", b"forged"))
    frames.append(frame(0, "10.1.0.1", 40000, t.addr, t.bport, "PA", b"forged"))
    t.send(0, "PA", b"true")
    frames.append(wire[-1][0])
    same(run(frames), [b for _, b in wire])
    assert counted(run.text, "packets out of place") == 2


def test_icmp_errors_find_their_way(run):
    """A router on the clients' side speaks of what the service has sent, and one on the back ends' side of what a client
    has: what they quote, and whom they tell, is rewritten."""
    wire, web, web6 = [], Balancer(WEB, "10.99.0.10", 80), Balancer(WEB6, "fd00:99::10", 80)
    t, six = Talk(wire, web, "10.1.0.1", 40000).open(), Talk(wire, web6, "fd00:1::1", 40000).open()
    frames, expected = [a for a, _ in wire], [b for _, b in wire]

    def four(side, src, dst, inner_src, sport, inner_dst, dport):
        quoted = IP(src=inner_src, dst=inner_dst, ttl=9, id=77, len=1500) / TCP(sport=sport, dport=dport, seq=5, ack=6)
        quoted = IP(bytes(quoted))
        del quoted[IP].chksum
        return bytes(Ether(src=NAMES[side][0], dst=NAMES[side][1]) / IP(src=src, dst=dst) /
                     ICMP(type=3, code=4, nexthopmtu=1400) / Raw(bytes(quoted)[:20] + bytes(quoted)[20:28]))

    def too_big(side, src, dst, inner_src, sport, inner_dst, dport):
        quoted = bytes(IPv6(src=inner_src, dst=inner_dst, plen=1000, nh=6) / TCP(sport=sport, dport=dport, chksum=0x1234))
        return bytes(Ether(src=NAMES[side][0], dst=NAMES[side][1]) / IPv6(src=src, dst=dst) /
                     ICMPv6PacketTooBig(mtu=1300) / Raw(quoted))

    frames.append(four(0, "10.1.9.9", web.vip, web.vip, 80, t.client, t.port))
    expected.append(four(0, "10.1.9.9", t.addr, t.addr, t.bport, t.client, t.port))
    frames.append(four(1, "10.78.9.9", t.client, t.client, t.port, t.addr, t.bport))
    expected.append(four(1, "10.78.9.9", t.client, t.client, t.port, web.vip, 80))
    frames.append(four(1, t.addr, t.client, t.client, t.port, t.addr, t.bport))      # from the back end itself
    expected.append(four(1, web.vip, t.client, t.client, t.port, web.vip, 80))
    frames.append(too_big(0, "fd00:1::9", web6.vip, web6.vip, 80, six.client, six.port))
    expected.append(too_big(0, "fd00:1::9", six.addr, six.addr, six.bport, six.client, six.port))
    frames.append(too_big(1, six.addr, six.client, six.client, six.port, six.addr, six.bport))
    expected.append(too_big(1, web6.vip, six.client, six.client, six.port, web6.vip, 80))
    same(run(frames), expected)
    assert counted(run.text, "icmp errors handed on") == 5


def test_errors_in_the_file(run):
    run([], services="service web tcp 10.0.0.1:80 {\n  moed nat\n  backend a host\n}\n", status=1)
    assert "services:2:3: expected mode, check, drain, backend or }; did you mean mode?" in run.text
    assert "services:3:13: expected an address and a port" in run.text
