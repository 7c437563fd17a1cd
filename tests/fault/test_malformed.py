# SPDX-License-Identifier: Apache-2.0
"""What is broken goes in at the command line: captures, frames, rule files, store URLs, options. Never a crash, never
a silent success; a message that says what and where."""
import json
import os
import random
import struct
import subprocess
import sys

import pytest
from scapy.all import (IP, TCP, UDP, Dot1Q, Ether, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment,  # noqa: E402
                       IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN, Raw)

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "live"))
from frames import conversation, pcap, read_pcap, tcp  # noqa: E402
from lab import netstar_binary  # noqa: E402
from tunnels import KINDS, wrap  # noqa: E402

RULE = 'id=1 action=drop content="EVILPATTERN" msg="m"\n'
SMALL = ["--packets", "4096", "--flows", "4096"]
random.seed(7)


class Run:
    def __init__(self, folder, *args, timeout=60):
        done = subprocess.run([netstar_binary(), *args], stdin=subprocess.DEVNULL, capture_output=True, cwd=folder,
                              timeout=timeout)
        self.status = done.returncode
        self.text = done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
        assert 0 <= self.status < 126, f"it crashed with {self.status}:\n{self.text}"
        for bad in ("Sanitizer", "runtime error:", "Assertion", "stack smashing", "PANIC"):
            assert bad not in self.text, self.text

    def refused(self, *words):
        assert self.status in (1, 2), self.text
        for word in words:
            assert word in self.text, f"no {word!r} in:\n{self.text}"
        return self


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "rules").write_text(RULE)
    return tmp_path


def ips(folder, *args, rules="rules", store="mem:", timeout=60):
    return Run(folder, "run", "ips", "--rules", rules, "--store", store, "--alerts", "alerts", *SMALL, *args,
               timeout=timeout)


def replay(folder, packets, *args):
    """Frames through the IPS: all of them are read, the run ends well, and what comes out is among what went in."""
    (folder / "in.pcap").write_bytes(pcap(packets))
    done = ips(folder, "-r", "in.pcap", "-w", "out.pcap", "--report", "report.json", *args)
    assert done.status == 0, done.text
    out = read_pcap(folder / "out.pcap")
    assert len(out) <= len(packets) and set(out) <= set(packets)
    return out


# ---- captures ----
CAPTURE = pcap([tcp("10.0.0.1", "10.0.0.2", 1, 80, 1, 0, 2), tcp("10.0.0.2", "10.0.0.1", 80, 1, 1, 2, 18)])


PARTS = pytest.mark.parametrize("part", range(8))  # a start of netstar for each byte takes its time


@PARTS
def test_a_capture_that_ends_at_any_byte(folder, part):
    whole_records = {24 + 70 * n: n for n in range(3)}
    assert len(CAPTURE) == 24 + 70 * 2
    for n in range(part, len(CAPTURE) + 1, 8):
        (folder / "in.pcap").write_bytes(CAPTURE[:n])
        done = ips(folder, "-r", "in.pcap", "-w", "out.pcap")
        if n in whole_records:
            assert done.status == 0, f"{n} bytes: {done.text}"
            assert len(read_pcap(folder / "out.pcap")) == whole_records[n]
        else:
            done.refused("in.pcap")
            if n > 24:
                assert len(read_pcap(folder / "out.pcap")) == (n - 24) // 70, "what was whole was handled"


@PARTS
def test_a_capture_with_any_header_byte_wrong(folder, part):
    for at in range(part, 24 + 16, 8):
        for value in (0x00, 0x7f, 0xff):
            (folder / "in.pcap").write_bytes(CAPTURE[:at] + bytes([value]) + CAPTURE[at + 1:])
            done = ips(folder, "-r", "in.pcap", "-w", "out.pcap")
            assert done.status in (0, 1, 2), done.text
            if done.status:
                assert "in.pcap" in done.text


def pcapng(packets):
    def block(kind, body):
        body += b"\0" * (-len(body) % 4)
        return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)
    out = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) + block(1, struct.pack("<HHI", 1, 0, 65535))
    for i, p in enumerate(packets):
        out += block(6, struct.pack("<IIIII", 0, 0, i, len(p), len(p)) + p)
    return out


