# SPDX-License-Identifier: Apache-2.0
"""The tutorial: its steps do what it says, its code is the code that was compiled, its commands print what it shows."""
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time

import pytest
from scapy.all import IP, Raw, TCP, rdpcap

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NETSTAR = os.path.abspath(os.environ.get("NETSTAR") or
                          os.path.join(os.environ.get("NETSTAR_BUILD", os.path.join(ROOT, "build")), "netstar"))
BUILD = os.path.dirname(NETSTAR)
TUTORIAL = os.path.join(ROOT, "docs", "tutorial.md")
CAPTURES = os.path.join(ROOT, "examples", "tutorial", "captures.py")


@pytest.fixture(scope="session")
def captures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captures")
    subprocess.run([sys.executable, "-B", CAPTURES, str(folder)], check=True, timeout=100)
    return folder


@pytest.fixture
def run(captures, tmp_path):
    """Runs a step on a capture: what left, and the report."""
    def go(step, capture, *options):
        done = subprocess.run(
            [NETSTAR, "run", os.path.join(BUILD, "examples", "tutorial", f"step{step}.so"), "-r",
             str(captures / f"{capture}.pcap"), "-w", "out.pcap", "--report", "report", "--packets", "1024", "--flows",
             "1024", *options], cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=80)
        assert done.returncode == 0, done.stderr + done.stdout
        assert "Sanitizer" not in done.stderr, done.stderr
        report = json.loads((tmp_path / "report").read_text())
        e = report["engine"]
        assert e["packets"] == e["forwarded"] + sum(e["dropped"].values()), e
        assert report["buffers"]["whole"]
        return rdpcap(str(tmp_path / "out.pcap")), report
    return go


@pytest.fixture
def redis(tmp_path):
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server here")
    path = str(tmp_path / "redis.sock")
    server = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir",
                               str(tmp_path)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while not os.path.exists(path):
            assert server.poll() is None
            time.sleep(0.01)
        yield path
    finally:
        server.kill()
        server.wait()


def ask(path, *words):
    """One request to a Redis server: its answer as it came."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        s.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
        return s.recv(4096)


def sent(packets, port, client="10.0.0.1"):
    """What the client sent from this port, as it left."""
    return [bytes(p[TCP].payload) for p in packets
            if TCP in p and p[IP].src == client and p[TCP].sport == port and Raw in p]


def resets(packets, port):
    return sum(TCP in p and port in (p[TCP].sport, p[TCP].dport) and "R" in p[TCP].flags for p in packets)


# ---- what the steps do
def test_step1_counts(run):
    out, report = run(1, "step1")
    assert report["module"] == {"flows_counted": 2, "packets_counted": 14, "longest_flow": 10}
    assert len(out) == 15


def test_step1_drops_what_is_too_much(run):
    out, report = run(1, "step1", "--most", "3")
    assert report["engine"]["dropped"]["verdict"] == 8
    assert len(out) == 15 - 8


def test_step2_no_server_gets_the_word(run):
    out, report = run(2, "step2", "--word", "forbidden")
    assert report["module"] == {"times_found": 3}
    assert b"".join(sent(out, 40000)) == b"nothing is forgotten"
    assert sent(out, 40001) == [b"this is for", b"bid"]     # and "den" neither the first nor the second time
    assert sent(out, 40002) == [b"den", b"for"]             # out of order: what would have filled the hole is missing
    assert report["engine"]["dropped"] == {**report["engine"]["dropped"], "verdict": 3, "conflict": 0}


def test_step2_without_the_word_everything_passes(run):
    out, report = run(2, "step2", "--word", "unheard of")
    assert report["module"] == {"times_found": 0} and report["engine"]["forwarded"] == report["engine"]["packets"]
    assert len(out) == report["engine"]["packets"]


def refused(out):
    return [port for port in range(40000, 40005) if not sent(out, port)]


@pytest.mark.parametrize("step", [3, 6, 7])
def test_step3_limits(run, step):
    out, report = run(step, "step3", "--most", "3")
    assert (report["module"]["connections_counted"], report["module"]["connections_refused"]) == (6, 2)
    assert refused(out) == [40003, 40004]
    assert [resets(out, port) for port in (40003, 40004)] == [2, 2]
    assert sent(out, 40000, "10.0.0.2") == [b"request"]
    assert sum(report["engine"]["policy"].values()) == 0


@pytest.mark.parametrize("step", [3, 7])
def test_step3_instances_share_the_count(run, redis, step):
    url = f"redis+unix://{redis}"
    assert run(step, "step3", "--most", "8", "--store", url)[1]["module"]["connections_refused"] == 0
    out, report = run(step, "step3", "--most", "8", "--store", url)
    assert report["module"]["connections_refused"] == 2     # 5 and 5 from one address
    assert len(refused(out)) == 2
    assert ask(redis, "GET", "conn:10.0.0.1") == b"$2\r\n10\r\n"


@pytest.mark.parametrize("step", [3, 5, 6, 7])
@pytest.mark.parametrize("fail", ["closed", "open"])
def test_step3_without_its_store(run, tmp_path, step, fail):
    out, report = run(step, "step3", "--most", "3", "--fail", fail, "--store", f"redis+unix://{tmp_path}/nowhere")
    assert report["engine"]["policy"]["store"] > 0 and report["module"]["connections_counted"] == 0
    assert (report["engine"]["dropped"]["store"] > 0) == (fail == "closed")
    assert refused(out) == ([] if fail == "open" else [40000, 40001, 40002, 40003, 40004])


@pytest.mark.parametrize("speed", ["max", "20"])
def test_step4_who_speaks_first(run, speed):
    out, report = run(4, "step4", "--speed", speed)
    assert report["module"] == {"greeted": 4, "strange_greetings": 1, "silent_servers": 2, "early_clients": 2}
    for port in 40001, 40002, 40003, 40004:
        assert sent(out, port) == [b"EHLO client.example\r\n"] and resets(out, port) == 0
    for port in 40000, 40005, 40006:    # late, early, strange
        assert sent(out, port) == [] and resets(out, port) == 2
    assert not any(Raw in p and b"SSH" in bytes(p[Raw]) for p in out)


def test_step5_bars(run):
    out, report = run(5, "step3", "--most", "2")
    assert report["module"] == {"connections_counted": 6, "connections_refused": 1,
                                "connections_of_barred_clients": 2}
    assert refused(out) == [40002, 40003, 40004]
    assert [resets(out, port) for port in (40002, 40003, 40004)] == [2, 0, 0]


def test_step5_bar_is_in_the_store(run, redis):
    url = f"redis+unix://{redis}"
    run(5, "step3", "--most", "2", "--store", url)
    _, report = run(5, "step3", "--most", "1000", "--store", url)
    assert report["module"]["connections_of_barred_clients"] == 5
    assert ask(redis, "EXISTS", "barred:10.0.0.1") == b":1\r\n"
    assert ask(redis, "EXISTS", "barred:10.0.0.2") == b":0\r\n"


class Mute:
    """A server that lets itself be connected to and then answers nothing."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        self.socket.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        try:
            while True:
                threading.Thread(target=self.talk, args=[self.socket.accept()[0]], daemon=True).start()
        except OSError:
            pass

    @staticmethod
    def talk(s):
        while data := s.recv(65536):
            s.sendall(b"+PONG\r\n" * data.count(b"PING"))

    def close(self):
        self.socket.close()


