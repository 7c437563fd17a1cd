# SPDX-License-Identifier: Apache-2.0
"""Captures as somebody would make them who wants an inspector to read another stream than the receiver does: each is
made here, segment by segment, replayed through examples/streams, and what is rebuilt is compared with what is written
beside it. The tricks are those of Ptacek and Newsham (1998), of Novak and Sturges (2007), and of what came after them.
"""
import collections
import json
import os
import pathlib
import socket
import struct
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("NETSTAR_BUILD", ROOT / "build"))
NETSTAR = os.path.abspath(os.environ.get("NETSTAR") or BUILD / "netstar")
MODULE = BUILD.resolve() / "examples" / "streams" / "streams.so"

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
CLIENT, SERVER = ("10.0.0.1", 40000), ("10.0.0.2", 80)
C, S = 1000, 500  # initial numbers: byte 0 is C + 1, S + 1
POLICIES = ["first", "last", "bsd", "linux", "old-linux", "solaris"]


def checksum(data):
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def frame(source, to, flags, seq, ack, data=b"", ttl=64, bad_sum=False, stamps=None, urgent=0):
    options = b"" if stamps is None else struct.pack("!BBBBII", 1, 1, 8, 10, *stamps)
    tcp = struct.pack("!HHIIBBHHH", source[1], to[1], seq & 0xffffffff, ack & 0xffffffff, (20 + len(options)) << 2,
                      flags, 60000, 0, urgent) + options + data
    ends = socket.inet_aton(source[0]) + socket.inet_aton(to[0])
    right = checksum(ends + struct.pack("!BBH", 0, 6, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!H", right ^ (0x1234 if bad_sum else 0)) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0, ttl, 6, 0) + ends
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return bytes.fromhex("020000000002020000000001 0800") + ip + tcp


def c(flags, at, data=b"", ack=S + 1, **more):
    """From the client: its bytes from `at` on."""
    return frame(CLIENT, SERVER, flags, C + 1 + at, ack, data, **more)


def s(flags, at, data=b"", ack=C + 1, **more):
    return frame(SERVER, CLIENT, flags, S + 1 + at, ack, data, **more)


HANDSHAKE = [c(SYN, -1, ack=0), s(SYN | ACK, -1), c(ACK, 0)]


def rebuild(tmp_path, frames, *options):
    """{"c" or "s", who has sent it: [the stream of each connection]}, and the engine's numbers."""
    capture, out, report = tmp_path / "x.pcap", tmp_path / "out", tmp_path / "report.json"
    capture.write_bytes(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1) + b"".join(
        struct.pack("<IIII", 1000000 + i // 1000, i % 1000 * 1000, len(f), len(f)) + f for i, f in enumerate(frames)))
    out.mkdir()
    subprocess.run([NETSTAR, "run", str(MODULE), "--dir", str(out), "-r", str(capture), "--no-huge", "-q", "--report",
                    str(report), *options], check=True, timeout=60, stdout=subprocess.DEVNULL)
    told = json.loads(report.read_text())
    assert told["buffers"]["whole"]
    streams = collections.defaultdict(list)
    for path in sorted(out.iterdir()):
        streams["s" if path.name.split("-")[1].endswith(".80") else "c"].append(path.read_bytes())
    return dict(streams), told["engine"]


# ---- which of two overlapping segments is read: what is kept is [4, 8), behind a hole ----
OVERLAPS = {
    "before it and into it": (2, 6, {"last", "bsd", "linux", "old-linux"}),
    "the same place": (4, 8, {"last", "old-linux", "solaris"}),
    "from its middle on": (6, 10, {"last", "solaris"}),
    "inside": (5, 7, {"last"}),
    "from its beginning, and longer": (4, 10, {"last", "linux", "old-linux", "solaris"}),
    "from its beginning, and shorter": (4, 6, {"last"}),
    "up to its end, and longer": (2, 8, {"last", "bsd", "linux", "old-linux", "solaris"}),
    "up to its end, and shorter": (6, 8, {"last"}),
    "around it": (2, 10, {"last", "bsd", "linux", "old-linux", "solaris"}),
}


def overlapping(begin, end, client):
    """A connection of its own, and what is read of it where the new bytes take the places in `replaced`."""
    def d(flags, at, data=b""):
        return frame(client, SERVER, flags, C + 1 + at, S + 1, data)

    frames = [d(SYN, -1), frame(SERVER, client, SYN | ACK, S, C + 1), d(ACK, 0), d(ACK, 4, b"kept"),
              d(ACK, begin, b"N" * (end - begin)), d(ACK, 0, b"01")]
    return frames + ([d(ACK, 2, b"23")] if begin > 2 else [])


@pytest.mark.parametrize("policy", POLICIES)
def test_overlaps(policy, tmp_path):
    frames, should = [], []
    for i, (begin, end, replaced_by) in enumerate(OVERLAPS.values()):
        frames += overlapping(begin, end, (CLIENT[0], 40000 + i))
        stream = bytearray(b"01" + (b"NN" if begin == 2 else b"23") + b"kept" + b"N" * max(0, end - 8))
        if policy in replaced_by:
            stream[max(begin, 4):min(end, 8)] = b"N" * (min(end, 8) - max(begin, 4))
        should.append(bytes(stream))
    streams, engine = rebuild(tmp_path, frames, "--overlap", policy)
    assert dict(zip(OVERLAPS, streams["c"])) == dict(zip(OVERLAPS, should))
    assert engine["conflicts"] == len(OVERLAPS)


def test_systems_are_chosen_by_network(tmp_path):
    frames = HANDSHAKE + [c(ACK, 4, b"kept"), c(ACK, 4, b"NNNNNN"), c(ACK, 0, b"0123")]
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    assert rebuild(tmp_path / "a", frames, "--overlap", "first,10.0.0.0/24=linux")[0] == {"c": [b"0123NNNNNN"]}
    assert rebuild(tmp_path / "b", frames, "--overlap", "linux,10.0.0.2/32=windows")[0] == {"c": [b"0123keptNN"]}


# ---- tricks: (frames, the streams, what the engine counts) ----
TRICKS = {
    "a wrong checksum is ignored by the receiver": (
        HANDSHAKE + [c(ACK, 0, b"evil", bad_sum=True), c(ACK, 0, b"good"), c(ACK, 4, b" and more")],
        {"c": [b"good and more"]}, {}),
    "a reset with a wrong checksum": (
        HANDSHAKE + [c(ACK, 0, b"go"), c(RST, 2, bad_sum=True), c(ACK, 2, b" on")], {"c": [b"go on"]}, {}),
    "a reset inside of the window, but not the next number": (
        HANDSHAKE + [c(ACK, 0, b"go"), c(RST, 100), c(RST | ACK, 1), c(ACK, 2, b" on")], {"c": [b"go on"]},
        {"resets_ignored": 2}),
    "a reset that may not reach the receiver does not blind": (
        HANDSHAKE + [c(ACK, 0, b"go"), c(RST, 2, ttl=1), c(ACK, 2, b" on")], {"c": [b"go on"]}, {}),
    "a short-lived segment before the real one is loud": (
        HANDSHAKE + [c(ACK, 4, b"fake", ttl=1), c(ACK, 4, b"real"), c(ACK, 0, b"0123")], {"c": [b"0123fake"]},
        {"conflicts": 1}),
    "data in the SYN, and its retransmission without": (
        [c(SYN, -1, b"early", ack=0), c(SYN, -1, ack=0), s(SYN | ACK, -1, ack=C + 6), c(ACK, 5, b" and late")],
        {"c": [b"early and late"]}, {}),
    "data in a SYN that the server does not take, sent again": (
        [c(SYN, -1, b"early", ack=0), s(SYN | ACK, -1), c(ACK, 0, b"early"), c(ACK, 5, b" bird")],
        {"c": [b"early bird"]}, {}),
    "a second SYN with another number before the answer": (
        [c(SYN, 7000, ack=0), c(SYN, -1, ack=0), s(SYN | ACK, -1), c(ACK, 0, b"right")], {"c": [b"right"]}, {}),
    "a SYN in the middle of a connection": (
        HANDSHAKE + [c(ACK, 0, b"go"), c(SYN, 5000, b"evil"), c(ACK, 2, b" on")], {"c": [b"go on"]}, {}),
    "data before the handshake is over": (
        [c(SYN, -1, ack=0), c(ACK, 0, b"early"), s(SYN | ACK, -1), c(ACK, 5, b" late")], {"c": [b"early late"]}, {}),
    "both open at once": (
        [c(SYN, -1, ack=0), s(SYN, -1, ack=0), c(SYN | ACK, -1), s(SYN | ACK, -1), c(ACK, 0, b"ping"),
         s(ACK, 0, b"pong", ack=C + 5)], {"c": [b"ping"], "s": [b"pong"]}, {}),
    "an old time stamp": (
        [c(SYN, -1, ack=0, stamps=(100, 0)), s(SYN | ACK, -1, stamps=(7, 100)), c(ACK, 0, b"one ", stamps=(200, 7)),
         s(ACK, 0, ack=C + 5, stamps=(8, 200)), c(ACK, 4, b"EVIL", stamps=(50, 7)),
         c(ACK, 4, b"two ", stamps=(201, 8))], {"c": [b"one two "]}, {"stale": 1}),
    "urgent bytes are in the stream": (
        HANDSHAKE + [c(ACK | URG, 0, b"a!b", urgent=2), c(ACK, 3, b"c")], {"c": [b"a!bc"]}, {"urgent": 1}),
    "an urgent pointer to nowhere": (
        HANDSHAKE + [c(ACK | URG, 0, b"ab", urgent=60000), c(ACK, 2, b"c")], {"c": [b"abc"]}, {}),
    "bytes behind a FIN": (
        HANDSHAKE + [c(ACK, 0, b"all"), c(FIN | ACK, 3), c(ACK, 3, b" evil"), c(ACK, 4, b"evil")], {"c": [b"all"]},
        {"conflicts": 2}),
    "a FIN from the past, and one from the future": (
        HANDSHAKE + [c(ACK, 0, b"all"), c(FIN | ACK, 1), c(ACK, 3, b" of it"), c(FIN | ACK, 9), s(ACK, 0, ack=C + 11)],
        {"c": [b"all of it"]}, {}),
    "a FIN with data behind a hole": (
        HANDSHAKE + [c(FIN | ACK, 4, b"end"), c(ACK, 0, b"the ")], {"c": [b"the end"]}, {"gaps": 1}),
    "one byte each, the last first": (
        HANDSHAKE + [c(ACK, i, b"abcdefghijklmnopqrstuvwxyz"[i:i + 1]) for i in reversed(range(26))],
        {"c": [b"abcdefghijklmnopqrstuvwxyz"]}, {"gaps": 25}),
    "one byte each, junk around each": (
        HANDSHAKE + [f for i in range(20) for f in (c(ACK, i + 1, b"??", bad_sum=True),
                                                    c(ACK, i, b"attack at midnight!!"[i:i + 1]))],
        {"c": [b"attack at midnight!!"]}, {"conflicts": 0}),
    "bytes that were acknowledged, once more and other": (
        HANDSHAKE + [c(ACK, 0, b"good"), s(ACK, 0, ack=C + 5), c(ACK, 0, b"evil"), c(ACK, 2, b"xxmore")],
        {"c": [b"goodmore"]}, {"retransmits": 2}),
    "a segment around all that was received": (
        HANDSHAKE + [c(ACK, 2, b"cd"), c(ACK, 6, b"gh"), c(ACK, 0, b"abcdefghij")], {"c": [b"abcdefghij"]},
        {"conflicts": 0}),
    "a reset, and a new connection of the same two": (
        HANDSHAKE + [c(ACK, 0, b"old"), s(RST | ACK, 0, ack=C + 4)]
        + [frame(CLIENT, SERVER, SYN, 90000, 0), frame(SERVER, CLIENT, SYN | ACK, 70000, 90001),
           frame(CLIENT, SERVER, ACK, 90001, 70001, b"new")], {"c": [b"old", b"new"]}, {}),
    "acknowledged, and never seen": (
        HANDSHAKE + [c(ACK, 0, b"ab"), c(ACK, 5, b"fg"), s(ACK, 0, ack=C + 8)] + [c(ACK, 7)] * 16,
        {"c": [b"ab\0\0\0fg"]}, {"lost_bytes": 3}),
    "the end of the capture, behind a hole": (
        HANDSHAKE + [c(ACK, 0, b"ab"), c(ACK, 5, b"fg"), c(ACK, 9, b"jk")], {"c": [b"ab\0\0\0fg\0\0jk"]},
        {"lost_bytes": 5, "stream_kept": 0}),
    "a reset behind a hole": (
        HANDSHAKE + [c(ACK, 0, b"ab"), c(ACK, 5, b"fg"), s(RST | ACK, 0, ack=C + 3)], {"c": [b"ab\0\0\0fg"]},
        {"lost_bytes": 3}),
    "no ACK flag, as in captures that are made by hand": (
        HANDSHAKE + [c(PSH, 0, b"by hand", ack=0)], {"c": [b"by hand"]}, {}),
    "a keep-alive with a byte of junk": (
        HANDSHAKE + [c(ACK, 0, b"ab"), s(ACK, 0, ack=C + 3), c(ACK, 1, b"\0"), c(ACK, 2, b"cd")], {"c": [b"abcd"]},
        {"keep_alives": 1}),
}


@pytest.mark.parametrize("name", TRICKS)
def test_tricks(name, tmp_path):
    frames, should, counts = TRICKS[name]
    streams, engine = rebuild(tmp_path, frames)
    assert streams == should
    assert {k: engine[k] for k in counts} == counts


def test_numbers_wrap_around(tmp_path):
    base = 0xffffffff - 9  # byte 0; its tenth is number 0

    def w(flags, at, data=b""):
        return frame(CLIENT, SERVER, flags, base + at, S + 1, data)

    text = bytes(range(65, 65 + 26))
    frames = [w(SYN, -1), frame(SERVER, CLIENT, SYN | ACK, S, base), w(ACK, 0), w(ACK, 8, text[8:20]),
              w(ACK, 4, text[4:9]), w(ACK, 9, b"?" * 4), w(ACK, 0, text[:4]), w(FIN | ACK, 20, text[20:])]
    streams, engine = rebuild(tmp_path, frames)
    assert streams == {"c": [text]}
    assert engine["conflicts"] == 1