def test_pcapng_whole_cut_and_corrupt(folder):
    frame = tcp("10.0.0.1", "10.0.0.2", 1, 80, 1, 0, 2)
    good = pcapng([frame, frame])
    (folder / "in.pcapng").write_bytes(good)
    assert ips(folder, "-r", "in.pcapng", "-w", "out.pcap").status == 0
    assert read_pcap(folder / "out.pcap") == [frame, frame]
    for n in range(1, len(good), 7):
        (folder / "in.pcapng").write_bytes(good[:n])
        ips(folder, "-r", "in.pcapng", "-w", "out.pcap")
    for at in range(0, len(good), 4):
        (folder / "in.pcapng").write_bytes(good[:at] + b"\xff\xff\xff\x7f" + good[at + 4:])
        ips(folder, "-r", "in.pcapng", "-w", "out.pcap")


def test_files_that_are_no_captures(folder):
    (folder / "text").write_text("this is no capture\n" * 10)
    (folder / "empty").write_bytes(b"")
    (folder / "wifi.pcap").write_bytes(pcap([b"x" * 60], link=105))
    (folder / "folder").mkdir()
    for name in ("text", "empty", "wifi.pcap", "folder", "missing.pcap"):
        ips(folder, "-r", name).refused(name)
    (folder / "in.pcap").write_bytes(CAPTURE)
    ips(folder, "-r", "in.pcap", "-w", "no/such/folder/out.pcap").refused("no/such/folder/out.pcap")
    if os.path.exists("/dev/full"):
        (folder / "big.pcap").write_bytes(pcap([b"\xff" * 1000] * 1000))
        ips(folder, "-r", "big.pcap", "-w", "/dev/full").refused("/dev/full")


def test_one_bad_capture_among_good_ones(folder):
    (folder / "good.pcap").write_bytes(CAPTURE)
    (folder / "cut.pcap").write_bytes(CAPTURE[:-1])
    ips(folder, "-r", "good.pcap", "-r", "cut.pcap", "-w", "out.pcap").refused("cut.pcap")
    assert len(read_pcap(folder / "out.pcap")) == 3


# ---- frames ----
def samples():
    data = Raw(b"some EVILPAT bytes")
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 2)), ("NOP", None), ("WScale", 7)]
    t, u = TCP(sport=1000, dport=80, flags="PA", seq=5, options=options), UDP(sport=53, dport=53)
    four, six = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")
    stacked = [
        four / t, four / u, six / t, six / u,
        IP(src="10.0.0.1", dst="10.0.0.2", options=[b"\x07\x07\x04\0\0\0\0\0"]) / t,
        IP(src="10.0.0.1", dst="10.0.0.2", flags="MF", frag=0) / t,
        IP(src="10.0.0.1", dst="10.0.0.2", frag=100) / t,
        six / IPv6ExtHdrHopByHop(options=PadN(optdata=b"\0" * 4)) / IPv6ExtHdrDestOpt(options=PadN(optdata=b"\0" * 4)) / t,
        six / IPv6ExtHdrRouting(addresses=["fd00::3"]) / u,
        six / IPv6ExtHdrFragment(m=1, id=9) / t, six / IPv6ExtHdrFragment(offset=10, id=9) / t,
    ]
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    frames = [bytes(ether / s / data) for s in stacked]
    frames += [bytes(ether / Dot1Q(vlan=5) / s / data) for s in stacked[:4]]
    frames += [bytes(ether / Dot1Q(vlan=5, type=0x8100) / Dot1Q(vlan=6) / s / data) for s in stacked[:4]]
    frames += [bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=0x88a8)) +
               bytes(Dot1Q(vlan=7) / four / t / data)]
    return frames


def test_every_header_cut_at_every_byte(folder):
    cut = [f[:n] for f in samples() for n in range(1, len(f) + 1)]
    replay(folder, cut)
    replay(folder, cut, "--fail", "open")


def test_every_header_byte_set_to_extremes(folder):
    """Every length, offset, type and flag gets its extreme values: fields that lie about what follows."""
    frames = []
    for f in samples():
        for at in range(12, min(len(f), 110)):
            for value in (0, 1, 0x0f, 0x40, 0x4f, 0x50, 0xf0, 0xff, f[at] ^ 1):
                frames.append(f[:at] + bytes([value]) + f[at + 1:])
    replay(folder, frames)


