# SPDX-License-Identifier: Apache-2.0
"""The firewall from outside: captures in; what is forwarded, and the log, out. What should pass is worked out here once more."""
import ipaddress
import json
import os
import random
import subprocess

import pytest
from scapy.all import (Dot1Q, Ether, GRE, ICMP, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_NS, IP, IPv6, Raw, TCP, UDP,
                       fragment, rdpcap, wrpcap)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NETSTAR = os.path.abspath(os.environ.get("NETSTAR") or
                          os.path.join(os.environ.get("NETSTAR_BUILD", os.path.join(ROOT, "build")), "netstar"))
START = 1700000000
A, B = ("02:00:00:00:00:01", "02:00:00:00:00:02")
RULES = """\
set inside { 10.1.0.0/16, fd00:1::/48 }
allow tcp from @inside to any port 80,443 log
reject tcp to any port 23 log
reject udp to any port 161
allow udp from @inside port 1024-65535 to any port dns
allow icmp from @inside type echo-request
allow icmp6 from @inside type echo-request
allow gre from 10.1.0.1 to 10.2.0.1
default drop log
"""


def ip(src, dst, **more):
    return Ether(src=A, dst=B) / (IPv6 if ":" in dst else IP)(src=src, dst=dst, **more)


def tcp(src, sport, dst, dport, flags, seq=0, ack=0, data=b""):
    f = ip(src, dst) / TCP(sport=sport, dport=dport, flags=flags, seq=seq, ack=ack, window=9000)
    return bytes(f / Raw(data) if data else f)


def udp(src, sport, dst, dport, data=b"datagram"):
    return bytes(ip(src, dst) / UDP(sport=sport, dport=dport) / Raw(data))


def echo(src, dst, kind=8, id=7):
    if ":" in dst:
        return bytes(ip(src, dst) / (ICMPv6EchoRequest if kind == 8 else ICMPv6EchoReply)(id=id, data=b"ping"))
    return bytes(ip(src, dst) / ICMP(type=kind, id=id) / b"ping")


class Talk:
    """A TCP connection, whose frames go to a list."""

    def __init__(self, frames, src="10.1.0.1", sport=40000, dst="10.2.0.2", dport=80):
        self.frames, self.ends, self.next = frames, [(src, sport), (dst, dport)], [1000, 5000]

    def send(self, side, flags, data=b""):
        self.frames.append(tcp(*self.ends[side], *self.ends[1 - side], flags, self.next[side],
                               self.next[1 - side] if "A" in flags else 0, data))
        self.next[side] += len(data) + ("S" in flags) + ("F" in flags)
        return self

    def open(self):
        return self.send(0, "S").send(1, "SA").send(0, "A")

    def close(self):
        return self.send(0, "FA").send(1, "FA").send(0, "A")


@pytest.fixture
def run(tmp_path):
    def go(frames, *args, rules=RULES, step=0.001, times=None, status=0):
        packets = []
        for i, f in enumerate(frames):
            p = Ether(f)
            p.time = START + (times[i] if times else i * step)
            packets.append(p)
        wrpcap(str(tmp_path / "in.pcap"), packets)
        (tmp_path / "rules").write_text(rules)
        done = subprocess.run([NETSTAR, "run", "firewall", "-r", "in.pcap", "-w", "out.pcap", "--rules", "rules", "--log", "log",
                               "--report", "report", "--packets", "4096", "--flows", "4096", "--budget", "20s", *args],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=tmp_path, timeout=90)
        go.text = done.stderr + done.stdout
        assert done.returncode == status, go.text
        assert "Sanitizer" not in go.text and "runtime error:" not in go.text, go.text
        if status:
            return None
        go.report = json.loads((tmp_path / "report").read_text())
        assert go.report["buffers"]["whole"], go.report
        go.log = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        return [bytes(p) for p in rdpcap(str(tmp_path / "out.pcap"))]
    go.counted = lambda name: go.report["module"].get(name.replace(" ", "_"), 0)
    return go


def same(out, expected):
    for i, (a, b) in enumerate(zip(out, expected)):
        assert a == b, f"frame {i}:\n{Ether(a)!r}\n{Ether(b)!r}"
    assert len(out) == len(expected)


