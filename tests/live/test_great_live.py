# SPDX-License-Identifier: Apache-2.0
"""Everything at once: a Redis cluster of three masters with a replica each, two instances, and a crowd of real connections through
nat, firewall and lb, each in turn, while instances are killed and replaced, traffic moves between them at random packets, a
master is killed and its replica takes over, a node is paused, and an instance is paused and wakes as an old owner.

No connection may break, every download is byte-identical, attackers get nothing through, and the history of what the store
was told (history.py) has no lost and no doubled update.

GREAT_CONNECTIONS says how many connections (96; `make great`: 2000), GREAT_NFS which NFs (nat,firewall,lb; with sanitizers
firewall; ips can be asked for), GREAT_STORE what stands behind the store's URL (?replicas=1), GREAT_SEED another order of
things. In `make check` an instance is paused for 6 s and a node for 2 s, in `make great` for 10 s and 3 s; ten instances are
killed in both.
"""
import collections
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from cluster import Cluster
from history import History, shared_ports
from lab import CLIENT4, DROPPED, RULES, SERVER4, NetStar, Process, netstar_binary, run, wait_for
from two_ways import FastTwoWays

CONNECTIONS = int(os.environ.get("GREAT_CONNECTIONS", "96"))
FULL = CONNECTIONS >= 1000
KILLS, SEED = 10, int(os.environ.get("GREAT_SEED", "1"))
NODE_PAUSE, INSTANCE_PAUSE = (3, 10) if FULL else (2, 6)
NFS = os.environ.get("GREAT_NFS", "firewall" if os.environ.get("SANITIZE") else "nat,firewall,lb").split(",")
VIP, PUBLIC, OUTSIDER, FORBIDDEN, STRAY = "10.99.0.10", "10.88.0.1", "10.78.0.9", 22, 999
BACKENDS = {f"10.78.0.{i}": name for i, name in enumerate("abc", 1)}
INSIDE = [CLIENT4, "10.79.0.1", "10.79.0.2"]
CROWD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "crowd.py")
FIREWALL_RULES = "allow in tcp port 8080-8083\nallow icmp type echo-request\ndefault drop\n"
SERVICES = "".join(f"service s{p} tcp {VIP}:{p} {{\n" + "".join(f"    backend {n} {a}:{p}\n" for a, n in BACKENDS.items()) + "}\n"
                   for p in (8080, 8081, 8082, 8083))
PORTS = [8080, 8081, 8082, 8083]


@pytest.fixture
def net():
    with FastTwoWays(often=0.1, seed=SEED) as lab:
        for address in [*BACKENDS, OUTSIDER]:
            run("ip", "-n", lab.server, "addr", "add", f"{address}/32", "dev", "lo")
        for address in INSIDE[1:]:
            run("ip", "-n", lab.client, "addr", "add", f"{address}/32", "dev", "lo")
        for ns, to, via in ((lab.client, VIP, SERVER4), (lab.client, "10.78.0.0/24", SERVER4),
                            (lab.server, PUBLIC, CLIENT4), (lab.server, "10.79.0.0/24", CLIENT4)):
            run("ip", "-n", ns, "route", "add", to, "via", via)
        for ns in lab.client, lab.server:
            run("ip", "netns", "exec", ns, "sysctl", "-qw", "net.core.somaxconn=4096", "net.ipv4.tcp_max_syn_backlog=4096",
                "net.ipv4.ip_local_port_range=20000 60000", "net.ipv4.tcp_syncookies=0")
        yield lab


class Member(NetStar):
    """One of the two instances: by its name it can be told from the one that it replaces."""

    def __init__(self, lab, url, way, words):
        super().__init__(lab, url, "")
        self.argv = [netstar_binary(), "run", *words, "--ports", ",".join(lab.ways[way]), "--store", url, "--report",
                     self.report_path, "--budget", "500ms", "--instance", f"way{way}", "--control", os.path.join(lab.dir, "run")]


