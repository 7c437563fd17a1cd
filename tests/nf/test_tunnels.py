# SPDX-License-Identifier: Apache-2.0
"""Streams in tunnels. Captures of real stacks that spoke through tunnels (tests/captures/tunnels): what NetStar rebuilds
is what tshark does. And captures without tunnels, put into tunnels of every kind: what NetStar rebuilds is the same."""
import gzip
import os
import struct
import subprocess
import sys

import pytest
from test_captures import BUILD, CAPTURES, MODULE, NETSTAR, apart, by_netstar, by_tshark

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "live"))
from frames import read_pcap  # noqa: E402
from tunnels import KINDS, wrap  # noqa: E402

REAL = sorted(p.name.removesuffix(".pcap.gz") for p in (CAPTURES / "tunnels").glob("*.pcap.gz"))
NAMES = ["http_small", "off_reorder_far"]


@pytest.mark.parametrize("name", REAL)
def test_real_tunnels(name, tmp_path):
    capture = tmp_path / "x.pcap"
    capture.write_bytes(gzip.decompress((CAPTURES / "tunnels" / f"{name}.pcap.gz").read_bytes()))
    netstar, engine = by_netstar(capture, tmp_path / "netstar", "--tunnels", "all")
    inside = {k: v for k, v in netstar.items() if k[0].startswith("10.99.")}
    assert sum(len(s) for streams in inside.values() for s in streams) > 100_000
    assert not apart(inside, {k: v for k, v in by_tshark(capture).items() if k[0].startswith("10.99.")})
    assert engine["networks"] == 1 and not any(engine["faults"].values())
    asleep, engine = by_netstar(capture, tmp_path / "asleep")
    assert not any(k[0].startswith("10.99.") for k in asleep) and engine["tunnelled"] == 0


def into(kind, data):
    """All frames of IPv4 of a capture in one tunnel."""
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    at, out, client = 24, [data[:24]], None
    while at < len(data):
        sec, part, size, _ = struct.unpack(order + "IIII", data[at:at + 16])
        frame = data[at + 16:at + 16 + size]
        at += 16 + size
        if frame[12:14] == b"\x08\0":
            client = client or frame[26:30]
            frame = wrap(kind, frame, frame[26:30] == client)
        out.append(struct.pack(order + "IIII", sec, part, len(frame), len(frame)) + frame)
    return b"".join(out)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_the_same_inside(name, kind, tmp_path):
    data = gzip.decompress((CAPTURES / f"{name}.pcap.gz").read_bytes())
    (tmp_path / "plain.pcap").write_bytes(data)
    (tmp_path / "in.pcap").write_bytes(into(kind, data))
    plain, engine = by_netstar(tmp_path / "plain.pcap", tmp_path / "plain")
    inside, there = by_netstar(tmp_path / "in.pcap", tmp_path / "inside", "--tunnels", "all")
    assert plain and not apart(plain, inside)
    for what in ("flows_opened", "stream_bytes", "retransmits", "gaps", "conflicts", "events"):
        assert engine[what] == there[what], what


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_on_is_what_came(kind, tmp_path):
    data = gzip.decompress((CAPTURES / "http_keep_alive.pcap.gz").read_bytes())
    (tmp_path / "in.pcap").write_bytes(into(kind, data))
    (tmp_path / "streams").mkdir()
    for cores in ("1", "2"):
        subprocess.run([NETSTAR, "run", str(MODULE), "--dir", str(tmp_path / "streams"), "-r", str(tmp_path / "in.pcap"),
                        "-w", str(tmp_path / "out.pcap"), "--no-huge", "-q", "--tunnels", "all", "--cores", cores],
                       check=True, timeout=60, cwd=BUILD)
        assert read_pcap(tmp_path / "out.pcap") == read_pcap(tmp_path / "in.pcap")