def test_step5_deadline(run, tmp_path):
    server = Mute(str(tmp_path / "mute.sock"))
    out, report = run(5, "step3", "--store", f"redis+unix://{server.path}", "--patience-ms", "20")
    server.close()
    assert report["engine"]["dropped"]["timeout"] > 0 and report["module"]["connections_counted"] == 0
    assert len(refused(out)) == 5


def test_step6_limit_from_the_store(run, redis):
    assert ask(redis, "SET", "conn-most", "1") == b"+OK\r\n"
    out, report = run(6, "step3", "--most", "100", "--store", f"redis+unix://{redis}")
    assert report["module"]["the_limit_at_the_end"] == 1 and report["module"]["times_looked"] >= 1
    assert report["module"]["connections_refused"] == 4 and refused(out) == [40001, 40002, 40003, 40004]


def test_the_callbacks_do_what_the_handler_does(run):
    """Frame for frame."""
    frames = []
    for step in 3, 7:
        out, report = run(step, "step3", "--most", "3")
        frames.append([bytes(p) for p in out])
        del report["engine"]["waits"]
        frames.append(report["engine"])
    assert frames[:2] == frames[2:]


# ---- what the tutorial says
def blocks():
    """The fenced blocks: language, the file that is named beside it, text, line."""
    language = None
    for number, line in enumerate(open(TUTORIAL, encoding="utf-8").read().splitlines(), 1):
        if line.startswith("```") and language is None:
            language, _, name = line[3:].partition(" ")
            text, start = [], number
        elif line.startswith("```"):
            yield language, name.strip(), "\n".join(text), start
            language = None
        elif language is not None:
            text.append(line)


def test_the_code_is_the_compiled_code():
    shown = set()
    for language, name, text, line in blocks():
        if language not in ("c", "python", "meson"):
            continue
        assert name, f"tutorial.md:{line}: a block without the file that it is from"
        source = open(os.path.join(ROOT, name), encoding="utf-8").read()
        assert text + "\n" in source, f"tutorial.md:{line}: this is not in {name}:\n{text}"
        shown.add(name)
    assert {f"examples/tutorial/step{i}.c" for i in range(1, 8)} <= shown


def same(line):
    return " ".join(line.split())


def test_the_commands_print_what_is_shown(tmp_path):
    """Each line that is shown below a command must come in its output, in that order; `...` stands for others."""
    for folder in "examples", "include":
        os.symlink(os.path.join(ROOT, folder), tmp_path / folder)
    os.symlink(BUILD, tmp_path / "build")
    count = 0
    for language, _, text, line in blocks():
        if language != "console":
            continue
        for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
            command, _, expected = part.replace("\\\n", "").partition("\n")
            argv = [sys.executable if word.endswith(".py") else "" for word in shlex.split(command)[:1]]
            done = subprocess.run([*filter(None, argv), *shlex.split(command)], cwd=tmp_path, text=True, timeout=80,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            assert done.returncode == 0, f"tutorial.md:{line}: $ {command}\n{done.stdout}"
            output = iter([same(x) for x in done.stdout.splitlines()])
            for wanted in map(same, expected.splitlines()):
                if wanted not in ("", "..."):
                    assert any(wanted == x for x in output), \
                        f"tutorial.md:{line}: $ {command}\nthis did not come: {wanted}\n{done.stdout}"
            count += 1
    assert count >= 8
