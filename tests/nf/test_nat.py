# SPDX-License-Identifier: Apache-2.0
"""The NAT from outside: captures in, packets out. What has to come out is computed by scapy, from the addresses and ports
alone; every checksum is computed anew and compared."""
import json
import os
import struct
import subprocess

import pytest
from scapy.all import (Ether, GRE, ICMP, IP, IPv6, ICMPerror, IPerror, Raw, TCP, TCPerror, UDP, UDPerror, defragment,
                       fragment, rdpcap, wrpcap)

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("NETSTAR_BUILD", os.path.join(ROOT, "build")))
NETSTAR = os.path.abspath(os.environ.get("NETSTAR") or os.path.join(BUILD, "netstar"))
START = 1700000000
A, B, X, Y, ROUTER, PUBLIC = "10.0.0.5", "10.0.0.9", "198.51.100.7", "198.51.100.8", "198.51.100.1", "203.0.113.1"
IN_MAC, OUT_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
FIRST = 1024    # the first port of the first block; an empty pool gives its blocks in order


def out(src, dst, l4):
    return Ether(src=IN_MAC, dst=OUT_MAC) / IP(src=src, dst=dst, id=7, ttl=61) / l4


def back(src, dst, l4):
    return Ether(src=OUT_MAC, dst=IN_MAC) / IP(src=src, dst=dst, id=9, ttl=52) / l4


