# SPDX-License-Identifier: Apache-2.0
"""The IPS from outside: captures in; alerts, and what is forwarded, out. Every test runs both ways of writing it."""
import itertools
import json
import os
import random
import re
import shutil
import socket
import subprocess
import time

import pytest
from scapy.all import Dot1Q, Ether, IP, IPv6, Raw, TCP, UDP, rdpcap, wrpcap

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NETSTAR = os.path.abspath(os.environ.get("NETSTAR") or
                          os.path.join(os.environ.get("NETSTAR_BUILD", os.path.join(ROOT, "build")), "netstar"))
EVIL = b"evil|stuff"
RULES = """\
# What the tests look for.
id=1001 action=drop content="evil|stuff" msg="evil"
id=1002 action=reset content="reset me" msg="a reset"
id=1003 action=alert pcre=/curious [0-9]+;/i msg="a \\"curious\\" number"
id=1004 action=drop to=client content="for the client" msg="only to the client"
"""
START = 1700000000


class Connection:
    """The frames of one TCP connection; each call adds some to a list that connections may share."""

    def __init__(self, frames, port=40000, isn=1000, peer=5000, v6=False, vlan=0):
        self.frames, self.port, self.v6, self.vlan = frames, port, v6, vlan
        self.next = [isn, peer]     # of the client, of the server

    def frame(self, side, flags, data=b"", seq=None):
        net = ("fd00::1", "fd00::2") if self.v6 else ("10.0.0.1", "10.0.0.2")
        ports = (self.port, 80)
        f = Ether(src="02:00:00:00:00:0%d" % (1 + side), dst="02:00:00:00:00:0%d" % (2 - side))
        if self.vlan:
            f /= Dot1Q(vlan=self.vlan)
        f /= (IPv6 if self.v6 else IP)(src=net[side], dst=net[1 - side])
        f /= TCP(sport=ports[side], dport=ports[1 - side], flags=flags, window=65535,
                 seq=(self.next[side] if seq is None else seq) % 2**32,
                 ack=self.next[1 - side] % 2**32 if "A" in flags else 0)
        self.frames.append(bytes(f / Raw(data) if data else f))

    def open(self, data=b""):
        self.frame(0, "S", data)
        self.next[0] += 1 + len(data)
        self.frame(1, "SA")
        self.next[1] += 1
        self.frame(0, "A")
        return self

    def send(self, data, side=0, ack=True):
        self.frame(side, "PA", data)
        self.next[side] += len(data)
        if ack:
            self.frame(1 - side, "A")
        return self

    def answer(self, data):
        return self.send(data, 1)

    def close(self):
        for side in 0, 1:
            self.frame(side, "FA")
            self.next[side] += 1
        self.frame(0, "A")
        return self


class Result:
    def __init__(self, done, folder, frames):
        self.status, self.text = done.returncode, done.stderr + done.stdout
        assert 0 <= self.status < 126, self.text
        assert "Sanitizer" not in self.text and "runtime error:" not in self.text, self.text
        self.stdout = done.stdout
        alerts = folder / "alerts"
        self.log = alerts.read_text() if alerts.exists() else ""
        self.alerts = [json.loads(line) for line in self.log.splitlines()]
        self.out = [bytes(f) for f in rdpcap(str(folder / "out.pcap"))] if (folder / "out.pcap").exists() else []
        report = folder / "report"
        self.report = json.loads(report.read_text()) if report.exists() and report.stat().st_size else {}
        if self.status == 0:
            assert self.report["buffers"]["whole"], self.report
            self.passed = [f for f in self.out if f in set(frames)]

    def found(self, *keys):
        return [tuple(a[k] for k in keys) for a in self.alerts]

    def bytes_from(self, port, to_server=True):
        """The payload that left in the order of the file."""
        out = b""
        for f in map(Ether, self.out):
            if TCP in f and (f[TCP].sport if to_server else f[TCP].dport) == port:
                out += bytes(f[TCP].payload) if f[TCP].payload and Raw in f else b""
        return out


