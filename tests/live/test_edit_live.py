# SPDX-License-Identifier: Apache-2.0
"""examples/rewrite between real programs: iperf3, nginx and curl, git, DNS, and streams full of the word to replace.

All at once for EDIT_SECONDS (15; `make live`: a minute), on the cores that EDIT_CORES says (2). Not one
connection may break; what is edited is edited exactly as told, and everything else is byte-identical.
"""
import json
import os
import random
import socket
import struct
import threading
import time

import pytest
from lab import ROOT, SERVER4, SERVER6, Lab, LabError, NetStar, Nginx, Process, entered, run, wait_for

SECONDS = int(os.environ.get("EDIT_SECONDS", "15"))
CORES = os.environ.get("EDIT_CORES", "2")
WORD, WITH = b"harbour", b"the old port of call"
STREAM_PORT, GIT_PORT, IPERF_PORT = 7070, 9418, 5201
BLOB = os.urandom(2 << 20).replace(WORD, b"HARBOUR")


def module():
    build = os.environ.get("NETSTAR_BUILD", os.path.join(ROOT, "build"))
    return os.path.join(build, "examples", "rewrite", "rewrite.so")


class Rewrite(NetStar):
    """`netstar run ./rewrite.so` in the middle namespace."""

    def __init__(self, lab, *extra, cores=CORES, ports=None):
        super().__init__(lab, "mem:", "", extra=())
        self.argv = [self.argv[0], "run", module(), "--ports", ",".join(ports or lab.ports), "--report",
                     self.report_path, *(["--cores", cores] if cores != "1" else []), *extra]


def text(rng, size):
    """Bytes among which the word, its beginnings and its ends are frequent."""
    words = [WORD, WORD[:3], WORD[2:], b"harharbour", b"h", b" ", b"quay ", b"\0\xff", WITH]
    out = []
    while size > 0:
        w = rng.choice(words) if rng.random() < 0.3 else b"x" * rng.randint(1, 200)
        out.append(w)
        size -= len(w)
    return b"".join(out)


class Echo:
    """A server that sends back what it got, in pieces of its own, and remembers how it went."""

    def __init__(self, lab, port):
        with entered(lab.server):
            self.listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.one, args=(s,), daemon=True).start()

    @staticmethod
    def one(s):
        with s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            got = b""
            while data := s.recv(65536):
                got += data
            s.sendall(struct.pack("!I", len(got)))  # as it was received, so no word is in it
            rng = random.Random(len(got))
            for at in cuts(rng, got):
                s.sendall(at)

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.listener.close()


def cuts(rng, data):
    at = 0
    while at < len(data):
        n = rng.choice([1, 2, 3, 5, 20, 700, 1448, 5000, 60000])
        yield data[at:at + n]
        at += n


class Dns:
    """dnsmasq with a few names of its own."""

    def __init__(self, lab, names):
        self.process = Process(["dnsmasq", "-k", "-C", "/dev/null", "--no-resolv", "--no-hosts", "--user=root",
                                "--pid-file=" + lab.path("dnsmasq.pid"), "--bind-interfaces", "--interface=s0",
                                "--except-interface=lo", "--port=53",
                                *(f"--address=/{n}/{a}" for n, a in names.items())], lab.path("dnsmasq.log"), lab.server)
        self.lab = lab

    def __enter__(self):
        wait_for(self.answers, 10, "dnsmasq: " + self.process.text())
        return self

    def answers(self):
        with entered(self.lab.server), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.2)
            s.sendto(query(1, "probe.test"), (SERVER4, 53))
            try:
                return s.recv(512)
            except OSError:
                return None

    def __exit__(self, *what):
        self.process.kill()


def name_of(name):
    return b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + b"\0"


def query(number, name):
    return struct.pack("!6H", number, 0x100, 1, 0, 0, 0) + name_of(name) + struct.pack("!2H", 1, 1)