class Talker:
    """The crowd's server or client."""

    def __init__(self, lab, role, ns, config):
        self.log = lab.path(role + ".json")
        self.process = Process([sys.executable, "-B", CROWD, role, lab.write(role, json.dumps(config)), self.log],
                               lab.path(role + ".log"), ns)

    def says(self, what, seconds):
        wait_for(lambda: what in self.process.text() or not self.process.alive(), seconds, f"{what!r}")
        assert self.process.alive(), self.process.text()

    def finish(self, seconds):
        self.process.signal(signal.SIGTERM)
        assert self.process.wait(seconds) == 0, self.process.text()
        with open(self.log, encoding="utf-8") as f:
            return json.load(f)


def plan(nf):
    """What each NF is started with, what the crowd does, and what its attackers do."""
    server = {"listen": PORTS, "names": BACKENDS, "short": 12000, "chunk": 1200}
    share = CONNECTIONS // 8
    client = {"crowd": {"long": 3 * share, "idle": CONNECTIONS - 5 * share - 2, "short": 2 * share, "chat": 2},
              "per_second": 200, "from": INSIDE if nf == "nat" else [CLIENT4],
              "to": [[VIP if nf == "lb" else "10.78.0.1", p] for p in PORTS]}
    attack = {"to": [client["to"][0][0], FORBIDDEN], "patience": 1.5, "pause": 0.3, "parts": ["attack\n"], "at_once": 3}
    if nf == "nat":
        words = ["nat", "--public", PUBLIC, "--inside", ",".join(INSIDE), "--filter", "port", "--lease", "5"]
        client["outsider"] = OUTSIDER
        return words, None, server, client
    if nf == "firewall":
        server |= {"forbidden": [FORBIDDEN], "stray": STRAY}
        client |= {"attack": attack, "stray": STRAY}
        return ["firewall", "--rules"], FIREWALL_RULES, server, client
    if nf == "lb":
        server |= {"forbidden": [FORBIDDEN], "stray": STRAY}
        client |= {"stray": STRAY}
        return ["lb", "--services"], SERVICES, server, client
    third = len(DROPPED) // 3
    parts = [DROPPED[:third], DROPPED[third:2 * third], DROPPED[2 * third:]]
    client["attack"] = attack | {"to": client["to"][0], "parts": ["attack\n", *(p.decode() for p in parts), " end\n"]}
    return ["ips", "--alerts", "/dev/null", "--rules"], RULES, server, client


class Outsider:
    """Whom nobody inside has talked to, and who knocks at the NAT's ports."""

    def __init__(self, lab):
        self.knocks, self.random = 0, random.Random(SEED)
        with lab.enter(lab.server):
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
        self.raw.bind((OUTSIDER, 0))

    def knock(self):
        """A segment to each of a hundred ports: the lowest are those that are taken first."""
        for _ in range(100):
            port = 1024 + self.random.randrange(max(256, 2 * CONNECTIONS))
            self.raw.sendto(port_segment(OUTSIDER, PUBLIC, port), (PUBLIC, 0))
            self.knocks += 1

    def close(self):
        self.socket.close()
        self.raw.close()


def port_segment(src, dst, port):
    segment = port.to_bytes(2, "big").join([b"\x1f\x90", bytes.fromhex("00000001000000015010100000000000")])
    data = socket.inet_aton(src) + socket.inet_aton(dst) + b"\0\x06" + len(segment).to_bytes(2, "big") + segment
    total = sum(int.from_bytes(data[i:i + 2], "big") for i in range(0, len(data), 2))
    total = (total & 0xffff) + (total >> 16)
    return segment[:16] + (~(total + (total >> 16)) & 0xffff).to_bytes(2, "big") + segment[18:]