@pytest.fixture(params=["ips", "ips-callback"])
def run(request, tmp_path):
    def go(frames, *args, rules=RULES, store="mem:", nf=request.param, name="run", step=0.001, later=0):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for old in "alerts", "out.pcap", "report":
            if (folder / old).exists():
                (folder / old).unlink()
        packets = []
        for i, f in enumerate(frames):
            p = Ether(f)
            p.time = START + i * step
            packets.append(p)
        if later:   # something else, by which time the flows that have closed are gone
            packets.append(Ether() / IP(src="10.0.0.9", dst="10.0.0.8") / UDP(sport=1, dport=2))
            packets[-1].time = START + later
        wrpcap(str(folder / "in.pcap"), packets)
        (folder / "rules").write_bytes(rules if isinstance(rules, bytes) else rules.encode())
        done = subprocess.run(
            [NETSTAR, "run", nf, "-r", "in.pcap", "-w", "out.pcap", "--store", store, "--rules", "rules", "--alerts",
             "alerts", "--report", "report", "--packets", "4096", "--flows", "4096", "--budget", "20s", *args],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", cwd=folder, timeout=90)
        return Result(done, folder, frames)
    go.nf = request.param
    return go


# ---- what matches, and where
def test_one_packet(run):
    frames = []
    c = Connection(frames).open().send(b"GET / HTTP/1.1\r\n")
    c.send(b"X-" + EVIL + b" and more")
    attack = len(frames) - 1
    c.answer(b"never").close()
    r = run(frames)
    assert r.status == 0, r.text
    assert r.alerts == [{
        "time": "2023-11-14T22:13:20.%09dZ" % ((attack - 1) * 1000000), "rule": 1001, "action": "drop",
        "message": "evil", "proto": "tcp", "src": "10.0.0.1", "src_port": 40000, "dst": "10.0.0.2", "dst_port": 80,
        "to": "server", "offset": 16 + 2 + 10, "packet": attack}]
    assert r.out == frames[:attack - 1]     # and nothing after it, of either direction


def test_what_is_harmless_passes_unchanged(run):
    frames = []
    for i in range(20):
        c = Connection(frames, 40000 + i, v6=i % 2 == 1).open()
        c.send(b"curious %d; evil|stuf" % i).answer(random.Random(i).randbytes(1200)).close()
    frames.append(bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / Raw(EVIL)))
    frames.append(b"\xff" * 12 + b"\x08\x06" + bytes(46))
    r = run(frames)
    assert r.status == 0, r.text
    assert r.out == frames
    assert r.found("rule", "action") == [(1003, "alert")] * 20


def test_split_at_every_byte(run):
    frames, port = [], 30000
    cuts = [(i,) for i in range(1, 10)] + list(itertools.combinations(range(1, 10), 2))
    for cut in cuts:
        c = Connection(frames, port).open()
        data = b"ab" + EVIL + b"yz"
        for a, b in zip((0,) + tuple(x + 2 for x in cut), tuple(x + 2 for x in cut) + (len(data),)):
            c.send(data[a:b])
        port += 1
    r = run(frames)
    assert r.status == 0, r.text
    assert r.found("src_port", "rule", "offset") == [(30000 + i, 1001, 12) for i in range(len(cuts))]
    for i, cut in enumerate(cuts):
        assert r.bytes_from(30000 + i) == b"ab" + EVIL[:cut[-1]]


@pytest.mark.parametrize("v6, vlan", [(False, 0), (True, 0), (False, 7), (True, 4094)])
def test_addresses_and_directions(run, v6, vlan):
    frames = []
    Connection(frames, 40000, v6=v6, vlan=vlan).open().send(b"hello").answer(b"evil|st").answer(b"uff for the client")
    Connection(frames, 40001, v6=v6, vlan=vlan).open().send(b"for the client").answer(b"ok for the ").answer(b"client")
    Connection(frames, 40002, v6=v6, vlan=vlan).open().send(b"evil|").send(b"stuff")
    r = run(frames)
    assert r.status == 0, r.text
    net = ["fd00::1", "fd00::2"] if v6 else ["10.0.0.1", "10.0.0.2"]
    assert r.found("rule", "to", "offset", "src", "dst", "src_port", "dst_port") == [
        (1001, "client", 10, net[1], net[0], 80, 40000),
        (1004, "client", 25, net[1], net[0], 80, 40000),
        (1004, "client", 17, net[1], net[0], 80, 40001),
        (1001, "server", 10, net[0], net[1], 40002, 80)]
    assert all(a.get("vlan", 0) == vlan for a in r.alerts)


