# SPDX-License-Identifier: Apache-2.0
"""The firewall between a real client and a real server, with a real Redis: what passes and what does not, instances that are
killed, rules that change under open connections."""
import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time

import pytest
from lab import SERVER4, SERVER6, NetStar, Process, entered, netstar_binary, wait_for

BLOB = os.urandom(3 << 20)
OPEN = """\
allow in tcp port 80,7777,5201
allow in udp port 9999
allow icmp type echo-request
allow icmp6 type echo-request
"""


class Firewall(NetStar):
    def __init__(self, lab, redis, text, *extra):
        super().__init__(lab, redis.url, lab.write("fw.rules", text) if "\n" in text else text)
        self.path = self.argv[self.argv.index("--rules") + 1]
        self.decisions = lab.path("decisions")
        self.argv = [netstar_binary(), "run", "firewall", "--ports", ",".join(lab.ports), "--store", redis.url, "--rules",
                     self.path, "--log", self.decisions, "--report", self.report_path, *extra]

    def reload(self, text):
        with open(self.path + ".new", "w", encoding="utf-8") as f:
            f.write(text)
        os.rename(self.path + ".new", self.path)
        before = self.text().count("reload")
        self.process.signal(signal.SIGHUP)
        wait_for(lambda: self.text().count("reload") > before, 10, "the reload; it said\n" + self.text())

    def logged(self):
        with open(self.decisions, encoding="utf-8") as f:
            return [json.loads(line) for line in f if line.endswith("\n")]


def finish(netstar):
    status, report = netstar.interrupt()
    assert status == 0, netstar.text()
    e = report["engine"]
    assert e["packets"] == e["forwarded"] + e["sent_by_handler"] + sum(e["dropped"].values()), e
    return report["module"]


class Echo:
    """A UDP server in the server's namespace that sends back what comes."""

    def __init__(self, lab, port=9999):
        with entered(lab.server):
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((SERVER4, port))
        self.socket.settimeout(0.2)
        self.ended = False
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while not self.ended:
            with contextlib.suppress(TimeoutError, ConnectionError):
                data, peer = self.socket.recvfrom(2000)
                self.socket.sendto(data, peer)

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.ended = True
        self.thread.join()
        self.socket.close()


def datagrams(lab):
    with entered(lab.client):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(0.5)
    return s


def echoes(s, text, tries=6, port=9999):
    """Some datagrams may be lost; one of them has to come back."""
    for _ in range(tries):
        with contextlib.suppress(TimeoutError):
            s.sendto(text, (SERVER4, port))
            if s.recv(2000) == text:
                return True
    return False


def pings(lab, host):
    """Nobody sends an echo again that waited too long for the store; one of a few has to come back."""
    for n in range(4):
        with contextlib.suppress(TimeoutError) if n < 3 else contextlib.nullcontext():
            lab.ping(host, 3)
            return


def arrived(sink, data, seconds=8):
    wait_for(lambda: data in sink.all(), seconds, f"{data!r} at the server")


@pytest.mark.parametrize("cores", [1, 2])
def test_what_passes_and_what_does_not(lab, nginx, sink, redis, cores):
    digest = nginx.add("blob", BLOB)
    text = OPEN + "reject in tcp port 23 log\ndefault drop log\n"
    with Firewall(lab, redis, text, "--cores", str(cores)) as netstar, Echo(lab):
        assert lab.curl(f"http://{SERVER4}/blob") == (0, digest, len(BLOB))
        assert lab.curl(f"http://[{SERVER6}]/blob") == (0, digest, len(BLOB))
        pings(lab, SERVER4)
        pings(lab, SERVER6)
        with datagrams(lab) as s:
            assert echoes(s, b"hello")
            assert not echoes(s, b"hello", 2, 9998)
        with pytest.raises(ConnectionRefusedError):
            lab.connect(23)
        with pytest.raises(TimeoutError):
            lab.connect(22, timeout=1.5)
        with entered(lab.server), socket.socket() as s: # nothing may be opened from there
            s.settimeout(1.5)
            with pytest.raises(TimeoutError):
                s.connect(("10.77.0.1", 80))
        wait_for(lambda: {e.get("dst_port") for e in netstar.logged()} >= {22, 23, 80, 9998}, 5, "the log")
        counts = finish(netstar)
    assert counts["connections_allowed"] >= 5 and counts["packets_refused_with_an_answer"] >= 1
    assert counts["neighbour_discovery"] >= 1
    sides = {(e["dst_port"], e["side"], e["action"]) for e in netstar.logged() if "dst_port" in e}
    assert {(23, "in", "reject"), (22, "in", "drop"), (80, "out", "drop")} <= sides


def test_downloads_outlive_instances(lab, nginx, sink, redis):
    digest = nginx.add("long", BLOB)
    netstar = Firewall(lab, redis, OPEN + "default drop\n").start()
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(Echo(lab))
            talk = stack.enter_context(datagrams(lab))
            assert echoes(talk, b"before")
            idle = [stack.enter_context(lab.connect(sink.port)) for _ in range(10)]
            downloads = [lab.download(f"http://{SERVER4}/slow/long", 90) for _ in range(12)]
            wait_for(lambda: all(d.size() > 0 for d in downloads), 20, "the downloads to begin")
            for n in range(3):
                netstar.kill()
                netstar = Firewall(lab, redis, netstar.path).start()
                idle[n].sendall(b"after kill %d;" % n)
                time.sleep(0.3)
            assert [d.finish() for d in downloads] == [(0, digest, len(BLOB))] * len(downloads), netstar.text()
            for n, s in enumerate(idle): # silent all the while, but for the first
                s.sendall(b"idle %d is there;" % n)
                arrived(sink, b"idle %d is there;" % n)
            assert echoes(talk, b"after")
            counts = finish(netstar)
    finally:
        if netstar.process.alive():
            netstar.kill()
    assert counts["connections_taken_over"] >= len(idle)