def ask(lab, number, name, tcp=False):
    """The answer to a question for an address: the name in it and the address."""
    with entered(lab.client):
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    with s:
        s.settimeout(5)
        s.connect((SERVER4, 53))
        q = query(number, name)
        s.sendall(struct.pack("!H", len(q)) + q if tcp else q)
        answer = s.recv(4096)
        if tcp:
            while len(answer) < 2 + struct.unpack("!H", answer[:2])[0]:
                answer += s.recv(4096)
            answer = answer[2:]
    assert answer[:2] == struct.pack("!H", number)
    asked = answer[12:answer.index(b"\0", 12) + 1]
    return asked, socket.inet_ntoa(answer[-4:]) if struct.unpack("!H", answer[6:8])[0] else None


class Work:
    """Things that go on at once until the time is over; a failure of any is a failure of the test."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds
        self.threads, self.wrong, self.done = [], [], {}

    def go(self, name, once):
        def loop():
            try:
                while time.monotonic() < self.end and not self.wrong:
                    once()
                    self.done[name] = self.done.get(name, 0) + 1
            except BaseException as e:  # noqa: B902
                self.wrong.append(f"{name}: {type(e).__name__}: {e}")
        self.threads.append(threading.Thread(target=loop, daemon=True))
        self.threads[-1].start()

    def finish(self):
        for t in self.threads:
            t.join(max(1, self.end - time.monotonic()) + 90)
            if t.is_alive():
                self.wrong.append("something hangs")
        assert self.wrong == []


def stream_through(lab, host, rng):
    data = text(rng, rng.randint(1, 300000))
    s = lab.connect(STREAM_PORT, host, timeout=30)
    with s:
        def send():
            for piece in cuts(rng, data):
                s.sendall(piece)
                if rng.random() < 0.01:
                    time.sleep(0.03)
            s.shutdown(socket.SHUT_WR)
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        got = b""
        while block := s.recv(65536):
            got += block
        sender.join(30)
    return data, got[4:], struct.unpack("!I", got[:4])[0] if len(got) >= 4 else None


def check_stream(data, got, there):
    """Replaced on its way there; or, where a pause in the middle of a word was too long to wait, on its way back."""
    assert (len(got) - there) % (len(WITH) - len(WORD)) == 0
    assert got.replace(WORD, WITH) == data.replace(WORD, WITH)


@pytest.mark.timeout(60 + 4 * SECONDS)
def test_everything_at_once_through_an_editing_nf(lab, nginx):
    digest = nginx.add("blob", BLOB)
    nginx.add("page.txt", b"the harbour at night, harharbour\n" * 50)
    repo = lab.path("repo")
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "HOME": lab.dir}
    run("git", "init", "-q", repo, env=env)
    for i in range(3):
        with open(os.path.join(repo, f"file{i}"), "wb") as f:
            f.write(os.urandom(3 << 20))
    run("git", "-C", repo, "add", ".", env=env)
    run("git", "-C", repo, "-c", "user.name=lab", "-c", "user.email=lab@localhost", "commit", "-qm", "blobs", env=env)
    head = run("git", "-C", repo, "rev-parse", "HEAD", env=env).strip()
    git = Process(["git", "daemon", "--reuseaddr", "--export-all", f"--base-path={os.path.dirname(repo)}",
                   f"--port={GIT_PORT}", os.path.dirname(repo)], lab.path("git.log"), lab.server)
    iperf = Process(["iperf3", "-s", "-p", str(IPERF_PORT)], lab.path("iperf.log"), lab.server)
    ports = f"80,{STREAM_PORT},{GIT_PORT},{IPERF_PORT}"
    try:
        with Echo(lab, STREAM_PORT), Dns(lab, {"quay.test": "10.9.8.7"}), \
                Rewrite(lab, "--word", WORD.decode(), "--with", WITH.decode(), "--tcp", ports) as netstar:
            work = Work(SECONDS)

            def web():
                assert lab.curl(f"http://{random.choice([SERVER4, f'[{SERVER6}]'])}/blob", 60) == (0, digest, len(BLOB))

            def clone():
                to = lab.path("clone")
                run("ip", "netns", "exec", lab.client, "git", "clone", "-q",
                    f"git://{SERVER4}:{GIT_PORT}/{os.path.basename(repo)}", to, env=env, timeout=120)
                assert run("git", "-C", to, "rev-parse", "HEAD", env=env).strip() == head
                run("git", "-C", to, "fsck", "--full", env=env, timeout=60)
                run("rm", "-rf", to)

            rng = random.Random(1)

            def streams():
                data, got, there = stream_through(lab, rng.choice([SERVER4, SERVER6]), rng)
                check_stream(data, got, there)

            number = [0]

            def dns():
                number[0] += 1
                assert ask(lab, number[0], "quay.test", number[0] % 4 == 0) == (name_of("quay.test"), "10.9.8.7")
                time.sleep(0.01)

            def iperf_client():
                left = max(2, int(work.end - time.monotonic()))
                reverse = ["-R"] if iperf_runs[0] % 2 else []
                iperf_runs[0] += 1
                out = run("ip", "netns", "exec", lab.client, "iperf3", "-J", "-c", SERVER4, "-p", str(IPERF_PORT), "-t",
                          str(min(left, max(5, SECONDS // 2))), *reverse, timeout=90 + SECONDS, check=False)
                result = json.loads(out)
                assert "error" not in result, result.get("error")
                iperf_bits.append(result["end"]["sum_received"]["bits_per_second"])

            iperf_runs, iperf_bits = [0], []
            for name, once in (("web", web), ("git", clone), ("streams", streams), ("dns", dns),
                               ("iperf", iperf_client)):
                work.go(name, once)
            work.finish()
            status, report = netstar.interrupt()
            assert status == 0, netstar.text()
    finally:
        git.kill()
        iperf.kill()
    print(f"\n{SECONDS} s: {work.done}, iperf {[round(b / 1e6) for b in iperf_bits]} Mbit/s, "
          f"{report['engine']['edits']} edits, dropped {report['engine']['dropped']}")
    assert all(work.done.get(k, 0) > 0 for k in ("web", "git", "streams", "dns", "iperf"))
    assert report["engine"]["edits"] > 0 and report["engine"]["edits_refused"] == 0


def test_headers_both_ways(lab, nginx):
    """The word in a request's headers and in a page: the page's length does not change, so only the request may."""
    nginx.add("plain", b"nothing here\n")
    with Rewrite(lab, "--word", "harbour", "--with", "a", "--tcp", "80", cores="1") as netstar:
        with lab.connect() as s:
            s.sendall(b"GET /plain HTTP/1.0\r\nUser-Agent: see the har")
            time.sleep(0.005)
            s.sendall(b"bour now\r\n\r\n")
            assert s.makefile("rb").read().endswith(b"nothing here\n")
        with lab.connect() as s:  # nothing follows, and the server must get it all the same
            s.sendall(b"GET /plain HTTP/1.0\r\nUser-Agent: h")
            time.sleep(0.2)
            s.sendall(b"\r\n\r\n")
            assert s.makefile("rb").read().endswith(b"nothing here\n")
        netstar.interrupt()
    agents = [line.rsplit('"', 2)[1] for line in nginx.requests()[-2:]]
    assert agents[1] == "h" and agents[0] in ("see the a now", "see the harbour now")


@pytest.mark.parametrize("fault", ["loss", "reorder", "duplicate"])
def test_streams_on_a_bad_line(fault):
    with Lab(bad_line=fault) as lab, Echo(lab, STREAM_PORT), \
            Rewrite(lab, "--word", WORD.decode(), "--with", WITH.decode(), cores="1") as netstar:
        rng = random.Random(3)
        for _ in range(3):
            data, got, there = stream_through(lab, SERVER4, rng)
            check_stream(data, got, there)
        status, report = netstar.interrupt()
        assert status == 0 and report["engine"]["edits"] > 0


def test_a_name_in_dns(lab):
    with Dns(lab, {"quay.test": "10.9.8.7"}), \
            Rewrite(lab, "--dns", "--word", "dock.test", "--with", "quay.test", cores="1") as netstar:
        for number in range(50):
            # The question becomes one that the server knows; its answer names that.
            assert ask(lab, number, "dock.test") == (name_of("quay.test"), "10.9.8.7")
        status, report = netstar.interrupt()
        assert status == 0 and report["engine"]["edits"] == 50