def test_the_same_addresses_in_other_vlans_are_other_flows(run):
    frames = []
    a, b = Connection(frames, vlan=1).open(), Connection(frames, vlan=2).open()
    a.send(b"evil|")
    b.send(b"evil|")
    a.send(b"stuff")
    b.send(b"thing")
    r = run(frames)
    assert r.found("vlan", "rule") == [(1, 1001)]


def test_sequence_numbers_wrap(run):
    frames = []
    for i in range(16):
        Connection(frames, 30000 + i, isn=2**32 - 1 - i, peer=2**32 - 3).open().send(b"evil").answer(b"what?").send(
            b"|stu").send(b"ff")
    r = run(frames)
    assert r.found("src_port", "offset") == [(30000 + i, 10) for i in range(16)]


def test_out_of_order(run):
    frames, port = [], 30000
    parts = [b"xx ev", b"il|s", b"tuff yy"]
    orders = list(itertools.permutations(range(3)))
    for order in orders:
        c = Connection(frames, port).open()
        at = [c.next[0], c.next[0] + 5, c.next[0] + 9]
        for i in order:
            c.frame(0, "PA", parts[i], seq=at[i])
        port += 1
    r = run(frames)
    assert r.found("src_port", "rule", "offset") == [(30000 + i, 1001, 13) for i in range(len(orders))]
    # What fills the hole carries the verdict: the last segment never leaves.
    for i, order in enumerate(orders):
        assert r.bytes_from(30000 + i) == b"".join(parts[k] for k in order[:2])


def test_retransmissions_and_overlaps(run):
    frames = []
    c = Connection(frames, 40000).open()
    first = c.next[0]
    c.send(b"some bytes", ack=False)
    c.frame(0, "PA", b"some bytes", seq=first)           # again
    c.frame(0, "PA", b"bytes and", seq=first + 5)        # partly again
    c.frame(0, "PA", b"some bytes and more", seq=first)  # all, and more
    d = Connection(frames, 40001).open()
    first = d.next[0]
    d.send(b"evil|s", ack=False)
    d.frame(0, "PA", b"il|st", seq=first + 2)
    d.frame(0, "PA", b"evil|stuff", seq=first)
    r = run(frames)
    assert r.found("src_port", "offset") == [(40001, 10)]
    assert r.out == frames[:-1]


def test_bytes_that_change_are_stopped(run):
    frames = []
    c = Connection(frames).open()
    first = c.next[0]
    c.send(b"harmless", ack=False)
    c.frame(0, "PA", EVIL, seq=first)
    c.frame(0, "PA", b"harmlesS", seq=first)
    c.frame(0, "PA", b"harmless", seq=first)
    r = run(frames)
    assert r.out == frames[:4] + frames[6:]
    assert r.report["engine"]["dropped"]["conflict"] == 2


def test_what_was_dropped_is_inspected_again(run):
    """After a match the flow is stopped for good: neither the same bytes nor others get through."""
    frames = []
    c = Connection(frames).open()
    first = c.next[0]
    c.send(EVIL, ack=False)
    blocked = len(frames) - 1
    c.frame(0, "PA", EVIL, seq=first)
    c.frame(0, "PA", b"harmless!!", seq=first)
    c.frame(1, "A")
    r = run(frames)
    assert r.out == frames[:blocked]
    assert len(r.alerts) == 1


