# SPDX-License-Identifier: Apache-2.0
"""A laboratory of network namespaces: a client, a server, and NetStar as a bump in the wire between them.

    client namespace          middle namespace            server namespace
      c0 ----------------- m0   netstar   m1 ----------------- s0
      10.77.0.1, fd77::1      Redis on 127.0.0.1          10.77.0.2, fd77::2

A lab with a bad line has one more namespace between the client and the middle, whose wire loses, repeats or swaps frames.

Everything is real: the kernel's TCP, nginx, curl, Redis. Whatever is made here is removed again, also after a failure
or Ctrl-C: use the classes as context managers. Processes die with the one that started them, and a new lab first
removes the namespaces of labs whose process is gone. Needs root and Linux; only the standard library.
"""
import contextlib
import ctypes
import hashlib
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

CLIENT4, SERVER4, CLIENT6, SERVER6 = "10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# What the tests and the demo call an attack: one pattern for each action.
DROPPED, RESET, NOTED = b"cmd=/bin/sh;id;uname", b"<script>steal(cookie)", b"User-Agent: curious"
RULES = f"""# What the lab calls an attack.
id=1001 action=drop content="{DROPPED.decode()}" msg="shell command"
id=1002 action=reset content="{RESET.decode()}" msg="stolen cookie"
id=1003 action=alert content="{NOTED.decode()}" msg="curious client"
"""
_libc = ctypes.CDLL(None, use_errno=True)
_prefix = "nslab"


class LabError(Exception):
    """Something that the lab needs did not work; the text says what."""


def netstar_binary():
    """The command under test: $NETSTAR, or what was built in $NETSTAR_BUILD or build/."""
    given = os.environ.get("NETSTAR")
    build = os.environ.get("NETSTAR_BUILD", os.path.join(ROOT, "build"))
    for path in [given] if given else [os.path.join(build, "netstar"), os.path.join(build, "cli", "netstar")]:
        if os.path.isfile(path):
            return os.path.abspath(path)
    raise LabError(f"there is no netstar command: {given or build}; type make")


def run(*argv, check=True, timeout=30, **kw):
    """Runs a command to its end and returns its standard output."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=timeout, **kw)
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(argv)}: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _die_with_parent():
    _libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def wait_for(condition, seconds, what, pause=0.02):
    """Asks until condition() is true and returns its value; LabError when it takes longer than `seconds`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= end:
            raise LabError(f"waited {seconds} s in vain for {what}")
        time.sleep(pause)