@pytest.mark.parametrize("src, dst", [("10.1.0.1", "10.2.0.2"), ("fd00:1::1", "fd00:2::2")])
def test_what_was_allowed_passes_in_both_directions(run, src, dst):
    frames = []
    t = Talk(frames, src, dst=dst).open()
    for i in range(20):
        t.send(0, "PA", b"question %d" % i).send(1, "PA", b"answer" * i).send(0, "A")
    t.close()
    frames += [udp(src, 5000, dst, 53), udp(dst, 53, src, 5000), udp(src, 5000, dst, 53), echo(src, dst), echo(dst, src, 0)]
    same(run(frames), frames)
    assert run.counted("connections allowed") == 3
    assert [(e["action"], e["line"], e["src"], e["dst"], e["dst_port"], e["packet"]) for e in run.log] == \
        [("allow", 2, src, dst, 80, 1)]


def test_what_was_not_allowed_does_not(run):
    frames = []
    Talk(frames, "10.3.0.1").open()                    # from elsewhere
    Talk(frames, dport=8080).open()                    # to another port
    Talk(frames, "10.2.0.2", 80, "10.1.0.1", 40001).open()
    frames += [udp("10.1.0.1", 53, "10.2.0.2", 53), udp("10.2.0.2", 53, "10.1.0.1", 6000), echo("10.2.0.2", "10.1.0.1"),
               echo("10.1.0.1", "10.2.0.2", 0), bytes(ip("10.1.0.2", "10.2.0.1") / GRE() / b"x"),
               bytes(ip("10.1.0.1", "10.2.0.1", proto=50) / b"esp"), bytes(ip("10.1.0.1", "10.2.0.1", proto=132) / (b"\0" * 12))]
    assert run(frames) == []
    assert run.counted("connections allowed") == 0
    denied = [e["packet"] for e in run.log if e["action"] == "drop"]
    assert denied == [1, 4, 7, 10, 11, 12, 13, 14, 15, 16], "each SYN, and everything that needs none"
    assert run.counted("packets of unknown connections") == 6
    assert [e["line"] for e in run.log] == [9] * 10


def test_only_a_syn_opens(run):
    for flags in ["A", "PA", "SA", "R", "RA", "FA", "F", "", "SF", "SR", "FPU", "SRA"]:
        assert run([tcp("10.1.0.1", 40000, "10.2.0.2", 80, flags, 5, 6, b"data" if "P" in flags else b"")]) == []
        assert run.counted("packets of unknown connections") + run.counted("packets with impossible flags") == 1


def test_out_of_place(run):
    frames, good = [], []

    def add(passes, *f):
        frames.append(tcp(*f))
        if passes:
            good.append(frames[-1])
    c, s = ("10.1.0.1", 40000), ("10.2.0.2", 80)
    add(True, *c, *s, "S", 1000)
    add(False, *c, *s, "A", 1001, 5001)               # before the answer
    add(False, *c, *s, "PA", 1001, 5001, b"early")
    add(False, *s, *c, "SA", 5000, 2001)              # an answer to what was not sent
    add(False, *s, *c, "PA", 5000, 1001, b"data")
    add(False, *s, *c, "R", 5000)                     # a reset that proves nothing
    add(True, *s, *c, "SA", 5000, 1001)
    add(True, *c, *s, "A", 1001, 5001)
    add(False, *c, *s, "SF", 1001, 5001)              # nobody sends these
    add(False, *c, *s, "", 1001, 5001)
    add(False, *c, *s, "FR", 1001, 5001)
    add(True, *c, *s, "PA", 1001, 5001, b"hello")
    add(False, *s, *c, "SA", 9000, 123)               # an answer to a SYN that there was not
    add(True, *s, *c, "A", 5001, 1006)
    again = frames[-2]      # to an open connection; it goes to the end, which knows what to do with it (RFC 5961, 4.2)
    same([f for f in run(frames) if f != again], good)
    assert run.counted("packets out of place") >= 8 and run.counted("packets with impossible flags") >= 3