def test_actions(run):
    frames = []
    Connection(frames, 40000).open().send(b"Curious 12; and CURIOUS 34;").send(b"curious 5").send(b"6;").close()
    Connection(frames, 40001).open().send(b"please reset me").send(b"more").answer(b"more").close()
    r = run(frames)
    assert r.found("src_port", "rule", "action", "offset") == [
        (40000, 1003, "alert", 11), (40000, 1003, "alert", 38), (40001, 1002, "reset", 15)]
    assert r.alerts[0]["message"] == 'a "curious" number'
    assert r.bytes_from(40000) == b"Curious 12; and CURIOUS 34;curious 56;"
    assert r.bytes_from(40001) == b""
    resets = [Ether(f)[TCP] for f in r.out if f not in frames]
    assert [(t.sport, t.dport) for t in resets if t.flags.R] in ([(40001, 80), (80, 40001)], [(80, 40001), (40001, 80)])
    for t in resets:
        assert t.seq == (1001 if t.sport == 40001 else 5001)


def test_flows_do_not_mix(run):
    frames, flows = [], []
    rng = random.Random(3)
    data = {}
    for i in range(100):
        c = Connection(frames, 30000 + i, isn=rng.randrange(2**32), peer=rng.randrange(2**32), v6=i % 3 == 0).open()
        data[c] = b"evil|" * rng.randrange(1, 5) + (b"stuff" if i % 4 == 0 else b"thing") + b"evil|stuf"
        flows.append(c)
    while flows:
        c = rng.choice(flows)
        n = rng.randrange(1, 8)
        c.send(data[c][:n])
        data[c] = data[c][n:]
        if not data[c]:
            c.close()
            flows.remove(c)
    r = run(frames)
    assert sorted(r.found("src_port")) == [(30000 + i,) for i in range(0, 100, 4)]
    assert [a["packet"] for a in r.alerts] == sorted(a["packet"] for a in r.alerts)


def test_data_with_the_syn(run):
    frames = []
    Connection(frames, 40000).open(b"evil|").send(b"stuff")
    Connection(frames, 40001).open(EVIL).send(b"more")
    r = run(frames)
    assert r.found("src_port", "offset") == [(40000, 10), (40001, 10)]
    assert r.bytes_from(40001) == b""


@pytest.mark.parametrize("closed", [True, False])
def test_the_same_ports_again(run, closed):
    frames = []
    c = Connection(frames).open().send(b"one evil|")
    if closed:
        c.close()
    Connection(frames, isn=900000, peer=800000).open().send(b"stuff and evil|").send(b"stuff").send(b"more")
    r = run(frames, step=0.001 if closed else 20)
    if closed:
        assert r.found("offset") == [(20,)]
        assert r.bytes_from(40000) == b"one evil|stuff and evil|"
    else:
        assert (9 + 5,) not in r.found("offset")


# ---- flows whose start nobody saw
def middle_of_a_connection():
    frames = []
    Connection(frames).open().send(b"before").answer(b"indeed").send(b"evil|").send(b"stuff").answer(b"never").close()
    return frames[7:]     # from evil| on


def test_unknown_flows_are_dropped(run):
    r = run(middle_of_a_connection())
    assert r.status == 0 and r.out == [] and r.alerts == []
    assert r.report["engine"]["dropped"]["midstream"] > 0


@pytest.mark.parametrize("how", [["--midstream", "pickup"], ["--fail", "open"]])
def test_unknown_flows_are_picked_up(run, how):
    frames = middle_of_a_connection()
    r = run(frames, *how)
    assert r.found("rule", "offset") == [(1001, 10)]
    assert r.bytes_from(40000) == b"evil|"


def test_unknown_flows_are_reset(run):
    frames = middle_of_a_connection()
    r = run(frames, "--midstream", "reset")
    assert r.bytes_from(40000) == b"" and r.alerts == []
    assert any(Ether(f)[TCP].flags.R for f in r.out)


def test_a_server_that_speaks_first_is_no_unknown_flow(run):
    """A direction that starts when its flow is known already is followed from its first byte."""
    frames = []
    c = Connection(frames).open()
    for _ in range(5):
        c.answer(b"news ")
    c.send(b"evil|").send(b"stuff")
    r = run(frames)
    assert r.found("to", "offset") == [("server", 10)]
    assert r.out == frames[:-2]