class Show:
    """What happens meanwhile."""

    def __init__(self, lab, cluster, words, url, outsider):
        self.lab, self.cluster, self.words, self.url, self.outsider = lab, cluster, words, url, outsider
        self.members = [Member(lab, url, way, words).start() for way in (0, 1)]
        self.killed, self.random, self.texts = 0, random.Random(SEED), []

    def note(self, text):
        if os.environ.get("GREAT_TELL"):
            print(f"{time.time():.3f} {text}", flush=True)

    def kill(self, way):
        self.note(f"kill {way}")
        self.members[way].kill()
        self.texts.append(self.members[way].text())
        time.sleep(0.2)  # until the switch notices
        self.lab.send_by(way, False)
        self.members[way] = Member(self.lab, self.url, way, self.words).start()
        self.lab.send_by(way, True)
        self.killed += 1
        if self.outsider:
            self.outsider.knock()
        time.sleep(self.random.uniform(0.3, 1.0))

    def kills(self, n):
        for _ in range(n):
            self.kill(self.random.randrange(2))

    def pause(self, way):
        self.note(f"pause {way}")
        self.members[way].process.signal(signal.SIGSTOP)
        time.sleep(0.2)
        self.lab.send_by(way, False)
        ends = time.monotonic() + INSTANCE_PAUSE
        self.kills_other(1 - way)
        time.sleep(max(0, ends - time.monotonic()))
        self.note(f"wake {way}")
        self.members[way].process.signal(signal.SIGCONT)
        time.sleep(0.2)
        self.lab.send_by(way, True)

    def kills_other(self, way):
        self.kill(way)
        self.kill(way)

    def run(self):
        self.kills(3)
        self.note("kill a master")
        self.cluster.lose_master(self.random.randrange(3))
        self.kills(2)
        self.pause(self.random.randrange(2))
        self.kills(1)
        self.note("pause a node")
        self.cluster.pause(self.random.choice(self.cluster.first_masters()), NODE_PAUSE)
        self.kills(KILLS - self.killed)


def check_connections(client, server):
    """None broke, and what came is what was sent."""
    peers = {e["number"]: e for e in server["log"] if e["number"] > 0}
    broken = [(e["number"], e["kind"], e["end"], peers.get(e["number"], {}).get("end")) for e in client["log"]
              if e["end"] != "closed"]
    assert not broken, f"{len(broken)} of {len(client['log'])} broke: {broken[:20]}"
    kinds = collections.Counter(e["kind"] for e in client["log"])
    downloads = [e for e in client["log"] if e["kind"] in ("long", "short")]
    for e in downloads:
        sent = peers[e["number"]]
        assert (e["got"], e["sum"]) == (sent["sent"], sent["sum"]) and e["got"] > 0, (e, sent)
    return peers, kinds


def check_nat(history, client, peers):
    """Seen from outside, one port belongs to one inside end at a time; and so it was said in the store before."""
    assert {e["peer"][0] for e in peers.values()} == {PUBLIC}
    by_port, faults = collections.defaultdict(list), []
    for e in client["log"]:
        peer = peers[e["number"]]
        by_port[peer["peer"][1]].append((peer["t0"], peer.get("t1", e["t1"]), tuple(e["local"])))
        ends = [bytes([6]) + socket.inet_aton(a) + p.to_bytes(2, "big") for a, p in (e["local"], peer["peer"])]
        record = history.at(b"nat:o:" + ends[1], peer["t0"])
        if record is None or record[8:15] != ends[0]:
            faults.append(f"{e['local']} was seen as {peer['peer']} at {peer['t0']}; the store had {record}")
    for port, uses in by_port.items():
        uses.sort()
        for (_, end, one), (begin, _, other) in zip(uses, uses[1:]):
            if begin < end and one != other:
                faults.append(f"port {port} was {one}'s until {end}, and {other}'s from {begin}")
    return faults + shared_ports(history)


def tuple_keys(prefix, a, b):
    ends = [socket.inet_aton(host) + port.to_bytes(2, "big") for host, port in (a, b)]
    return [prefix + b"\x06\0\0" + x + y for x, y in (ends, ends[::-1])]