def test_lengths_that_lie(folder):
    f, six, frames = samples()[0], samples()[2], []
    for n in [*range(0, 80), 255, 1500, 32767, 32768, 65535]:
        frames.append(f[:16] + struct.pack("!H", n) + f[18:])
        frames.append(six[:18] + struct.pack("!H", n) + six[20:])
    for ihl in range(16):
        for offset in range(16):
            g = bytearray(f)
            g[14], g[46] = 0x40 | ihl, offset << 4
            frames.append(bytes(g))
    u = samples()[1]
    for n in [*range(0, 40), 255, 65535]:
        frames.append(u[:38] + struct.pack("!H", n) + u[40:])
    replay(folder, frames)


def test_options_that_lie(folder):
    """Every TCP option kind with every short length, at every place of the header, also running past its end."""
    frames = []
    for kind in [0, 1, 2, 3, 4, 5, 8, 19, 28, 30, 34, 254, 255]:
        for length in (0, 1, 2, 3, 4, 9, 10, 11, 39, 40, 41, 255):
            for before in (0, 1, 18, 19):
                options = (b"\1" * before + bytes([kind, length])).ljust(20, b"\1")[:20]
                g = bytearray(tcp("10.0.0.1", "10.0.0.2", 7, 80, 1, 0, 2) + options)
                g[46] = 10 << 4
                g[16:18] = struct.pack("!H", 60)
                frames.append(bytes(g))
    replay(folder, frames)


def test_flags_and_sequence_numbers_without_sense(folder):
    frames = []
    for _ in range(6000):
        data = random.choice([b"", b"x", b"EVILPATTERN", b"y" * random.randint(1, 1400)])
        up = random.random() < 0.5
        a, b = ("10.0.0.1", "10.0.0.2") if up else ("10.0.0.2", "10.0.0.1")
        p, q = (random.randint(1, 20), 80) if up else (80, random.randint(1, 20))
        seq, ack = (random.choice([0, 1, 2, 100, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff,
                                   random.getrandbits(32)]) for _ in range(2))
        frames.append(tcp(a, b, p, q, seq, ack, random.randrange(256), data))
    replay(folder, frames)


def test_random_bytes_and_damage(folder):
    good = samples()
    frames = [random.randbytes(random.randint(1, 200)) for _ in range(1000)]
    for _ in range(8000):
        f = bytearray(random.choice(good))
        for _ in range(random.randint(1, 4)):
            f[random.randrange(12, len(f))] = random.randrange(256)
        frames.append(bytes(f[:random.randint(14, len(f))]))
    replay(folder, frames)


def test_large_frames(folder):
    """Longer than any MTU: passed whole, or refused with a message, never cut short in silence."""
    frames = [tcp("10.0.0.1", "10.0.0.2", 7, 80, 1, 0, 16, b"z" * n) for n in (1460, 2000, 8900, 16000)]
    (folder / "in.pcap").write_bytes(pcap(frames))
    done = ips(folder, "-r", "in.pcap", "-w", "out.pcap", "--fail", "open")
    out = read_pcap(folder / "out.pcap")
    assert set(out) <= set(frames)
    assert (done.status == 0 and out == frames) or done.refused("in.pcap")


def test_what_is_not_ip_passes_unchanged(folder):
    other = [b"\xff" * 6 + b"\2\0\0\0\0\1" + struct.pack("!H", kind) + bytes(46)
             for kind in (0x0806, 0x88cc, 0x8847, 0x0004, 0x9000)]
    assert replay(folder, other) == other


def test_a_damaged_conversation_hides_nothing(folder):
    """The same attack, each packet of it cut or damaged in turn and then sent whole: the pattern never comes out."""
    whole = conversation(5000, [b"abc EVILPA", b"TTERN def"], [])
    for at in range(3, 8):
        for broken in (whole[at][:40], whole[at][:-1], whole[at][:14] + b"\x4f" + whole[at][15:]):
            out = replay(folder, whole[:at] + [broken] + whole[at:])
            assert not any(b"TTERN" in p for p in out)


# ---- tunnels ----
def tunnelled():
    inner = tcp("10.0.0.1", "10.0.0.2", 7, 80, 1, 0, 16, b"some EVILPAT bytes")
    return [wrap(kind, inner, True) for kind in KINDS] + [wrap("gre", wrap("ipip", inner, True), True),
                                                          wrap("vxlan", wrap("vxlan", inner, True), True)]