# ---- mistakes
@pytest.mark.parametrize("rules, words", [
    ("id=1 action=block content=\"a\" msg=\"m\"\n", ["rules:1:13: expected alert, drop or reset", "    id=1 action=block",
                                                "                ^"]),
    ("id=1 action=drop content=\"a\" msg=\"m\"\nid=1 action=drop content=\"b\" msg=\"m\"\nid=x\n",
     ["rules:2:4: expected a number that no rule above has", "rules:3:4: expected a number"]),
    ("id=1 action=drop pcre=/a(/ msg=\"m\"\n", ["rules:1:23: cannot use this pattern: "]),
    ("id=1 action=drop pcre=/a*/ msg=\"m\"\n", ["rules:1:23: cannot use this pattern: it matches where there is nothing"]),
    ("", ["rules: expected at least one rule"]),
    (b"\x00\xff\xfe", ["rules:1:1: expected id="]),
])
def test_bad_rules(run, rules, words):
    r = run([], rules=rules)
    assert r.status in (1, 2)
    for word in words:
        assert word in r.text, r.text


def test_bad_options(run, tmp_path):
    for args, words in [(["--rules", str(tmp_path / "none")], "No such file"), (["--midstream", "x"], "pickup"),
                        (["--ttl", "0"], "seconds"), (["--alerts", "/nonexistent/x"], "/nonexistent/x")]:
        r = run([], *args)
        assert r.status in (1, 2) and words in r.text, r.text


def test_rules_with_dos_line_ends_and_a_message_in_utf8(run):
    frames = []
    Connection(frames).open().send(EVIL)
    r = run(frames, rules='id=1 action=drop content="evil|stuff" msg="böse – \\"x\\""\r\n')
    assert r.found("message") == [('böse – "x"',)]


def test_alerts_on_standard_output(run):
    frames = []
    Connection(frames).open().send(EVIL)
    r = run(frames, "--alerts", "-")
    assert r.status == 0, r.text
    lines = [json.loads(x) for x in r.stdout.splitlines() if x.startswith("{\"time\"")]
    assert [x["rule"] for x in lines] == [1001]


