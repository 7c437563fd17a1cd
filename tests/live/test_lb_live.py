# SPDX-License-Identifier: Apache-2.0
"""The load balancer between a real client and real back ends, with a real Redis: instances that are killed, back ends that die
and come back, drain, and are replaced, while connections go on.

    client 10.77.0.1 --- netstar --- 10.77.0.2, a router, and behind it back ends 10.78.0.1, .2, .3
                            |            the service 10.99.0.10 is routed there
                        10.76.0.0/30: the middle's own way to the back ends, for checks
"""
import contextlib
import hashlib
import json
import os
import signal
import socket
import time

import pytest
from lab import CLIENT4, SERVER4, Lab, LabError, NetStar, Process, Redis, entered, netstar_binary, run, wait_for

VIP, PORT = "10.99.0.10", 8080
BLOB = os.urandom(3 << 20)
DIGEST = hashlib.sha256(BLOB).hexdigest()


@pytest.fixture(scope="module")
def net():
    """A lab of its own: its routes are not those of the others."""
    with Lab() as lab:
        run("ip", "link", "add", "h0", "netns", lab.middle, "type", "veth", "peer", "name", "h1", "netns", lab.server)
        for ns, dev, addr in ((lab.middle, "h0", "10.76.0.1/30"), (lab.server, "h1", "10.76.0.2/30")):
            run("ip", "-n", ns, "addr", "add", addr, "dev", dev)
            run("ip", "-n", ns, "link", "set", dev, "up")
        for i in 1, 2, 3:
            run("ip", "-n", lab.server, "addr", "add", f"10.78.0.{i}/32", "dev", "lo")
        run("ip", "-n", lab.middle, "route", "add", "10.78.0.0/24", "via", "10.76.0.2")
        run("ip", "-n", lab.client, "route", "add", f"{VIP}/32", "via", SERVER4)
        yield lab


