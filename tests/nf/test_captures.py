# SPDX-License-Identifier: Apache-2.0
"""What NetStar rebuilds of real captures, beside tshark and tcpflow: every direction of every connection, byte for byte.

The captures of tests/captures are replayed through examples/streams. Where tshark and tcpflow agree, NetStar must agree
with them. Where they do not, tests/captures/expected.json says who of them is right for that capture, and why; or
which frames an endpoint would not take and they do: these are then kept from them.
"""
import collections
import gzip
import ipaddress
import json
import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("NETSTAR_BUILD", ROOT / "build"))
NETSTAR = os.path.abspath(os.environ.get("NETSTAR") or BUILD / "netstar")
MODULE = BUILD.resolve() / "examples" / "streams" / "streams.so"
CAPTURES = ROOT / "tests" / "captures"
NAMES = sorted(p.name.removesuffix(".pcap.gz") for p in CAPTURES.glob("*.pcap.gz"))
EXPECTED = json.loads((CAPTURES / "expected.json").read_text())


def by_netstar(capture, out, *options):
    """{(source, port, destination, port): [bytes of each connection, in order]}, and the report."""
    out.mkdir()
    report = out / "report.json"
    subprocess.run([NETSTAR, "run", str(MODULE), "--dir", str(out), "-r", str(capture), "--no-huge", "-q",
                    "--report", str(report), *options], check=True, timeout=60, stdout=subprocess.DEVNULL)
    told = json.loads(report.read_text())
    report.unlink()
    assert told["buffers"]["whole"]
    streams = collections.defaultdict(list)
    for path in sorted(out.iterdir()):
        _, source, destination = path.name.split("-")
        key = (*source.rsplit(".", 1), *destination.rsplit(".", 1))
        streams[key].append(path.read_bytes())
    return dict(streams), told["engine"]


def by_tcpflow(capture, out):
    out.mkdir()
    subprocess.run(["tcpflow", "-q", "-o", str(out), "-r", str(capture), "-X", "/dev/null", "-S", "enable_report=NO",
                    "-T", "%N-%A.%a-%B.%b-%C"], check=True, timeout=60, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL, cwd=out)
    streams = collections.defaultdict(list)
    for path in sorted(out.iterdir(), key=lambda p: int(p.name.split("-")[0]) if p.name[0].isdigit() else -1):
        if path.name.count("-") < 3 or path.stat().st_size == 0:
            continue
        _, source, destination, _ = path.name.split("-", 3)
        source, destination = (x.rsplit(".", 1) for x in (source, destination))
        key = tuple(str(ipaddress.ip_address(plain(a))) if i == 0 else str(int(a))
                    for pair in (source, destination) for i, a in enumerate(pair))
        streams[key].append(path.read_bytes())
    return dict(streams)


def plain(address):
    """tcpflow writes 010.077.000.001."""
    return ".".join(str(int(x)) for x in address.split(".")) if address.count(".") == 3 else address


def by_tshark(capture):
    """Follows every TCP stream."""
    base = ["tshark", "-n", "-r", str(capture), "-o", "tcp.reassemble_out_of_order:TRUE"]
    streams, first, count, step = [], 0, 1, 8
    while first < count:
        # The first run tells how many streams there are, too: the number of each packet's one, before what it follows.
        follow = [w for i in range(first, first + step) for w in ("-z", f"follow,tcp,raw,{i}")]
        said = subprocess.run(base + (["-T", "fields", "-e", "tcp.stream"] if first == 0 else ["-q"]) + follow,
                              check=True, timeout=300, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True).stdout
        numbers, bar, said = said.partition("=====")
        if first == 0:
            count = 1 + max((int(n) for n in numbers.split() if n.isdigit()), default=-1)
        streams += followed(bar + said)
        first, step = first + step, 250
    found = collections.defaultdict(list)
    for _, (node0, node1), sides in sorted(streams, key=lambda f: f[0]):
        for source, destination, data in ((node0, node1, sides[0]), (node1, node0, sides[1])):
            if data:
                found[(*source, *destination)].append(data)
    return dict(found)


def followed(said):
    """The streams in what `follow,tcp,raw` prints: what node 1 sent is indented by a tab."""
    number, nodes, sides = 0, [], [b"", b""]
    for line in said.splitlines():
        if line.startswith("Follow: "):
            nodes, sides = [], [b"", b""]
        elif line.startswith("Filter: "):
            number = int(line.rsplit(" ", 1)[1])
        elif line.startswith("Node "):
            address, port = line.split(": ", 1)[1].rsplit(":", 1)
            nodes.append((address.strip("[]"), port))
        elif line.startswith("====") and len(nodes) == 2:
            yield number, nodes, sides
            nodes = []
        elif nodes and line.strip():
            sides[line.startswith("\t")] += bytes.fromhex(line.strip())


def without(capture, which, out):
    """The capture without the frames that a display filter of tshark's names."""
    subprocess.run(["tshark", "-n", "-r", str(capture), "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE",
                    "-Y", f"not ({which})", "-F", "pcap", "-w", str(out)], check=True, timeout=60,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert out.stat().st_size < capture.stat().st_size, "no frame was taken out"
    return out


def apart(a, b):
    """The streams in which two of them differ, in words."""
    words = []
    for key in sorted(set(a) | set(b)):
        x, y = a.get(key, []), b.get(key, [])
        if x != y:
            at = next((i for i, (p, q) in enumerate(zip(b"".join(x), b"".join(y))) if p != q), None)
            words.append(f"{'.'.join(key[:2])} to {'.'.join(key[2:])}: {[len(s) for s in x][:9]} and "
                         f"{[len(s) for s in y][:9]} bytes, first apart at {at}")
    return words


@pytest.mark.skipif(not shutil.which("tshark") or not shutil.which("tcpflow"), reason="tshark and tcpflow are missing")
@pytest.mark.parametrize("name", NAMES)
def test_streams_equal(name, tmp_path):
    capture = tmp_path / "x.pcap"
    capture.write_bytes(gzip.decompress((CAPTURES / f"{name}.pcap.gz").read_bytes()))
    netstar, engine = by_netstar(capture, tmp_path / "netstar")
    entry = EXPECTED.get(name)
    seen = without(capture, entry["without"], tmp_path / "seen.pcap") if entry and "without" in entry else capture
    tshark, tcpflow = by_tshark(seen), by_tcpflow(seen, tmp_path / "tcpflow")
    differ = apart(tshark, tcpflow)
    if entry and "right" in entry:
        assert differ, "tshark and tcpflow agree: expected.json need not say who is right"
        right = {"tshark": tshark, "tcpflow": tcpflow}[entry["right"]]
    else:
        assert not differ, f"tshark and tcpflow do not agree, and expected.json does not say who is right: {differ}"
        right = tshark
    assert not apart(netstar, right), (apart(netstar, right), engine)


def test_there_are_enough():
    assert len(NAMES) >= 40
    assert sum(p.stat().st_size for p in CAPTURES.glob("*.pcap.gz")) < 3 << 20
    assert set(EXPECTED) <= set(NAMES)