def test_echo_in_another_name(run):
    """A request opens a way for its replies, and for nothing else."""
    a, b = "10.1.0.1", "10.2.0.2"
    frames = [echo(a, b), echo(b, a, 0), echo(b, a, 8), echo(b, a, 0, id=8), echo(a, b, 0), echo(b, a, 0),
              bytes(ip(b, a) / ICMP(type=13, id=7) / b"time")]
    same(run(frames), [frames[i] for i in (0, 1, 5)])


def test_icmp_errors(run):
    """About what is known they pass; about anything else they are a matter of the rules."""
    frames = []
    Talk(frames).open()

    def unreachable(inner_dst, sport, to="10.1.0.1"):
        quoted = bytes(IP(src="10.1.0.1", dst=inner_dst) / TCP(sport=sport, dport=80, seq=1001))[:28]
        return bytes(ip("10.9.9.9", to) / ICMP(type=3, code=4, nexthopmtu=1400) / Raw(quoted))
    more = [unreachable("10.2.0.2", 40000), unreachable("10.2.0.2", 40001), unreachable("10.2.0.3", 40000)]
    same(run(frames + more), frames + more[:1])
    assert run.counted("icmp errors passed") == 1
    same(run(frames + more, rules=RULES.replace("default", "allow icmp type unreachable\ndefault")), frames + more)


def test_reject_answers(run):
    frames = [tcp("10.1.0.1", 40000, "10.2.0.2", 23, "S", 77), udp("10.1.0.1", 9, "10.2.0.2", 161, b"public" * 100),
              udp("fd00:1::1", 9, "fd00:2::2", 161, b"public")]
    out = [Ether(f) for f in run(frames)]
    assert len(out) == 3
    assert out[0][TCP].flags == "RA" and out[0][TCP].ack == 78 and out[0][IP].dst == "10.1.0.1"
    assert (out[1][ICMP].type, out[1][ICMP].code) == (3, 13)
    assert bytes(out[1][ICMP].payload)[:100] == frames[1][14:114] and len(out[1]) == 14 + 576
    assert out[2][IPv6].dst == "fd00:1::1" and out[2][IPv6].nh == 58 and bytes(out[2][IPv6].payload)[:2] == b"\x01\x01"
    assert run.counted("packets refused with an answer") == 3
    assert run.report["engine"]["forwarded"] == 0