class Backend:
    """An nginx at an address of its own: /who says its name; /slow/blob comes at half a megabyte a second."""

    def __init__(self, lab, name, addr):
        self.lab, self.name, self.addr = lab, name, addr
        self.dir = lab.path("backend-" + name)
        os.makedirs(self.dir + "/www")
        for file, data in (("who", name.encode()), ("health", b"well"), ("blob", BLOB)):
            with open(f"{self.dir}/www/{file}", "wb") as f:
                f.write(data)
        temp = "".join(f"    {k}_temp_path {self.dir}/{k};\n" for k in
                       ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        with open(self.dir + "/conf", "w", encoding="utf-8") as f:
            f.write(f"""daemon off;
master_process off;
user root;
pid {self.dir}/pid;
error_log {self.dir}/error.log;
events {{ worker_connections 512; }}
http {{
{temp}    access_log off;
    sendfile off;
    server {{
        listen {addr}:{PORT};
        root {self.dir}/www;
        location /slow/ {{ alias {self.dir}/www/; limit_rate 500k; }}
    }}
}}
""")
        self.process = None

    def start(self):
        self.process = Process(["/usr/sbin/nginx", "-p", self.dir, "-c", self.dir + "/conf", "-e", self.dir + "/error.log"],
                               self.lab.path("nginx.log"), self.lab.server)
        wait_for(self._listens, 10, "nginx at " + self.addr)
        return self

    def _listens(self):
        if not self.process.alive():
            raise LabError("nginx does not start: " + self.process.text())
        with entered(self.lab.server), contextlib.closing(socket.socket()) as s:
            return s.connect_ex((self.addr, PORT)) == 0

    def kill(self):
        self.process.kill()


@pytest.fixture
def backends(net):
    all = {name: Backend(net, name, f"10.78.0.{i}").start() for i, name in enumerate("abc", 1)}
    yield all
    for b in all.values():
        b.kill()


def services(more="", **words):
    """The service, with words for one back end or the other."""
    lines = "".join(f"    backend {n} 10.78.0.{i}:{PORT} {words.get(n, '')}\n" for i, n in enumerate("abc", 1)
                    if words.get(n) is not None or n not in words)
    return (f"service web tcp {VIP}:80 {{\n    check http \"/health\" every 200ms timeout 500ms rise 2 fall 2\n{more}{lines}}}\n")


class Balancer(NetStar):
    def __init__(self, lab, redis, path, *extra):
        super().__init__(lab, redis.url, path)
        self.path = path
        self.argv = [netstar_binary(), "run", "lb", "--ports", ",".join(lab.ports), "--store", redis.url, "--services", path,
                     "--report", self.report_path, *extra]

    def reload(self, text):
        with open(self.path + ".new", "w", encoding="utf-8") as f:
            f.write(text)
        os.rename(self.path + ".new", self.path)
        before = self.text().count("reload")
        self.process.signal(signal.SIGHUP)
        wait_for(lambda: self.text().count("reload") > before, 10, "the reload; it said\n" + self.text())


@pytest.fixture
def redis(net):
    with Redis(net) as it:
        yield it


def who(net, seconds=5):
    """Asks the service who it is, on a connection of its own."""
    d = net.download(f"http://{VIP}/who", seconds)
    status, _, _ = d.finish()
    if status != 0:
        return None
    with open(d.path, encoding="ascii") as f:
        return f.read()


def finish(netstar):
    status, report = netstar.interrupt()
    assert status == 0, netstar.text()
    e = report["engine"]
    assert e["packets"] == e["forwarded"] + e["sent_by_handler"] + sum(e["dropped"].values()), e
    return report["module"]


@pytest.mark.parametrize("cores", [1, 2])
def test_downloads_outlive_instances(net, redis, backends, cores):
    path = net.write("services", services())
    extra = ["--cores", str(cores)]
    netstar = Balancer(net, redis, path, *extra).start()
    try:
        downloads = [net.download(f"http://{VIP}/slow/blob", 90) for _ in range(18)]
        idle = [net.connect(80, VIP) for _ in range(10)]
        wait_for(lambda: all(d.size() > 0 for d in downloads), 20, "the downloads to begin")
        for _ in range(3):
            netstar.kill()
            netstar = Balancer(net, redis, path, *extra).start()
            time.sleep(0.5)
        results = [d.finish() for d in downloads]
        assert results == [(0, DIGEST, len(BLOB))] * len(downloads), netstar.text()
        for s in idle: # open all the while, and silent
            s.sendall(b"GET /who HTTP/1.0\r\n\r\n")
            assert s.makefile("rb").read()[-1:] in (b"a", b"b", b"c")
            s.close()
        counts = finish(netstar)
    finally:
        if netstar.process.alive():
            netstar.kill()
    assert counts["connections_taken_over"] >= 2 * len(downloads)
    assert counts["packets_of_unknown_connections"] == 0


def test_a_back_end_dies_and_comes_back(net, redis, backends):
    with Balancer(net, redis, net.write("services", services())) as netstar:
        assert {who(net) for _ in range(40)} == {"a", "b", "c"}
        backends["b"].kill()
        wait_for(lambda: "back end b is not there" in netstar.text(), 10, "the checks to notice")
        assert {who(net) for _ in range(40)} == {"a", "c"}
        backends["b"].start()
        wait_for(lambda: "back end b is there again" in netstar.text(), 10, "the checks to notice")
        assert {who(net) for _ in range(40)} == {"a", "b", "c"}
        for b in backends.values():
            b.kill()
        wait_for(lambda: netstar.text().count("is not there") == 4, 10, "the checks to notice all")
        with pytest.raises(ConnectionRefusedError):
            net.connect(80, VIP)
        counts = finish(netstar)
    assert counts["back_ends_gone"] == 4 and counts["back_ends_come_back"] == 1
    assert counts["without_a_back_end"] >= 1


def test_an_instance_that_starts_late_finds_out_who_is_there(net, redis, backends):
    backends["a"].kill()
    with Balancer(net, redis, net.write("services", services())) as netstar:
        wait_for(lambda: "back end a is not there" in netstar.text(), 10, "the first check")
        assert {who(net) for _ in range(30)} == {"b", "c"}
        finish(netstar)


def owner(net, redis, port):
    """Which back end the record of the client's port names."""
    key = b"lb:\x06\x00\x00" + socket.inet_aton(CLIENT4) + port.to_bytes(2, "big") + socket.inet_aton(VIP) + b"\x00\x50"
    value = redis.ask("GET", key)
    assert value is not None and len(value) == 8 + 48
    return socket.inet_ntoa(value[8 + 2 + 19 + 1:][:4])


def ask_kept(s):
    s.sendall(b"GET /who HTTP/1.1\r\nHost: x\r\n\r\n")
    got = b""
    while not got.endswith((b"\r\n\r\na", b"\r\n\r\nb", b"\r\n\r\nc")):
        more = s.recv(4096)
        assert more, "the connection has ended"
        got += more
    return got[-1:].decode()


def test_draining_and_reload(net, redis, backends):
    """Nothing new for a back end that drains; what it has goes on, over a reload and a new instance, until the limit."""
    path = net.write("services", services())
    with contextlib.ExitStack() as stack:
        netstar = stack.enter_context(Balancer(net, redis, path))
        kept = [stack.enter_context(net.connect(80, VIP)) for _ in range(20)]
        names = [ask_kept(s) for s in kept]
        assert set(names) == {"a", "b", "c"}
        assert [owner(net, redis, s.getsockname()[1]) for s in kept] == [f"10.78.0.{'abc'.index(n) + 1}" for n in names]
        netstar.reload(services(b="drain"))
        assert {who(net) for _ in range(30)} == {"a", "c"}
        assert [ask_kept(s) for s in kept] == names
        netstar.reload(services(b=None)) # out of the file
        assert {who(net) for _ in range(30)} == {"a", "c"}
        assert [ask_kept(s) for s in kept] == names
        netstar.reload(services(b="drain"))
        netstar.kill()
        netstar = stack.enter_context(Balancer(net, redis, path))
        assert [ask_kept(s) for s in kept] == names
        netstar.reload(services("    drain 1s\n", b="drain"))

        def cut(s):
            with contextlib.suppress(OSError):
                ask_kept(s)
                return False
            return True
        doomed = [s for s, n in zip(kept, names) if n == "b"]
        wait_for(lambda: all(cut(s) for s in doomed), 20, "the drain to end", pause=0.3)
        assert [ask_kept(s) for s, n in zip(kept, names) if n != "b"] == [n for n in names if n != "b"]
        counts = finish(netstar)
    assert counts["cut_at_the_end_of_a_drain"] >= len(doomed)


def test_a_wrong_file_changes_nothing(net, redis, backends):
    with Balancer(net, redis, net.write("services", services())) as netstar:
        with net.connect(80, VIP) as s:
            name = ask_kept(s)
            netstar.reload(services() + "service web2 tcp 10.99.0.11 {\n}\n")
            assert ":6:" in netstar.text() or "expected the service's address and port" in netstar.text()
            assert ask_kept(s) == name
            assert {who(net) for _ in range(30)} == {"a", "b", "c"}
        finish(netstar)


def test_the_store_goes_and_comes(net, redis, backends):
    """Connections that are known go on without it; new ones begin when it is back."""
    with Balancer(net, redis, net.write("services", services()), "--budget", "50ms") as netstar:
        with net.connect(80, VIP) as s:
            name = ask_kept(s)
            redis.pause()
            try:
                assert [ask_kept(s) for _ in range(5)] == [name] * 5
                assert who(net, 1) is None
            finally:
                redis.resume()
            assert wait_for(lambda: who(net), 20, "a new connection") in "abc"
            assert ask_kept(s) == name
        finish(netstar)


def test_direct_return(net, redis, backends):
    """Frames go to the back end's Ethernet address, which has the service's address itself and answers with it."""
    vip = "10.99.0.20"
    mac = json.loads(run("ip", "-j", "-n", net.server, "link", "show", "s0"))[0]["address"]
    run("ip", "-n", net.server, "addr", "add", f"{vip}/32", "dev", "lo")
    # A router that there is not: only what gets another Ethernet address arrives.
    run("ip", "-n", net.client, "neigh", "replace", "10.77.0.99", "lladdr", "02:00:00:00:00:99", "dev", "c0")
    run("ip", "-n", net.client, "route", "add", f"{vip}/32", "via", "10.77.0.99")
    one = Backend(net, "d", vip).start()
    text = f"service direct tcp {vip}:{PORT} {{\n    mode dsr\n    backend d 10.78.0.1 mac {mac}\n}}\n"
    try:
        with Balancer(net, redis, net.write("services", text)) as netstar:
            assert [net.curl(f"http://{vip}:{PORT}/blob") for _ in range(3)] == [(0, DIGEST, len(BLOB))] * 3
            finish(netstar)
    finally:
        one.kill()