# ---- stores
class Redis:
    def __init__(self, folder):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.server = subprocess.Popen(
            ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", str(folder)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for _ in range(200):
            try:
                if self.ask("PING") == b"+PONG\r\n":
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError("redis-server does not answer")

    def ask(self, *words):
        with socket.create_connection(("127.0.0.1", self.port), 5) as s:
            s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
            return s.recv(65536)

    def keys(self):
        return int(self.ask("DBSIZE")[1:])

    def clear(self):
        self.ask("FLUSHALL")

    def close(self):
        self.server.terminate()
        self.server.wait(20)


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.close()


def busy_traffic(seed, flows=60, greeting=b""):
    """Interleaved connections of both families with reordering, retransmissions, and attacks at random places."""
    rng = random.Random(seed)
    frames, open_flows = [], []
    for i in range(flows):
        c = Connection(frames, 20000 + i, isn=rng.randrange(2**32), peer=rng.randrange(2**32), v6=i % 2 == 1).open()
        if greeting:    # after which the store knows both directions
            c.send(greeting).answer(greeting)
        data = bytearray(rng.choice(b"evil|stuf ") for _ in range(rng.randrange(50, 400)))
        if i % 3 == 0:
            at = rng.randrange(len(data) - 10)
            data[at:at + 10] = EVIL
        if i % 3 == 1:
            data[10:22] = b"curious 123;"
        open_flows.append((c, rng.randrange(2), data))
    while open_flows:
        c, side, data = open_flows[rng.randrange(len(open_flows))]
        n = min(len(data), rng.randrange(1, 60))
        what = rng.randrange(10)
        if what == 0 and len(data) > n + 5:                     # the next one first
            c.frame(side, "PA", bytes(data[n:n + 5]), seq=c.next[side] + n)
        if what == 1 and n > 1:                                 # a part of it before
            c.frame(side, "PA", bytes(data[:n // 2]))
        c.send(bytes(data[:n]), side, ack=what != 2)
        del data[:n]
        if not data:
            c.close()
            open_flows.remove((c, side, data))
    return frames


def test_every_store_gives_the_same(run, redis):
    frames = busy_traffic(11)
    redis.clear()
    runs = [run(frames), run(frames, store=redis.url, name="redis"),
            run(frames, "--speed", "2", store=redis.url, name="slow", step=0.0005)]
    for r in runs:
        assert r.status == 0, r.text
    assert len([a for a in runs[0].alerts if a["rule"] == 1001]) == 20
    assert runs[1].log == runs[0].log
    assert runs[1].out == runs[0].out
    assert runs[1].report["engine"]["waits"] > 0, "Redis answers later"
    for a, b in zip(runs[0].alerts, runs[2].alerts, strict=True):   # its capture has other times
        assert {**a, "time": 0} == {**b, "time": 0}


def test_both_ways_of_writing_it_give_the_same(run):
    for seed in range(3):
        frames = busy_traffic(seed)
        one, two = run(frames, nf="ips", name="one"), run(frames, nf="ips-callback", name="two")
        assert one.status == two.status == 0
        assert one.log == two.log and one.out == two.out
        assert one.report["engine"]["dropped"] == two.report["engine"]["dropped"]


def test_kept_state_gives_the_same(run, redis):
    """What is kept here and written through, and what is read and written at each packet."""
    if run.nf != "ips":
        pytest.skip("written with callbacks nothing is kept")
    for seed in range(3):
        frames = busy_traffic(seed)
        redis.clear()
        each = run(frames, "--state", "each", name="each")
        kept = run(frames, "--state", "kept", store=redis.url, name="kept")
        small = run(frames, "--state", "kept", "--kept", "64", store=redis.url, name="small")
        for r in kept, small:
            assert r.status == 0, r.text
            assert r.log == each.log and r.out == each.out
            assert r.report["engine"]["dropped"] == each.report["engine"]["dropped"]
    assert int(re.search(r"records written +(\d+)", kept.text)[1]) <= int(re.search(r"changes of records +(\d+)", kept.text)[1])


def cut_anywhere(run, redis, how, seed):
    """Two instances on one store, at several places of a capture: (alerts, frames out) of the whole, and of the two."""
    frames = busy_traffic(seed, 20, b"hello")
    redis.clear()
    whole = run(frames, *how[0], store=redis.url)
    for cut in sorted(random.Random(seed).sample(range(140, len(frames)), 5)):
        redis.clear()
        one = run(frames[:cut], *how[0], store=redis.url, name="one")
        two = run(frames[cut:], *how[1], store=redis.url, name="two")
        for a in two.alerts:
            a["packet"] += cut
        yield cut, whole, one, two


@pytest.mark.parametrize("how", [("kept", "kept"), ("kept", "each"), ("each", "kept")])
def test_cut_anywhere(run, redis, how):
    """An instance goes on where another has stopped, whichever way each of them has its state."""
    if run.nf != "ips":
        pytest.skip("written with callbacks nothing is kept")
    for cut, whole, one, two in cut_anywhere(run, redis, [("--state", h) for h in how], 4):
        def found(alerts):
            return sorted((a["packet"], a["rule"], a["src_port"], a["offset"]) for a in alerts)
        assert found(one.alerts + two.alerts) == found(whole.alerts), f"cut before frame {cut + 1}"
        assert one.out + two.out == whole.out, f"cut before frame {cut + 1}"


def test_another_instance_carries_on(run, redis):
    """At every packet of a connection one instance stops and another goes on with what is in Redis."""
    frames = []
    c = Connection(frames).open().send(b"GET /evi").answer(b"what?").send(b"l|").answer(b"what?").send(b"stuff").close()
    whole = run(frames)
    assert whole.found("offset") == [(15,)]
    for cut in range(4, len(whole.out) + 1):
        redis.clear()
        one = run(frames[:cut], store=redis.url, name="one")
        two = run(frames[cut:], store=redis.url, name="two")
        assert one.alerts == []
        assert two.found("rule", "offset") == [(1001, 15)], f"cut before frame {cut + 1}"
        assert one.out + two.out == whole.out, f"cut before frame {cut + 1}"


def test_another_instance_knows_who_the_client_is(run, redis):
    """The ports alone would say that port 79 is the server's."""
    frames = []
    c = Connection(frames, port=79).open().send(b"hello").answer(b"for the ")
    cut = len(frames)
    c.answer(b"client")
    redis.clear()
    run(frames[:cut], store=redis.url, name="one")
    two = run(frames[cut:], store=redis.url, name="two")
    assert two.found("rule", "to") == [(1004, "client")]


# ---- whose handshake it is
def a_stray_packet_first(c):
    c.frame(0, "SA")
    c.open()


def a_syn_after_the_answer(c):
    c.open()
    c.frames.pop()
    c.frame(0, "S", seq=c.next[0] + 900000)
    c.frame(0, "A")


def a_syn_with_a_byte_then_another(c):
    c.frame(0, "S", b"x", seq=c.next[0] + 900000)
    c.frame(1, "SA")
    c.frame(0, "R", seq=c.next[0] + 900001)
    c.open()


@pytest.mark.parametrize("begin", [a_stray_packet_first, a_syn_after_the_answer, a_syn_with_a_byte_then_another])
def test_a_strange_beginning_hides_nothing(run, begin):
    frames = []
    c = Connection(frames)
    begin(c)
    c.send(b"for the server")
    r = run(frames, rules='id=1 action=drop to=server content="for the server" msg="to the server"\n')
    assert r.found("rule", "to") == [(1, "server")]
    assert all(b"for the server" not in f for f in r.out)


def test_a_blocked_flow_stays_blocked(run, redis):
    frames = []
    c = Connection(frames).open().answer(b"hello").send(EVIL)
    cut = len(frames)
    c.send(b"more").answer(b"more")
    for later in frames[cut:], frames[cut + 2:]:
        redis.clear()
        assert len(run(frames[:cut], store=redis.url, name="one").alerts) == 1
        two = run(later, store=redis.url, name="two")
        assert two.out == [] and two.alerts == []


def test_closed_flows_leave_nothing_behind(run, redis):
    frames = []
    for i in range(10):
        Connection(frames, 40000 + i).open().send(b"hello").answer(b"hello")
    redis.clear()
    run(frames, store=redis.url)
    assert redis.keys() == 20
    frames = []
    for i in range(10):
        Connection(frames, 40000 + i).open().send(b"hello").answer(b"hello").close()
    r = run(frames, store=redis.url, later=60)
    assert r.status == 0 and r.passed == frames
    assert redis.keys() == 0


def test_records_have_a_time_to_live(run, redis):
    frames = []
    Connection(frames).open().send(b"hello")
    redis.clear()
    run(frames, "--ttl", "77", store=redis.url)
    key = redis.ask("KEYS", "ips:*").split(b"\r\n")[2]
    with socket.create_connection(("127.0.0.1", redis.port), 5) as s:
        s.sendall(b"*2\r\n$3\r\nTTL\r\n$%d\r\n%s\r\n" % (len(key), key))
        assert 0 < int(s.recv(100)[1:]) <= 77


def test_no_store_fails_closed_or_open(run):
    frames = []
    Connection(frames).open().send(b"hello").answer(b"hello").close()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{s.getsockname()[1]}"
        closed = run(frames, "--budget", "50ms", store=url, name="closed")
        opened = run(frames, "--budget", "50ms", "--fail", "open", store=url, name="open")
    for r in closed, opened:
        if r.status != 0:   # a store that cannot be reached may be refused at the start
            assert "127.0.0.1" in r.text
    if closed.status == 0:
        assert closed.bytes_from(40000) == b""
    if opened.status == 0:
        assert opened.out == frames