def records(redis):
    """Of connections of TCP: behind the prefix stands the protocol."""
    return [k for k in redis.keys() if k.startswith(b"fw:\x06")]


def test_a_record_goes_with_its_connection(lab, nginx, redis):
    nginx.add("small", b"x" * 1000)
    with Firewall(lab, redis, OPEN, "--ttl", "600") as netstar:
        with lab.connect() as s:
            wait_for(lambda: len(records(redis)) == 1, 5, "a record")
            s.sendall(b"GET /small HTTP/1.0\r\n\r\n")
            assert s.makefile("rb").read().endswith(b"x" * 1000)
        wait_for(lambda: not records(redis), 25, "the record to go")
        counts = finish(netstar)
    assert counts["records_not_deleted"] == 0


def test_new_rules_cut_what_they_must(lab, nginx, sink, redis):
    with Firewall(lab, redis, OPEN + "default drop\n") as netstar, lab.connect(sink.port) as a, lab.connect(80) as b, \
            Echo(lab), datagrams(lab) as talk:
        a.sendall(b"allowed")
        arrived(sink, b"allowed")
        assert echoes(talk, b"allowed")
        netstar.reload("allow in tcp port 80\nreject in tcp port 7777\ndefault drop\n")
        a.sendall(b"denied")
        with pytest.raises((ConnectionResetError, BrokenPipeError)): # rejected: so it finds out at once
            a.recv(1)
            a.sendall(b"denied")
        assert not echoes(talk, b"denied", 3)
        b.sendall(b"GET / HTTP/1.0\r\n\r\n") # what is still allowed goes on
        assert b.recv(12).startswith(b"HTTP/1.1 ")
        with pytest.raises(ConnectionRefusedError):
            lab.connect(sink.port)
        netstar.reload(OPEN + "default drop\n")
        assert echoes(talk, b"allowed again")
        with lab.connect(sink.port) as s:
            s.sendall(b"again")
            arrived(sink, b"again")
        # A file with a mistake changes nothing.
        netstar.reload("allwo in tcp\n")
        assert "did you mean allow?" in netstar.text()
        with lab.connect(sink.port) as s:
            s.sendall(b"still")
            arrived(sink, b"still")
        counts = finish(netstar)
    assert b"denied" not in sink.all()
    assert counts["connections_cut_by_new_rules"] >= 2


def test_other_rules_elsewhere(lab, sink, redis):
    """An instance that takes over with other rules goes by those, and `connections keep` lets stay what there is."""
    with lab_connection(lab, sink, redis) as s:
        with Firewall(lab, redis, "connections keep\ndefault drop\n") as netstar:
            s.sendall(b"kept")
            arrived(sink, b"kept")
            netstar.kill()
        with Firewall(lab, redis, "default drop\n") as netstar:
            s.sendall(b"cut")
            time.sleep(1.5)
            counts = finish(netstar)
    assert b"cut" not in sink.all()
    assert counts["connections_cut_by_new_rules"] == 1


@contextlib.contextmanager
def lab_connection(lab, sink, redis):
    """A connection that an instance had allowed which is dead by now."""
    with Firewall(lab, redis, OPEN) as netstar, lab.connect(sink.port) as s:
        s.sendall(b"begin;")
        arrived(sink, b"begin;")
        netstar.kill()
        yield s


def test_the_store_goes_and_comes(lab, nginx, sink, redis):
    nginx.add("small", b"small")
    with Firewall(lab, redis, OPEN, "--budget", "50ms") as netstar, lab.connect(sink.port) as s:
        s.sendall(b"before;")
        arrived(sink, b"before;")
        time.sleep(0.2)
        redis.pause()
        try:
            for n in range(5):
                s.sendall(b"meanwhile %d;" % n)
                arrived(sink, b"meanwhile %d;" % n)
            assert lab.curl(f"http://{SERVER4}/small", 1)[0] != 0, "nothing new without a record"
        finally:
            redis.resume()
        wait_for(lambda: lab.curl(f"http://{SERVER4}/small", 2)[0] == 0, 20, "a new connection")
        finish(netstar)


def test_many_connections_at_once(lab, redis):
    """iperf3 with 64 streams, the instance replaced in its middle."""
    server = Process(["iperf3", "-s", "-1", "-B", SERVER4], lab.path("iperf-server"), lab.server)
    netstar = Firewall(lab, redis, OPEN).start()
    try:
        time.sleep(0.5)
        client = subprocess.Popen(["ip", "netns", "exec", lab.client, "iperf3", "-c", SERVER4, "-t", "8", "-P", "64", "-b", "500K",
                                   "-J"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        time.sleep(3)
        netstar.kill()
        netstar = Firewall(lab, redis, netstar.path).start()
        out = client.communicate(timeout=60)[0]
        assert client.returncode == 0, out
        streams = json.loads(out)["end"]["streams"]
        assert len(streams) == 64 and all(s["receiver"]["bytes"] > 100000 for s in streams)
        counts = finish(netstar)
    finally:
        server.kill()
        if netstar.process.alive():
            netstar.kill()
    assert counts["connections_taken_over"] >= 64