def test_every_tunnel_cut_at_every_byte(folder):
    cut = [f[:n] for f in tunnelled() for n in range(1, len(f) + 1)]
    replay(folder, cut, "--tunnels", "all")
    replay(folder, cut, "--tunnels", "all", "--fail", "open")


def test_every_byte_of_a_tunnel_set_to_extremes(folder):
    frames = []
    for f in tunnelled():
        for at in range(12, len(f)):
            for value in (0, 1, 0x0f, 0x40, 0x45, 0x60, 0xf0, 0xff, f[at] ^ 1):
                frames.append(f[:at] + bytes([value]) + f[at + 1:])
    replay(folder, frames, "--tunnels", "all")


def test_tunnels_hide_nothing(folder):
    """The pattern in each kind of tunnel: seen where it is asked to be looked for, and only there."""
    for kind in KINDS:
        packets = [wrap(kind, p, p[26:30] == b"\x0a\0\0\1") for p in conversation(5000, [b"abc EVILPA", b"TTERN def"], [])]
        assert any(b"TTERN" in p for p in replay(folder, packets)), "nobody asked"
        assert not any(b"TTERN" in p for p in replay(folder, packets, "--tunnels", "all"))


# ---- what is wrong, by its name ----
def wrong():
    f, six = samples()[0], samples()[2]
    u6 = samples()[3]

    def put(frame, at, *values):
        return frame[:at] + bytes(values) + frame[at + len(values):]
    vlan = b"\x81\0\0\5"
    return {
        "short_ethernet_header": f[:13],
        "vlan_tags": f[:12] + vlan * 3 + f[12:],
        "short_ip_header": put(f, 14, 0x44),
        "ip_version": put(f, 14, 0x65),
        "ip_length": put(f, 16, 0xff, 0xff),
        "extension_headers": put(six[:54] + b"\x3c\0\1\4\0\0\0\0" * 9 + bytes(20), 18, 0, 92, 60),
        "short_tcp_header": put(f, 16, 0, 30),
        "tcp_data_offset": put(f, 46, 0x10),
        "no_udp_checksum": put(u6, 60, 0, 0),
        "wrong_checksum": put(f, 24, 0xde, 0xad),
    }


@pytest.mark.parametrize("name", wrong())
def test_what_is_wrong_is_counted_by_its_name(folder, name):
    (folder / "in.pcap").write_bytes(pcap([wrong()[name]]))
    done = ips(folder, "-r", "in.pcap", "-w", "out.pcap", "--report", "report.json")
    assert done.status == 0, done.text
    engine = json.loads((folder / "report.json").read_text())["engine"]
    assert {k: n for k, n in engine["faults"].items() if n} == {name: 1}
    cause = "checksum" if name == "wrong_checksum" else "malformed"
    passes = name == "no_udp_checksum"  # the IPS looks at TCP only
    assert engine["dropped"][cause] == (not passes) and engine["forwarded"] == passes
    assert len(read_pcap(folder / "out.pcap")) == passes


# ---- rule files ----
@pytest.mark.parametrize("text,line,column", [
    ("id=1 action=drop contnt=\"x\" msg=\"m\"\n", 1, 18),
    ("# fine\n\nid=0 action=drop content=\"x\" msg=\"m\"\n", 3, 4),
    ("id=1 action=explode content=\"x\" msg=\"m\"\n", 1, 13),
    ("id=1 action=drop content=\"x msg=m\n", 1, 26),
    ("id=1 action=drop content=\"\" msg=\"m\"\n", 1, 26),
    ("id=1 action=drop content=\"\\q\" msg=\"m\"\n", 1, 27),
    ("id=1 action=drop pcre=/a(/ msg=\"m\"\n", 1, 23),
    ("id=1 action=drop pcre=/abc/x msg=\"m\"\n", 1, 28),
    ("id=1 action=drop content=\"x\" msg=\"m\"\nid=1 action=drop content=\"y\" msg=\"m\"\n", 2, 4),
    ("id=1 action=drop msg=\"m\"\n", 1, 1),
    ("  id=99999999999 action=drop content=\"x\" msg=\"m\"", 1, 6),
])
def test_rule_errors_have_line_and_column(folder, text, line, column):
    (folder / "bad.rules").write_text(text)
    (folder / "in.pcap").write_bytes(CAPTURE)
    done = ips(folder, "-r", "in.pcap", rules="bad.rules")
    done.refused(f"bad.rules:{line}:{column}: ")