class Process:
    """A process that we started: it writes to a file, is stopped by its pid, and does not outlive us."""

    def __init__(self, argv, log, netns=None):
        self.argv, self.log = argv, log
        if netns:
            argv = ["ip", "netns", "exec", netns] + argv  # ip enters the namespace and becomes the command
        with open(log, "ab") as out:
            self.popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                          start_new_session=True, preexec_fn=_die_with_parent)
        self.pid = self.popen.pid

    def alive(self):
        return self.popen.poll() is None

    def signal(self, number):
        if self.alive():
            self.popen.send_signal(number)

    def wait(self, seconds):
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise LabError(f"{self.argv[0]} (pid {self.pid}) did not end within {seconds} s\n{self.text()}") from None

    def kill(self):
        self.signal(signal.SIGKILL)
        self.popen.wait()

    def text(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()

    def stop(self, seconds=5):
        """SIGTERM, and SIGKILL when that does not help. Returns the exit status."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.popen.returncode


class Lab:
    """The three namespaces and the wires between them, and a directory for files."""

    def __init__(self, bad_line=None):
        base = f"{_prefix}{os.getpid()}"
        n = 0
        while any(os.path.exists(f"/run/netns/{base}-{n}{x}") for x in "cmsx"):
            n += 1
        self.client, self.middle, self.server, self.line = (f"{base}-{n}{x}" for x in "cmsx")
        self.bad_line = bad_line
        self.ports = ["m0", "m1"]
        self.dir = None
        self._stack = contextlib.ExitStack()
        self._files = 0

    def __enter__(self):
        if os.geteuid() != 0:
            raise LabError("network namespaces need root")
        sweep()
        self._stack.__enter__()
        try:
            self._make()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *what):
        self._stack.close()

    def _make(self):
        self.dir = tempfile.mkdtemp(prefix="netstar-lab-")
        self._stack.callback(shutil.rmtree, self.dir, ignore_errors=True)
        middles = [self.middle, self.line] if self.bad_line else [self.middle]
        for ns in (self.client, *middles, self.server):
            self._stack.callback(run, "ip", "netns", "del", ns, check=False)
            run("ip", "netns", "add", ns)
            run("ip", "-n", ns, "link", "set", "lo", "up")
        # No address of its own in the middle: it must not answer for what it only lets through.
        for ns in middles:
            run("ip", "netns", "exec", ns, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        for ns in (self.client, self.server):
            run("ip", "netns", "exec", ns, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0",
                "net.ipv6.conf.default.router_solicitations=0")
        if self.bad_line:
            self._wire("c0", self.client, "x0", self.line)
            self._wire("x1", self.line, "m0", self.middle)
        else:
            self._wire("c0", self.client, "m0", self.middle)
        self._wire("s0", self.server, "m1", self.middle)
        for end, ns, v4, v6 in (("c0", self.client, CLIENT4, CLIENT6), ("s0", self.server, SERVER4, SERVER6)):
            run("ip", "-n", ns, "addr", "add", f"{v4}/24", "dev", end)
            run("ip", "-n", ns, "addr", "add", f"{v6}/64", "dev", end, "nodad")
        if self.bad_line:
            self._stack.enter_context(BadLine(self.line, ("x0", "x1"), self.bad_line))

    @staticmethod
    def _wire(near, near_ns, far, far_ns):
        """A pair of interfaces; a packet looks on them as it would on a real wire."""
        run("ip", "link", "add", near, "netns", near_ns, "mtu", "1500", "type", "veth",
            "peer", "name", far, "netns", far_ns, "mtu", "1500")
        for end, ns in ((near, near_ns), (far, far_ns)):
            off = ["gro"] if end[0] == "m" else ["tx", "tso", "gso", "gro", "sg"]
            run("ip", "netns", "exec", ns, "ethtool", "-K", end, *(w for k in off for w in (k, "off")))
            run("ip", "-n", ns, "link", "set", end, "up")

    def path(self, name):
        """A file name in the lab's directory that no one had before."""
        self._files += 1
        return os.path.join(self.dir, f"{self._files}-{name}")

    def write(self, name, data):
        path = self.path(name)
        with open(path, "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        return path

    def bridge(self):
        """A Linux bridge in NetStar's place, for trying out the lab itself."""
        run("ip", "-n", self.middle, "link", "add", "br0", "type", "bridge", "forward_delay", "0")
        for port in self.ports:
            run("ip", "-n", self.middle, "link", "set", port, "master", "br0")
        run("ip", "-n", self.middle, "link", "set", "br0", "up")

    def enter(self, ns):
        return entered(ns)

    def quiet(self):
        """Ends every connection that is left in the client's and the server's namespace, so that nothing of it is sent again."""
        for ns in (self.client, self.server):
            run("ip", "netns", "exec", ns, "ss", "-KHtan", "state", "connected")

    def connect(self, port=80, host=SERVER4, timeout=10, source_port=0):
        """A TCP connection of the client, each send a segment of its own."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with entered(self.client):
            s = socket.socket(family, socket.SOCK_STREAM)
        try:
            s.settimeout(timeout)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if source_port:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind(("", source_port))
            s.connect((host, port))
        except BaseException:
            s.close()
            raise
        return s

    def ping(self, host, seconds=5):
        """One echo request and its answer, the neighbour being asked for anew."""
        run("ip", "-n", self.client, "neigh", "flush", "all")
        v6 = ":" in host
        with entered(self.client):
            s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW,
                              socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP)
        with s:
            s.settimeout(seconds)
            # Type, code, checksum (the kernel's business in IPv6), identifier, number.
            s.sendto(bytes.fromhex("8000 0000 4e53 0001") if v6 else bytes.fromhex("0800 a9ab 4e53 0001"), (host, 0))
            while b"\x4e\x53\x00\x01" not in s.recv(2000)[-4:]:
                pass

    def curl(self, url, seconds=20):
        """Downloads in the client's namespace: (curl's exit status, sha256 of what came, bytes)."""
        d = self.download(url, seconds)
        return d.finish()

    def download(self, url, seconds=60):
        return Download(self, url, seconds)


class BadLine:
    """Hands frames from one interface to the other and back, as "loss", "duplicate" or "reorder" says to some."""

    def __init__(self, ns, ends, fault, often=0.03, seed=1):
        self.ns, self.ends, self.fault, self.often = ns, ends, fault, often
        self.random = random.Random(seed)
        self.hurt = 0
        self._over = False

    def __enter__(self):
        with entered(self.ns):
            self.sockets = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) for _ in self.ends]
        for s, end in zip(self.sockets, self.ends):
            s.bind((end, 3))
        self.thread = threading.Thread(target=self._carry, daemon=True)
        self.thread.start()
        return self

    def _carry(self):
        late = []  # [countdown, where, frame]: sent after so many others
        a, b = self.sockets
        while not self._over:
            ready, _, _ = select.select(self.sockets, [], [], 0.02)
            if not ready:
                for entry in late:
                    self._send(*entry[1:])
                late.clear()
            for s in ready:
                frame, sender = s.recvfrom(65536)
                if sender[2] == socket.PACKET_OUTGOING:
                    continue
                to = b if s is a else a
                if self.random.random() < self.often:
                    self.hurt += 1
                    if self.fault == "loss":
                        continue
                    if self.fault == "duplicate":
                        self._send(to, frame)
                    elif self.fault == "reorder":
                        late.append([self.random.randint(1, 4), to, frame])
                        continue
                self._send(to, frame)
                for entry in late:
                    entry[0] -= 1
                    if entry[0] == 0:
                        self._send(*entry[1:])
                late = [entry for entry in late if entry[0] > 0]

    @staticmethod
    def _send(to, frame):
        with contextlib.suppress(OSError):
            to.send(frame)

    def __exit__(self, *what):
        self._over = True
        self.thread.join()
        for s in self.sockets:
            s.close()


class Download:
    """A curl that runs."""

    def __init__(self, lab, url, seconds):
        self.path = lab.path("download")
        open(self.path, "wb").close()
        self.seconds = seconds
        self.process = Process(["curl", "-sS", "-g", "--max-time", str(seconds), "-o", self.path, url],
                               lab.path("curl.log"), lab.client)

    def size(self):
        return os.path.getsize(self.path)

    def finish(self):
        status = self.process.wait(self.seconds + 5)
        return status, sha256(self.path), self.size()

    def stop(self):
        self.process.kill()


def sha256(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            h.update(block)
    return h.hexdigest()


@contextlib.contextmanager
def entered(ns):
    """The calling thread is in that network namespace; sockets made meanwhile belong to it for ever."""
    with open("/proc/thread-self/ns/net") as here, open(f"/run/netns/{ns}") as there:
        if _libc.setns(there.fileno(), 0x40000000) != 0:
            raise LabError(f"cannot enter namespace {ns}: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            if _libc.setns(here.fileno(), 0x40000000) != 0:
                os._exit(70)  # in the wrong namespace nothing is safe any more


def sweep():
    """Removes what labs left behind whose process was killed."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir("/run/netns"):
            pid = name[len(_prefix):].split("-")[0]
            if name.startswith(_prefix) and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
                run("ip", "netns", "del", name, check=False)


class Nginx:
    """A real nginx in the server's namespace. add() gives it files; /slow/NAME is the same file at 4 MB a second."""

    def __init__(self, lab):
        self.lab = lab

    def __enter__(self):
        self.dir = os.path.join(self.lab.dir, "nginx")
        self.www = os.path.join(self.dir, "www")
        os.makedirs(self.www)
        self.access = os.path.join(self.dir, "access.log")
        config = os.path.join(self.dir, "nginx.conf")
        temp = "".join(f"    {k}_temp_path {self.dir}/{k};\n" for k in
                       ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        with open(config, "w", encoding="utf-8") as f:
            f.write(f"""daemon off;
master_process off;
user root;
pid {self.dir}/pid;
error_log {self.dir}/error.log;
events {{ worker_connections 256; }}
http {{
{temp}    access_log {self.access};
    sendfile off;
    server {{
        listen 0.0.0.0:80;
        listen [::]:80;
        root {self.www};
        location /slow/ {{ alias {self.www}/; limit_rate 4m; }}
    }}
}}
""")
        self.process = Process(["/usr/sbin/nginx", "-p", self.dir, "-c", config,
                                "-e", f"{self.dir}/error.log"], os.path.join(self.dir, "out.log"), self.lab.server)
        try:
            wait_for(self._listens, 10, "nginx")
        except BaseException:
            self.process.kill()
            raise
        return self

    def _listens(self):
        if not self.process.alive():
            raise LabError("nginx does not start: " + self.process.text())
        with entered(self.lab.server), contextlib.closing(socket.socket()) as s:
            return s.connect_ex((SERVER4, 80)) == 0

    def __exit__(self, *what):
        self.process.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def add(self, name, data):
        """Serves the bytes as /NAME; returns their sha256."""
        with open(os.path.join(self.www, name), "wb") as f:
            f.write(data)
        return hashlib.sha256(data).hexdigest()

    def requests(self):
        """The lines of the access log."""
        with open(self.access, encoding="utf-8", errors="replace") as f:
            return f.read().splitlines()


class Sink:
    """A TCP server in the server's namespace that keeps what each connection brings and answers nothing."""

    def __init__(self, lab, port=7777):
        self.lab, self.port = lab, port
        self.streams = []
        self.ended = 0

    def __enter__(self):
        with entered(self.lab.server):
            self.listener = socket.create_server(("::", self.port), family=socket.AF_INET6, dualstack_ipv6=True)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        return self

    def _serve(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            got = bytearray()
            self.streams.append(got)
            threading.Thread(target=self._read, args=(s, got), daemon=True).start()

    def _read(self, s, got):
        with contextlib.suppress(OSError), s:
            while data := s.recv(65536):
                got += data
        self.ended += 1

    def all(self):
        return b"".join(bytes(s) for s in self.streams)

    def __exit__(self, *what):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Redis:
    """A real redis-server in the middle namespace: TCP on its loopback, and a Unix socket. Keeps nothing on disk."""

    def __init__(self, lab, port=6379):
        self.lab, self.port = lab, port
        self.socket = lab.path("redis.sock")
        self.url = f"redis://127.0.0.1:{port}"
        self.unix_url = f"redis+unix://{self.socket}"
        self.process = None

    def start(self):
        self.process = Process(["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket",
                                self.socket, "--save", "", "--appendonly", "no", "--daemonize", "no", "--dir",
                                self.lab.dir], self.lab.path("redis.log"), self.lab.middle)
        wait_for(lambda: self.process.alive() and self._pong(), 10, "redis-server")
        return self

    def _pong(self):
        try:
            return self.ask("PING") == "PONG"
        except OSError:
            return False

    def ask(self, *words):
        """One command, its answer: str, int, bytes, None or a list."""
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as s:
            s.settimeout(5)
            s.connect(self.socket)
            request = b"*%d\r\n" % len(words)
            for w in words:
                w = w if isinstance(w, bytes) else str(w).encode()
                request += b"$%d\r\n%s\r\n" % (len(w), w)
            s.sendall(request)
            with s.makefile("rb") as f:
                return self._answer(f)

    def _answer(self, f):
        line = f.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else f.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self._answer(f) for _ in range(int(rest))]
        raise LabError(f"redis: {line!r}")

    def keys(self):
        return sorted(self.ask("KEYS", "*"))

    def pause(self):
        self.process.signal(signal.SIGSTOP)

    def resume(self):
        self.process.signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)

    def __enter__(self):
        return self.start()

    def __exit__(self, *what):
        self.kill()


class Proxy:
    """Stands between NetStar and a Redis, on TCP in the middle namespace, and makes trouble on demand.

    mode "pass" hands everything through; "slow" keeps each answer back for `delay` seconds; "garbage" answers bytes
    that are no Redis protocol; "mute" answers nothing; "refuse" closes every connection.
    """
    GARBAGE = b"\x00\xffHTTP/1.1 200 OK\r\n$-77\r\n*99999999999\r\n!?\r\n"

    def __init__(self, lab, redis, port=6400, delay=1.0):
        self.lab, self.redis, self.port, self.delay = lab, redis, port, delay
        self.mode = "pass"
        self.url = f"redis://127.0.0.1:{port}"
        self.troubled = 0  # answers that were kept back, falsified, or not given
        self._pairs = set()

    def __enter__(self):
        with entered(self.lab.middle):
            self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if self.mode == "refuse":
                self.troubled += 1
                near.close()
                continue
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(self.redis.socket)
            except OSError:
                near.close()
                far.close()
                continue
            self._pairs |= {near, far}
            threading.Thread(target=self._requests, args=(near, far), daemon=True).start()
            threading.Thread(target=self._answers, args=(far, near), daemon=True).start()

    def set(self, mode):
        self.mode = mode
        if mode == "refuse":
            self._end(*list(self._pairs))

    def _requests(self, near, far):
        with contextlib.suppress(OSError):
            while data := near.recv(65536):
                if self.mode == "garbage":
                    self.troubled += 1
                    near.sendall(self.GARBAGE)
                else:
                    far.sendall(data)
        self._end(near, far)

    def _answers(self, far, near):
        with contextlib.suppress(OSError):
            while data := far.recv(65536):
                if self.mode == "slow":
                    self.troubled += 1
                    time.sleep(self.delay)
                elif self.mode != "pass":
                    self.troubled += 1
                    continue
                near.sendall(data)
        self._end(near, far)

    def _end(self, *pair):
        for s in pair:
            self._pairs.discard(s)
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()

    def __exit__(self, *what):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._end(*list(self._pairs))


class NetStar:
    """`netstar run ips` in the middle namespace, from its start to its report."""

    def __init__(self, lab, store, rules, fail="closed", ports=None, alerts=None, extra=(), binary=None):
        self.lab = lab
        self.alerts_path = alerts or lab.path("alerts.jsonl")
        self.report_path = lab.path("report.json")
        self.argv = [binary or netstar_binary(), "run", "ips", "--ports", ",".join(ports or lab.ports),
                     "--store", store, "--rules", rules, "--alerts", self.alerts_path, "--fail", fail,
                     "--report", self.report_path, *extra]
        self.process = None

    def start(self, seconds=20):
        self.process = Process(self.argv, self.lab.path("netstar.log"), self.lab.middle)
        wait_for(self._ready, seconds, "netstar to be ready", pause=0.005)
        return self

    def _ready(self):
        text = self.process.text()
        if "netstar: ready" in text:
            return True
        if not self.process.alive():
            raise LabError(f"netstar ended with status {self.process.popen.returncode}:\n{text}")
        return False

    def interrupt(self, number=signal.SIGINT, seconds=20):
        """Asks it to end: (exit status, the numbers of its report)."""
        self.process.signal(signal.SIGCONT)
        self.process.signal(number)
        status = self.process.wait(seconds)
        return status, self.report()

    def report(self):
        try:
            with open(self.report_path, encoding="utf-8") as f:
                return json.load(f)
        except FileNotFoundError:
            raise LabError("netstar wrote no report:\n" + self.process.text()) from None

    def kill(self):
        """SIGKILL: no draining, no report, nothing handed over."""
        self.process.kill()

    def text(self):
        return self.process.text()

    def alerts(self):
        """What it has written to the alert log so far."""
        try:
            with open(self.alerts_path, encoding="utf-8") as f:
                return [json.loads(line) for line in f if line.endswith("\n")]
        except FileNotFoundError:
            return []

    def wait_alert(self, rule, seconds=5):
        return wait_for(lambda: [a for a in self.alerts() if a.get("rule") == rule], seconds,
                        f"an alert of rule {rule}; the log has {self.alerts()}; netstar said:\n{self.text()}")

    def __enter__(self):
        return self.start()

    def __exit__(self, *what):
        if self.process and self.process.alive():
            self.process.kill()


def raise_on_sigterm():
    """Makes SIGTERM unwind as Ctrl-C does, so that the context managers clean up."""
    def stop(number, frame):
        sys.exit(128 + number)
    signal.signal(signal.SIGTERM, stop)