def test_every_protocol_and_what_is_not_ip(run):
    frames = [bytes(ip("10.1.0.1", "10.2.0.1") / GRE() / b"there"), bytes(ip("10.2.0.1", "10.1.0.1") / GRE() / b"back"),
              b"\xff" * 12 + b"\x08\x06" + bytes(46),
              bytes(ip("fd00:2::2", "ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt="fd00:1::1"))]
    same(run(frames), frames)
    assert run.counted("neighbour discovery") == 1
    far = bytes(ip("fd00:2::2", "fd00:1::1", hlim=64) / ICMPv6ND_NS(tgt="fd00:1::1"))
    assert run([far]) == []


def test_fragments(run):
    """They meet the rules as the datagram that they are, and go on as they came."""
    good = [bytes(f) for f in fragment(Ether(udp("10.1.0.1", 5000, "10.2.0.2", 53, bytes(4000))), fragsize=1000)]
    bad = [bytes(f) for f in fragment(Ether(udp("10.1.0.1", 5000, "10.2.0.2", 54, bytes(4000))), fragsize=1000)]
    esp = [bytes(f) for f in fragment(ip("10.1.0.1", "10.2.0.1", proto=50) / Raw(bytes(3000)), fragsize=1000)]
    same(run(good + bad + esp), good)
    assert run(good[:-1]) == []


def test_after_the_end_it_is_unknown(run):
    frames = []
    Talk(frames).open().send(0, "PA", b"x").send(1, "A").close()
    n = len(frames)
    late = tcp("10.1.0.1", 40000, "10.2.0.2", 80, "PA", 1003, 5002, b"late")
    times = [i * 0.001 for i in range(n)]
    same(run(frames + [late], times=times + [1]), frames + [late])       # a retransmission, for all one knows
    same(run(frames + [late], times=times + [30]), frames)
    again = []
    Talk(again).open()
    same(run(frames + again, times=times + [1, 1.1, 1.2]), frames + again)


def test_a_long_silence(run):
    """An hour is longer than a flow is kept here, but not than the store remembers."""
    frames = []
    t = Talk(frames).open().send(0, "PA", b"x").send(1, "A")
    t.send(0, "PA", b"after an hour").send(1, "A")
    times = [0, 0.1, 0.2, 0.3, 0.4, 4000, 4000.1]
    same(run(frames, times=times), frames)
    assert run.counted("connections taken over") == 1
    same(run(frames, "--ttl", "600", times=times), frames[:5])


def test_vlan(run):
    rules = "allow udp vlan 7\nallow udp from 10.1.0.9 vlan 0\n"

    def tagged(tag, src="10.1.0.1"):
        f = Ether(udp(src, 1, "10.2.0.2", 2))
        return bytes(Ether(src=A, dst=B) / Dot1Q(vlan=tag) / f.payload) if tag else bytes(f)
    frames = [tagged(7), tagged(8), tagged(0), tagged(0, "10.1.0.9")]
    same(run(frames, rules=rules), [frames[0], frames[3]])


def test_any_rules_any_packets(run):
    """Random rules over few addresses, random packets, and a firewall of twenty lines beside it."""
    chance = random.Random(4711)
    hosts = [f"10.0.{i}.{j}" for i in range(3) for j in range(4)]
    nets = ["any"] + hosts[:4] + [f"10.0.{i}.0/24" for i in range(3)] + [f"10.0.{i}.0-10.0.{i}.2" for i in range(3)] + \
        ["10.0.0.0/15", "10.0.1.2/31", "{ 10.0.0.1, 10.0.2.0/30 }", "! 10.0.1.0/24"]

    def inside(net, host):
        if net == "any":
            return True
        if net.startswith("! "):
            return not inside(net[2:], host)
        if net.startswith("{"):
            return any(inside(n.strip(), host) for n in net[1:-1].split(","))
        if "-" in net:
            lo, hi = net.split("-")
            return ipaddress.ip_address(lo) <= ipaddress.ip_address(host) <= ipaddress.ip_address(hi)
        return ipaddress.ip_address(host) in ipaddress.ip_network(net)
    for _ in range(12):
        rules, text = [], ""
        for _ in range(chance.randrange(1, 12)):
            r = (chance.choice(["allow", "allow", "drop"]), chance.choice(["any", "tcp", "udp", "tcp,udp"]), chance.choice(nets),
                 chance.choice(nets), chance.choice([None, (1, 1), (1, 3), (3, 4)]))
            if r[1] == "any":
                r = r[:4] + (None,)
            rules.append(r)
            text += f"{r[0]} {r[1]} from {r[2]} to {r[3]}" + (f" port {r[4][0]}-{r[4][1]}" if r[4] else "") + "\n"
        default = chance.choice(["allow", "drop"])
        text += f"default {default}\n"

        def judge(proto, src, dst, dport):
            for action, protos, a, b, ports in rules:
                if (protos == "any" or proto in protos.split(",")) and inside(a, src) and inside(b, dst) and \
                        (ports is None or ports[0] <= dport <= ports[1]):
                    return action == "allow"
            return default == "allow"
        frames, expected, known = [], [], set()
        for _ in range(400):
            proto, (src, dst) = chance.choice(["tcp", "udp"]), chance.sample(hosts, 2)
            sport, dport = chance.randrange(1, 5), chance.randrange(1, 5)
            key = frozenset([(src, sport), (dst, dport)])
            frames.append(tcp(src, sport, dst, dport, "S") if proto == "tcp" else udp(src, sport, dst, dport))
            if proto == "tcp":      # a SYN of the other end, too, belongs to a connection that was allowed
                passes = (proto, key) in known or judge(proto, src, dst, dport)
            else:
                passes = (proto, key) in known or judge(proto, src, dst, dport)
            if passes:
                known.add((proto, key))
                expected.append(frames[-1])
        same(run(frames, rules=text), expected)


def test_errors_in_the_file(run):
    run([], rules="allow tpc\nallow tcp from 1.2.3.4/33\ndefault deny\n", status=1)
    assert "rules:1:7: expected a protocol: a number from 0 to 255 or a name such as tcp; did you mean tcp?" in run.text
    assert "rules:2:24: expected a prefix length from 0 to 32" in run.text
    assert "rules:3:9: expected drop, reject or allow" in run.text