def run(folder, packets, *options, gap=0.6, status=0):
    """What came out, and the report. Packets of different flows wait for each other only when they are more than half a
    second apart: an answer to a port that is only just being mapped would be no answer."""
    at = START
    for p in packets:
        p.time = at = at + getattr(p, "gap", gap)
    wrpcap(str(folder / "in.pcap"), packets)
    done = subprocess.run([NETSTAR, "run", "nat", "-r", "in.pcap", "-w", "out.pcap", "--no-huge", "--report", "report",
                           *(() if "--public" in options else ("--public", PUBLIC)), *options],
                          cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    if status:
        return done.stderr
    report = json.loads((folder / "report").read_text())
    assert report["buffers"]["whole"]
    return list(rdpcap(str(folder / "out.pcap"))), done.stdout + done.stderr


def checksums_hold(p):
    """Computes all of them anew, those of what an ICMP error quotes as well."""
    again = Ether(bytes(p))
    ip = again[IP]
    given = (ip.chksum, [layer.chksum for layer in (again.getlayer(t) for t in (TCP, UDP, ICMP)) if layer])
    del ip.chksum
    for t in TCP, UDP, ICMP:
        if again.getlayer(t):
            del again[t].chksum
    fresh = Ether(bytes(again))
    expected = (fresh[IP].chksum, [layer.chksum for layer in (fresh.getlayer(t) for t in (TCP, UDP, ICMP)) if layer])
    if p.getlayer(UDP) and p[UDP].chksum == 0:
        return given[0] == expected[0]
    if p.getlayer(IPerror):
        quoted = IP(bytes(p[ICMP].payload))
        was = quoted.chksum
        del quoted.chksum
        if IP(bytes(quoted)).chksum != was:
            return False
    return given == expected


def ends(p):
    l4 = p.getlayer(TCP) or p.getlayer(UDP)
    return (p[IP].src, l4.sport, p[IP].dst, l4.dport)


def same_but(got, sent, **fields):
    """got is what was sent, with these fields of IP or of the transport changed, and right checksums."""
    want = Ether(bytes(sent))
    l4 = want.getlayer(TCP) or want.getlayer(UDP) or want.getlayer(ICMP)
    for name, value in fields.items():
        setattr(want[IP] if name in ("src", "dst") else l4, name, value)
    del want[IP].chksum
    if not (want.getlayer(UDP) and l4.chksum == 0):
        del l4.chksum
    assert bytes(got) == bytes(Ether(bytes(want))), f"\n{got.show2(dump=True)}\n{Ether(bytes(want)).show2(dump=True)}"
    assert checksums_hold(got)


def test_udp_out_and_back(tmp_path):
    packets = [
        out(A, X, UDP(sport=5000, dport=53) / b"ask"),
        back(X, PUBLIC, UDP(sport=53, dport=FIRST) / b"answer"),
        out(A, Y, UDP(sport=5000, dport=54) / b"ask"),              # endpoint-independent: the same port
        back(Y, PUBLIC, UDP(sport=9999, dport=FIRST) / b"anyone"),  # and anybody may use it
        out(A, X, UDP(sport=5001, dport=53) / b"odd"),              # parity is preserved
        out(B, X, UDP(sport=5000, dport=53) / b"another host"),
        out(A, X, UDP(sport=5000, dport=53, chksum=0) / b"without a checksum"),
    ]
    got, _ = run(tmp_path, packets)
    same_but(got[0], packets[0], src=PUBLIC, sport=FIRST)
    same_but(got[1], packets[1], dst=A, dport=5000)
    same_but(got[2], packets[2], src=PUBLIC, sport=FIRST)
    same_but(got[3], packets[3], dst=A, dport=5000)
    assert got[4][UDP].sport % 2 == 1
    assert got[5][IP].src == PUBLIC and got[5][UDP].sport not in (FIRST, got[4][UDP].sport)
    assert got[5][UDP].sport % 2 == 0
    same_but(got[6], packets[6], src=PUBLIC, sport=FIRST)
    assert got[6][UDP].chksum == 0
    assert len(got) == 7


def test_tcp_connection(tmp_path):
    packets = [
        out(A, X, TCP(sport=40000, dport=80, flags="S", seq=100, options=[("MSS", 1460)])),
        back(X, PUBLIC, TCP(sport=80, dport=FIRST, flags="SA", seq=500, ack=101)),
        out(A, X, TCP(sport=40000, dport=80, flags="A", seq=101, ack=501)),
        out(A, X, TCP(sport=40000, dport=80, flags="PA", seq=101, ack=501) / b"GET / HTTP/1.0\r\n\r\n"),
        back(X, PUBLIC, TCP(sport=80, dport=FIRST, flags="PA", seq=501, ack=119) / (b"x" * 1001)),
        out(A, X, TCP(sport=40000, dport=80, flags="FA", seq=119, ack=1502)),
        back(X, PUBLIC, TCP(sport=80, dport=FIRST, flags="FA", seq=1502, ack=120)),
        out(A, X, TCP(sport=40000, dport=80, flags="A", seq=120, ack=1503)),
    ]
    got, text = run(tmp_path, packets)
    assert len(got) == len(packets)
    for g, p in zip(got, packets):
        if p[IP].src == A:
            same_but(g, p, src=PUBLIC, sport=FIRST)
        else:
            same_but(g, p, dst=A, dport=40000)


def test_who_has_no_mapping_and_who_is_filtered(tmp_path):
    packets = [
        back(X, PUBLIC, UDP(sport=53, dport=FIRST) / b"too early"),
        out(A, X, UDP(sport=5000, dport=53) / b"ask"),
        back(X, PUBLIC, UDP(sport=53, dport=FIRST) / b"right"),
        back(X, PUBLIC, UDP(sport=54, dport=FIRST) / b"another port"),
        back(Y, PUBLIC, UDP(sport=53, dport=FIRST) / b"another address"),
        back(X, PUBLIC, UDP(sport=53, dport=FIRST + 2) / b"no such mapping"),
        back(X, PUBLIC, TCP(sport=53, dport=FIRST, flags="S")),
    ]
    for how, may in ("any", [2, 3, 4]), ("address", [2, 3]), ("port", [2]):
        got, _ = run(tmp_path, [p.copy() for p in packets], "--filter", how, gap=2)
        assert [bytes(p[UDP].payload) for p in got[1:]] == [bytes(packets[i][UDP].payload) for i in may], how
        for g in got[1:]:
            assert (g[IP].dst, g[UDP].dport) == (A, 5000) and checksums_hold(g)


def test_ping(tmp_path):
    packets = [
        out(A, X, ICMP(type=8, id=77, seq=1) / b"ping"),
        back(X, PUBLIC, ICMP(type=0, id=FIRST + 1, seq=1) / b"ping"),
        out(B, X, ICMP(type=8, id=77, seq=1) / b"ping"),
        back(X, PUBLIC, ICMP(type=8, id=FIRST + 1, seq=1) / b"nobody inside is pinged"),
    ]
    got, _ = run(tmp_path, packets)
    same_but(got[0], packets[0], src=PUBLIC, id=FIRST + 1)
    same_but(got[1], packets[1], dst=A, id=77)
    assert got[2][IP].src == PUBLIC and got[2][ICMP].id not in (77, FIRST + 1) and checksums_hold(got[2])
    assert len(got) == 3


@pytest.mark.parametrize("kind", ["udp", "tcp", "ping"])
def test_icmp_error_from_the_world(tmp_path, kind):
    l4 = {"udp": UDP(sport=5000, dport=33434) / b"probe", "tcp": TCP(sport=5000, dport=80, flags="S", seq=9),
          "ping": ICMP(type=8, id=5000, seq=3) / b"probe"}[kind]
    first = out(A, X, l4)
    got, _ = run(tmp_path, [first.copy()])
    error = back(ROUTER, PUBLIC, ICMP(type=11, code=0) / IP(bytes(got[0][IP])))
    got, _ = run(tmp_path, [first.copy(), error])
    inner = {"udp": UDPerror, "tcp": TCPerror, "ping": ICMPerror}[kind]
    e = got[1]
    assert (e[IP].src, e[IP].dst) == (ROUTER, A)
    # what it quotes is what the inside host has sent, to the last bit
    assert bytes(e[ICMP].payload) == bytes(Ether(bytes(first))[IP])
    assert e.getlayer(inner) and checksums_hold(e)


def test_icmp_error_cut_short(tmp_path):
    """RFC 792 asks for no more than 8 bytes of what is quoted."""
    first = out(A, X, TCP(sport=5000, dport=80, flags="S", seq=9))
    got, _ = run(tmp_path, [first.copy()])
    error = back(X, PUBLIC, ICMP(type=3, code=3) / Raw(bytes(got[0][IP])[:28]))
    got, _ = run(tmp_path, [first.copy(), error])
    assert bytes(got[1][ICMP].payload) == bytes(Ether(bytes(first))[IP])[:28] and checksums_hold(got[1])
    short = back(X, PUBLIC, ICMP(type=3, code=3) / Raw(bytes(error[ICMP].payload)[:27]))
    foreign = back(X, PUBLIC, ICMP(type=3, code=3) / IP(src=PUBLIC, dst=X) / UDP(sport=60000, dport=1))
    got, _ = run(tmp_path, [first.copy(), short, foreign])
    assert len(got) == 1


def test_icmp_error_from_inside(tmp_path):
    ask = out(A, X, UDP(sport=5000, dport=53) / b"ask")
    answer = back(X, PUBLIC, UDP(sport=53, dport=FIRST) / b"answer")
    inside = Ether(bytes(answer))
    inside[IP].dst, inside[UDP].dport = A, 5000
    del inside[IP].chksum, inside[UDP].chksum
    error = out(A, X, ICMP(type=3, code=3) / IP(bytes(inside[IP])))
    got, _ = run(tmp_path, [ask, answer, error])
    e = got[2]
    assert (e[IP].src, e[IP].dst) == (PUBLIC, X)
    assert bytes(e[ICMP].payload) == bytes(Ether(bytes(answer))[IP]) and checksums_hold(e)


def test_hairpin(tmp_path):
    """Two inside hosts talk by their public names, and see each other's (RFC 4787, REQ-9)."""
    packets = [
        out(B, X, UDP(sport=6000, dport=53) / b"B opens"),                      # FIRST
        out(A, PUBLIC, UDP(sport=7000, dport=FIRST) / b"A to B"),               # A is FIRST + 2
        out(B, PUBLIC, UDP(sport=6000, dport=FIRST + 2) / b"B to A"),
        out(A, PUBLIC, UDP(sport=7000, dport=FIRST + 40) / b"to nobody"),
    ]
    got, _ = run(tmp_path, packets)
    assert ends(got[1]) == (PUBLIC, FIRST + 2, B, 6000) and ends(got[2]) == (PUBLIC, FIRST, A, 7000)
    for g in got[1:]:
        assert (g[Ether].src, g[Ether].dst) == (OUT_MAC, IN_MAC), "back to the router that sent it"
        assert checksums_hold(g)
    assert len(got) == 3


def test_fragments(tmp_path):
    data = bytes(range(256)) * 12
    whole = out(A, X, UDP(sport=5000, dport=2049) / data)
    answer = back(X, PUBLIC, UDP(sport=2049, dport=FIRST) / data)
    got, _ = run(tmp_path, [*fragment(whole, 1000), *reversed(fragment(answer, 700))])
    assert all(p[IP].src == PUBLIC for p in got if p[IP].id == 7) and all(p[IP].dst == A for p in got if p[IP].id == 9)
    _, _, wholes = [], [], [p for p in defragment([Ether(bytes(p)) for p in got]) if p.getlayer(UDP)]
    assert [ends(p) for p in wholes] == [(PUBLIC, FIRST, X, 2049), (X, 2049, A, 5000)]
    assert all(bytes(p[UDP].payload) == data and checksums_hold(p) for p in wholes)


def test_what_cannot_be_mapped_never_leaves(tmp_path):
    packets = [
        out(A, X, GRE() / IP(src=A, dst=X) / UDP()),
        out(A, X, ICMP(type=13)),
        back(X, PUBLIC, GRE()),
        out("192.0.2.1", "192.0.2.2", UDP(sport=179, dport=179) / b"between routers"),
        Ether(src=IN_MAC, dst=OUT_MAC) / IPv6(src="fd00::1", dst="fd00::2") / UDP(sport=1, dport=2),
        Ether(src=IN_MAC, dst="ff:ff:ff:ff:ff:ff", type=0x806) / Raw(b"\0" * 28),
    ]
    got, text = run(tmp_path, packets)
    assert [bytes(p) for p in got] == [bytes(p) for p in packets[3:]]
    got, text = run(tmp_path, packets, "--others", "drop")
    assert [bytes(p) for p in got] == [bytes(packets[5])]


def test_time_outs(tmp_path):
    """A mapping lives by what its inside end sends; its port is not given to another for a while after that."""
    def ask(gap, sport=5000, src=A):
        p = out(src, X, UDP(sport=sport, dport=53) / b"ask")
        p.gap = gap
        return p

    def answer(gap, dport=FIRST):
        p = back(X, PUBLIC, UDP(sport=53, dport=dport) / b"answer")
        p.gap = gap
        return p
    packets = [ask(1), answer(299), ask(0.5), answer(299), answer(2), answer(100), ask(1)]
    got, _ = run(tmp_path, packets)
    kinds = ["answer" if p[IP].dst == A else p[UDP].sport for p in got]
    # 301 s after its last packet from inside the port is still kept for it, 401 s after that nobody reaches it; then it is
    # mapped anew
    assert kinds[:5] == [FIRST, "answer", FIRST, "answer", "answer"]
    assert len(kinds) == 6 and kinds[5] % 2 == 0


def test_established_tcp_is_kept_for_two_hours(tmp_path):
    def p(packet, gap):
        packet.gap = gap
        return packet

    def syn(gap):
        return p(out(A, X, TCP(sport=40000, dport=80, flags="S", seq=100)), gap)

    def ack(gap):
        return p(out(A, X, TCP(sport=40000, dport=80, flags="A", seq=101, ack=501)), gap)

    def data(gap):
        return p(back(X, PUBLIC, TCP(sport=80, dport=FIRST, flags="PA", seq=501, ack=101) / b"x"), gap)

    def fin(gap):
        return p(out(A, X, TCP(sport=40000, dport=80, flags="FA", seq=101, ack=501)), gap)
    got, _ = run(tmp_path, [syn(1), ack(0.1), data(7439), data(70)])
    assert len(got) == 3
    got, _ = run(tmp_path, [syn(1), data(239), data(70)])
    assert len(got) == 2
    got, _ = run(tmp_path, [syn(1), ack(0.1), fin(1), data(239), data(70)])
    assert len(got) == 4


def many(folder, n, *options):
    """n datagrams from as many inside ends: the inside and the public addresses and ports of those that came out. Built and
    read by hand: scapy takes a millisecond for each."""
    frames = []
    for i in range(n):
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, i & 0xffff, 0, 64, 17, 0,
                         bytes([10, i // 2500, i // 250 % 10, 1 + i % 250]), bytes([198, 51, 100, 7]))
        total = sum(struct.unpack("!10H", ip))
        total = (total & 0xffff) + (total >> 16)
        total = ~(total + (total >> 16)) & 0xffff
        frames.append(b"\2\0\0\0\0\2\2\0\0\0\0\1\x08\0" + ip[:10] + struct.pack("!H", total) + ip[12:] +
                      struct.pack("!HHHH", 1000 + i % 60000, 53, 8, 0))
    with open(folder / "many.pcap", "wb") as f:
        f.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
        for i, frame in enumerate(frames):
            f.write(struct.pack("<IIII", START + i // 10000, i % 10000 * 100, len(frame), len(frame)) + frame)
    done = subprocess.run([NETSTAR, "run", "nat", "-r", "many.pcap", "-w", "many.out", "--no-huge", *options], cwd=folder,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    got = []
    with open(folder / "many.out", "rb") as f:
        data = f.read()
    at = 24
    while at < len(data):
        length, = struct.unpack_from("<I", data, at + 8)
        frame = data[at + 16:at + 16 + length]
        at += 16 + length
        was = struct.unpack_from("!H", frame, 18)[0]
        got.append((frames[was][26:30], frame[26:30], frame[34:36]))
    return got


def test_ports_run_out(tmp_path):
    """All that one address has for one protocol, and not one more; no two alike."""
    got = many(tmp_path, 65000, "--public", PUBLIC, "--block", "256", "--kept", "131072")
    assert len({(public, port) for _, public, port in got}) == len(got) == (65536 - 1024) // 256 * 256


def test_one_host_has_one_public_address(tmp_path):
    got = many(tmp_path, 20000, "--public", "203.0.113.1-203.0.113.4")
    assert len({(public, port) for _, public, port in got}) == len(got) == 20000
    by_host = {}
    for host, public, _ in got:
        by_host.setdefault(host, set()).add(public)
    assert all(len(v) == 1 for v in by_host.values())
    assert len({public for _, public, _ in got}) == 4


@pytest.mark.parametrize("options,said", [
    (["--public", "300.1.1.1"], "expected"), (["--public", "10.0.0.1"], "inside, too"), (["--public", "fd00::1"], "only IPv4"),
    (["--filter", "some"], "expected any, address or port"), (["--block", "7"], "from 8 to 256"),
    (["--cores", "2"], "mem:"), (["--tcp-time", "20"], "less than"),
])
def test_mistakes_are_told(tmp_path, options, said):
    assert said in run(tmp_path, [out(A, X, UDP())], *options, status=1)
