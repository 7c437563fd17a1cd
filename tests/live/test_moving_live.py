# SPDX-License-Identifier: Apache-2.0
"""Two instances at work at once on one Redis, and traffic that goes now by the one and now by the other, each direction for
itself, while instances are killed and replaced: the firewall and the load balancer, with real clients and servers."""
import contextlib
import hashlib
import os
import time

import pytest
from lab import SERVER4, NetStar, Redis, netstar_binary, run, wait_for
from test_lb_live import Backend, ask_kept
from two_ways import TwoWays

VIP = "10.99.0.10"
BLOB = os.urandom(6 << 20)
DIGEST = hashlib.sha256(BLOB).hexdigest()
RULES = "allow in tcp port 8080\nallow icmp type echo-request\ndefault drop\n"
SERVICES = f"service web tcp {VIP}:80 {{\n" + "".join(
    f"    backend {n} 10.78.0.{i}:8080\n" for i, n in enumerate("abc", 1)) + "}\n"


@pytest.fixture
def net():
    with TwoWays() as lab:
        for i in 1, 2, 3:
            run("ip", "-n", lab.server, "addr", "add", f"10.78.0.{i}/32", "dev", "lo")
        for to in (f"{VIP}/32", "10.78.0.0/24"):
            run("ip", "-n", lab.client, "route", "add", to, "via", SERVER4)
        yield lab


@pytest.fixture
def redis(net):
    with Redis(net) as it:
        yield it


class Instance(NetStar):
    def __init__(self, lab, redis, way, nf, option, path):
        super().__init__(lab, redis.url, path)
        self.argv = [netstar_binary(), "run", nf, "--ports", ",".join(lab.ways[way]), "--store", redis.url, option, path,
                     "--report", self.report_path, "--budget", "500ms"]


NFS = {"firewall": ("firewall", "--rules", RULES, "http://10.78.0.1:8080"), "lb": ("lb", "--services", SERVICES, f"http://{VIP}")}


@pytest.mark.parametrize("nf", NFS)
def test_traffic_moves_at_any_packet(net, redis, nf):
    name, option, text, url = NFS[nf]
    path = net.write("text", text)
    with contextlib.ExitStack() as stack:
        backends = [Backend(net, n, f"10.78.0.{i}").start() for i, n in enumerate("abc", 1)]
        for b in backends:
            stack.callback(b.kill)
            with open(b.dir + "/www/blob", "wb") as f:
                f.write(BLOB)
        instances = [Instance(net, redis, way, name, option, path).start() for way in (0, 1)]
        stack.callback(lambda: [i.kill() for i in instances if i.process.alive()])
        idle = [stack.enter_context(net.connect(80 if nf == "lb" else 8080, VIP if nf == "lb" else "10.78.0.1"))
                for _ in range(8)]
        names = [ask_kept(s) for s in idle]
        downloads = [net.download(f"{url}/slow/blob", 120) for _ in range(8)]
        wait_for(lambda: all(d.size() > 0 for d in downloads), 30, "the downloads to begin")
        for n in range(3): # one way is closed while its instance is replaced, as a router does that notices
            way = n % 2
            net.open[way] = False
            instances[way].kill()
            assert [ask_kept(s) for s in idle[:4]] == names[:4]
            instances[way] = Instance(net, redis, way, name, option, path).start()
            net.open[way] = True
            time.sleep(0.3)
        assert [d.finish() for d in downloads] == [(0, DIGEST, len(BLOB))] * len(downloads)
        assert [ask_kept(s) for s in idle] == names
        if nf == "firewall":
            with pytest.raises(TimeoutError):
                net.connect(22, "10.78.0.1", timeout=2)
        counts = []
        for i in instances:
            status, report = i.interrupt()
            assert status == 0, i.text()
            counts.append(report["module"])
            assert report["engine"]["packets"] > 0
    assert net.moves > 50
    assert sum(c["connections_taken_over"] for c in counts) > 8
    if nf == "lb":
        assert set(names) <= {"a", "b", "c"} and len(set(names)) > 1