def check_firewall(history, client, peers):
    """The store knew of each connection before the server did."""
    faults = []
    for e in client["log"]:
        keys = tuple_keys(b"fw:", e["local"], e["to"])
        if not any((history.at(k, peers[e["number"]]["t0"]) or b"")[8:] for k in keys):
            faults.append(f"{e['local']} was let in, and the store did not know")
    return faults


def check_lb(history, client, peers):
    """The store said to which back end each connection goes, and it went there."""
    faults = []
    for e in client["log"]:
        peer = peers[e["number"]]
        records = [history.at(k, peer["t0"]) for k in tuple_keys(b"lb:", e["local"], e["to"])]
        places = {socket.inet_ntoa(r[8 + 22:8 + 26]) for r in records if r}
        if places != {peer["local"][0]}:
            faults.append(f"{e['local']} went to {peer['local']}; the store had {places}")
    return faults


def check_nothing(history, client, peers):
    return []


CHECKS = {"nat": check_nat, "firewall": check_firewall, "lb": check_lb, "ips": check_nothing}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("nf", NFS)
def test_all_at_once(net, nf):
    words, text, server_config, client_config = plan(nf)
    if text:
        words = [*words, net.write("text", text)]
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(net, 1500))
        outsider = Outsider(net) if nf == "nat" else None
        if outsider:
            stack.callback(outsider.close)
        show = Show(net, cluster, words, cluster.url(os.environ.get("GREAT_STORE", "?replicas=1")), outsider)
        stack.callback(lambda: [m.process.kill() for m in show.members])
        server = Talker(net, "server", net.server, server_config)
        stack.callback(server.process.kill)
        server.says("ready", 20)
        client = Talker(net, "client", net.client, client_config)
        stack.callback(client.process.kill)
        client.says("all are there", 60 + CONNECTIONS / 20)
        show.run()
        seen = client.finish(200)
        got = server.finish(20)
        reports = []
        for m in show.members:
            status, report = m.interrupt()
            assert status == 0, m.text()
            reports.append(report)
        masters = [next(n for n in cluster.nodes if n.record == chain[-1][0]) for chain in cluster.histories()]
        time.sleep(0.5)  # for what the monitors have yet to write
        history = History(cluster.histories(), (b"nat:", b"fw:", b"lb:", b"ips:"))
        moves = net.count_moves()
        delays = seen["delays"]
        print(f"\n{nf}: {len(seen['log'])} connections, {sum(e['got'] for e in seen['log'])} bytes, {moves} moves, "
              f"{show.killed} kills, {len(cluster.lost)} masters replaced, {len(history.events)} changes in the store, "
              f"{len(history.lost)} lost by it, {history.discarded} done and thrown away by masters that were none any more, chat {len(delays)} times, median {delays[len(delays) // 2] * 1e3:.1f} ms, longest "
              f"{delays[-1]:.1f} s, attacks {seen['attacks']}, watched {got['watched'] | seen['watched']}\n  "
              + "\n  ".join(str(r["module"]) for r in reports))
        history.compare([m.ask for m in masters])
    assert seen["there"] == sum(client_config["crowd"].values())
    peers, kinds = check_connections(seen, got)
    assert all(kinds[k] >= n for k, n in client_config["crowd"].items()) and kinds["short"] > client_config["crowd"]["short"]
    assert moves > 50 and show.killed == KILLS and len(cluster.lost) >= 1
    assert not any((got["watched"] | seen["watched"]).values()), "what is forbidden came through"
    if "attack" in client_config:
        assert seen["attacks"]["tried"] > 10
        whole = "".join(client_config["attack"]["parts"][1:-1]) if nf == "ips" else "attack"
        arrived = [e["got"] for e in got["log"] if e["kind"] == "attack"]
        assert not [a for a in arrived if whole in a]
        assert (nf == "ips") == (len([a for a in arrived if len(a) > len("attack\n")]) > 5), arrived
    assert not history.faults, history.faults[:10]
    assert len(history.events) > len(seen["log"])
    faults = CHECKS[nf](history, seen, peers)
    assert not faults, f"{len(faults)}: {faults[:10]}"