def test_rule_files_that_are_none(folder):
    (folder / "in.pcap").write_bytes(CAPTURE)
    (folder / "empty").write_text("# nothing\n")
    (folder / "binary").write_bytes(bytes(range(256)) * 20)
    (folder / "long").write_text("id=1 action=drop content=\"" + "x" * 10000 + "\" msg=\"m\"\n")
    (folder / "folder").mkdir()
    for name in ("empty", "binary", "long", "folder", "missing"):
        ips(folder, "-r", "in.pcap", rules=name).refused(name)


def test_damaged_rule_files(folder):
    (folder / "in.pcap").write_bytes(CAPTURE)
    rule = b'id=1 action=drop content="a\\x41b" nocase to=server msg="text"\n'
    for n in range(0, len(rule), 3):
        (folder / "cut").write_bytes(rule[:n])
        ips(folder, "-r", "in.pcap", rules="cut")


# ---- store URLs and options ----
@pytest.mark.parametrize("url", ["", "redis", "http://localhost", "redis:/localhost", "redis://host:port",
                                 "redis://host:0", "redis://host:65536", "redis://host/x", "redis://[::1",
                                 "redis://[zz]:1", "redis+unix://", "redis+unix://relative", "redis+unix:///p?dp=1",
                                 "redis://a b", "redis://%zz@host", "mem:what"])
def test_store_url_errors(folder, url):
    (folder / "in.pcap").write_bytes(CAPTURE)
    ips(folder, "-r", "in.pcap", store=url).refused("--store")


@pytest.mark.parametrize("args,words", [
    ([], ["Usage"]),
    (["walk"], ["walk"]),
    (["rnu"], ["run"]),
    (["run"], ["run"]),
    (["run", "nosuchnf"], ["nosuchnf"]),
    (["run", "ips"], ["--ports"]),
    (["run", "ips", "-r", "in.pcap"], ["--rules"]),
    (["run", "ips", "--rules", "rules"], ["--ports"]),
    (["run", "ips", "--rules", "rules", "-r", "in.pcap", "--ports", "a,b"], ["--ports"]),
    (["run", "ips", "--rules", "rules", "-r", "in.pcap", "--bugdet", "5ms"], ["--budget"]),
    (["run", "ips", "--rules", "rules", "-r", "in.pcap", "--budget", "soon"], ["--budget"]),
    (["run", "ips", "--rules", "rules", "-r", "in.pcap", "--fail", "maybe"], ["--fail"]),
    (["run", "ips", "--rules", "rules", "-r", "in.pcap", "--speed", "-1"], ["--speed"]),
    (["run", "ips", "--rules", "rules", "-r", "in.pcap", "--rules"], ["--rules"]),
    (["run", "ips", "--rules", "rules", "--ports", "a,b,c"], ["--ports"]),
    (["run", "ips", "--rules", "rules", "-r", "in.pcap", "--tunnels", "gre,vxlna"], ["--tunnels", "vxlna", "vxlan"]),
    (["run", "ips", "--rules", "rules", "-r", "in.pcap", "--tunnels", "gre,"], ["--tunnels"]),
    (["run", "ips", "--rules", "rules", "-r", "in.pcap", "--fragments", "1"], ["--fragments"]),
    (["run", "ips", "--rules", "rules", "--ports", "nosuch0,nosuch1"], ["nosuch0"]),
    (["run", "ips", "--rules", "rules", "-r", "in.pcap", "--eal", "--no-such-eal-option"], ["eal"]),
], ids=lambda a: "_".join(a) if isinstance(a, list) else None)
def test_command_line_errors(folder, args, words):
    (folder / "in.pcap").write_bytes(CAPTURE)
    done = Run(folder, *args)
    assert done.status in (1, 2), done.text
    for word in words:
        assert word.lower() in done.text.lower(), done.text


@pytest.mark.parametrize("args", [["--help"], ["run", "--help"], ["run", "ips", "--help"], ["check", "--help"],
                                  ["--version"]])
def test_help_ends_well(folder, args):
    assert Run(folder, *args).status == 0
