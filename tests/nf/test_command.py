# SPDX-License-Identifier: Apache-2.0
"""The netstar command from outside: help, each mistake's message and exit status, plugins, reports, signals."""
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NETSTAR = os.path.abspath(os.environ.get("NETSTAR") or
                          os.path.join(os.environ.get("NETSTAR_BUILD", os.path.join(ROOT, "build")), "netstar"))
with open(os.path.join(ROOT, "include", "netstar", "module.h"), encoding="utf-8") as header:
    ABI = int(re.search(r"define NST_MODULE_ABI (\d+)", header.read()).group(1))
PLUGINS = os.path.join(os.path.dirname(NETSTAR), "tests", "nf", "plugin")
COUNTER = os.path.join(PLUGINS, "counter.so")


def netstar(*argv, cwd=None, **kw):
    return subprocess.run([NETSTAR, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=80, cwd=cwd, **kw)


# ---- captures
def frame(payload, flow=0, proto=17):
    """An Ethernet frame with one UDP datagram (or, for another protocol, something unparsed) in IPv4."""
    udp = struct.pack("!HHHH", 10000 + flow, 53, 8 + len(payload), 0) + payload
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, proto, 0, b"\x0a\0\0\x01", b"\x0a\0\0\x02")
    total = sum(struct.unpack("!10H", ip))
    total = (total & 0xffff) + (total >> 16)
    ip = ip[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xffff) + ip[12:]
    return b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\0" + ip + udp


ARP = b"\xff" * 6 + b"\x02\0\0\0\0\x01\x08\x06" + bytes(28)


def capture(path, frames, step=0.001, cut=0):
    """Writes frames to a pcap file, `step` seconds apart, and cuts `cut` bytes off its end."""
    data = struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1)
    for i, f in enumerate(frames):
        us = int(i * step * 1e6)
        data += struct.pack("<IIII", 1700000000 + us // 1000000, us % 1000000, len(f), len(f)) + f
    path.write_bytes(data[:len(data) - cut])
    return str(path)


@pytest.fixture
def mixed(tmp_path):
    """100 datagrams of 10 flows, 3 frames that are not IP, 2 of another protocol."""
    frames = [frame(b"datagram %d" % i, flow=i % 10) for i in range(100)] + [ARP] * 3 + [frame(b"x", proto=47)] * 2
    return capture(tmp_path / "mixed.pcap", frames)


def frames_of(path):
    data = open(path, "rb").read()
    at, found = 24, []
    while at < len(data):
        kept, = struct.unpack_from("<I", data, at + 8)
        found.append(data[at + 16:at + 16 + kept])
        at += 16 + kept
    return found


def sums_up(report):
    e = report["engine"]
    assert e["packets"] == e["forwarded"] + e["sent_by_handler"] + sum(e["dropped"].values()), e
    assert report["buffers"] == {"whole": True, "missing": 0}
    return e


# ---- help
@pytest.mark.parametrize("argv, words", [
    (["--help"], ["Usage: netstar COMMAND", "run", "check", "Exit status"]),
    (["-h"], ["Usage: netstar COMMAND"]),
    (["help"], ["Usage: netstar COMMAND"]),
    (["help", "run"], ["Usage: netstar run", "ips", "ips-callback", "--ports A,B", "-r, --read FILE", "--budget TIME"]),
    (["run", "--help"], ["Usage: netstar run", "--stream-memory SIZE"]),
    (["help", "check"], ["Usage: netstar check", "--store URL"]),
    (["check", "--help"], ["Usage: netstar check"]),
    (["run", "ips", "--help"], ["Usage: netstar run ips", "Options of ips:", "--rules FILE", "--fail open|closed"]),
    (["run", COUNTER, "--help"], ["Options of counter:", "--every N", "counts UDP datagrams"]),
    (["--version"], ["netstar 0."]),
    (["version"], ["netstar 0."]),
])
def test_help(argv, words):
    done = netstar(*argv)
    assert done.returncode == 0 and done.stderr == ""
    for word in words:
        assert word in done.stdout
    lines = done.stdout.replace(COUNTER, "counter").splitlines()    # a path is as long as its user made it
    assert max(map(len, lines)) <= 100


def test_check_takes_no_option_of_run():
    assert "--budget" not in netstar("check", "--help").stdout


# ---- the command line is wrong: status 2, a message, and where the help is
@pytest.mark.parametrize("argv, text, hint", [
    (["rnu"], "unknown command rnu; did you mean run?", "netstar --help"),
    (["frobnicate"], "unknown command frobnicate", "netstar --help"),
    (["help", "chekc"], "unknown command chekc; did you mean check?", "netstar --help"),
    (["run"], "run needs the name of a network function", "netstar run --help"),
    (["run", "-r", "x"], "run needs the name of a network function", "netstar run --help"),
    (["run", "isp"], "unknown network function isp; did you mean ips?", "netstar run --help"),
    (["run", "ips"], "--ports A,B or -r FILE", "netstar run ips --help"),
    (["run", "ips", "-r", "x"], "ips needs --rules FILE", "netstar run ips --help"),
    (["run", "ips", "--rulse", "x"], "unknown option --rulse; did you mean --rules?", "netstar run ips --help"),
    (["run", "ips", "-r"], "-r needs a value: -r FILE", "netstar run ips --help"),
    (["run", "ips", "-r", "x", "--rules", "r", "y"], "unexpected word y", ""),
    (["run", "ips", "-r", "x", "--ports", "a,b", "--rules", "r"], "--ports and -r exclude each other", ""),
    (["run", "ips", "--ports", "a", "--rules", "r"], "--ports: 1 ports given; they come in pairs", ""),
    (["run", "ips", "--ports", "a,b", "-w", "o", "--rules", "r"], "-w goes with -r", ""),
    (["run", "ips", "-r", "x", "--rules", "r", "--budget", "fast"], "--budget fast: expected a time", ""),
    (["run", "ips", "-r", "x", "--rules", "r", "--speed", "-1"], "--speed -1: expected a factor", ""),
    (["run", "ips", "-r", "x", "--rules", "r", "--hold", "0"], "--hold 0: expected a whole number", ""),
    (["run", "ips", "-r", "x", "--rules", "r", "--flows", "0"], "--flows 0: expected a whole number", ""),
    (["run", "ips", "-r", "x", "--rules", "r", "--packets", "1"], "--packets 1: expected a whole number", ""),
    (["run", "ips", "-r", "x", "--rules", "r", "--stream-memory", "1X"], "--stream-memory 1X: expected a size", ""),
    (["run", "ips", "-r", "x", "--rules", "r", "--cpu", "x"], "--cpu x: expected a whole number", ""),
    (["run", "ips", "-r", "x", "--rules", "r", "--fail", "soft"], "--fail soft: expected closed or open", ""),
    (["run", "ips", "-r", "x", "--rules", "r", "--store", "redis:/x"], "--store: ", ""),
    (["run", "ips", "-r", "x", "--rules", "r", "-qv"], "--quiet and --verbose exclude each other", ""),
    (["check", "-r", "x"], "unknown option -r", "netstar check --help"),
    (["check", "--ports", "a,b,c"], "--ports: 3 ports given", "netstar check --help"),
])
def test_usage_errors(argv, text, hint, tmp_path):
    done = netstar(*argv, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("netstar: error: ") and text in done.stderr
    assert f"Try: {hint}" in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_no_command():
    done = netstar()
    assert done.returncode == 2 and done.stdout == "" and "Usage: netstar COMMAND" in done.stderr


# ---- the machine does not have what the command line asks for: status 1
@pytest.mark.parametrize("argv, text", [
    (["-r", "nowhere.pcap"], "-r nowhere.pcap: No such file or directory"),
    (["-r", "."], "-r .: Is a directory"),
    (["-r", "in.pcap", "-w", "no/where.pcap"], "-w no/where.pcap: No such file or directory"),
    (["-r", "in.pcap", "--report", "no/where.json"], "--report no/where.json: No such file or directory"),
    (["-r", "in.pcap", "--cpu", "1000"], "--cpu 1000: this process may not run there"),
    (["-r", "text.txt"], "text.txt"),
    (["--ports", "nosuch0,nosuch1"], "nosuch0"),
    (["-r", "in.pcap", "--every", "0"], "counter: --every: expected a number from 1"),
])
def test_failures(argv, text, tmp_path):
    capture(tmp_path / "in.pcap", [ARP])
    (tmp_path / "text.txt").write_text("this is no capture, whatever its name may say\n")
    done = netstar("run", COUNTER, *argv, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert text in done.stderr and "netstar: error: " in done.stderr
    assert "closing report" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.pcap", "text.txt"], "nothing is left behind"


def test_output_is_not_an_input(mixed, tmp_path):
    os.link(mixed, tmp_path / "other-name.pcap")
    before = open(mixed, "rb").read()
    done = netstar("run", COUNTER, "-r", mixed, "-w", str(tmp_path / "other-name.pcap"))
    assert done.returncode == 2 and f"that is the input {mixed}" in done.stderr
    assert open(mixed, "rb").read() == before


@pytest.mark.parametrize("name, text", [
    ("old", f"was made for version {ABI + 1} of the module interface, this netstar has version {ABI}"),
    ("pointer", "its nst_module is not a struct nst_module"),
    ("nothing", "it does not export nst_module"),
    ("clash", "declares the option --store, which is taken"),
    ("unopenable", "its nst_module has no open function"),
    ("missing", "No such file or directory"),
])
def test_wrong_plugins_are_refused(name, text, mixed):
    done = netstar("run", os.path.join(PLUGINS, name + ".so"), "-r", mixed)
    assert done.returncode == 1 and text in done.stderr


def test_a_file_that_is_no_plugin(tmp_path, mixed):
    (tmp_path / "text.so").write_text("not an object file\n")
    done = netstar("run", "text.so", "-r", mixed, cwd=tmp_path)
    assert done.returncode == 1 and "text.so cannot be loaded" in done.stderr


# ---- runs
def test_plugin_runs(mixed, tmp_path):
    out = str(tmp_path / "out.pcap")
    done = netstar("run", COUNTER, "-r", mixed, "-w", out, "--every", "4", "--report", "-")
    assert done.returncode == 0, done.stderr
    assert "netstar: ready: counter on " in done.stderr
    assert "closing report" in done.stderr and "packet buffers" in done.stderr
    report = json.loads(done.stdout)
    e = sums_up(report)
    assert e["packets"] == 105 and e["dropped"]["verdict"] == 25 and e["forwarded"] == 80
    assert e["not_ip"] == 3 and e["other_proto"] == 2 and e["flows_opened"] == 10
    assert report["nf"] == "counter" and report["input"] == "capture"
    assert report["ended_by"] == "end of input" and report["error"] is None and report["store"] is None
    assert report["module"] == {"packets_seen": 100, "was_quiet": "yes"}
    assert report["ports"][0]["driver"] == "capture" and report["ports"][0]["rx_packets"] == 105
    assert report["duration"] > 0
    kept = [f for i, f in enumerate(frames_of(mixed)) if i >= 100 or i % 4 != 3]
    assert frames_of(out) == kept


def test_plugin_by_its_bare_name(mixed):
    done = netstar("run", "counter.so", "-r", mixed, "-q", cwd=PLUGINS)
    assert done.returncode == 0 and done.stderr == "" and done.stdout == ""


def test_report_file(mixed, tmp_path):
    path = tmp_path / "report.json"
    path.write_text("x" * 100000)
    assert netstar("run", COUNTER, "-r", mixed, "--report", str(path)).returncode == 0
    assert sums_up(json.loads(path.read_text()))["packets"] == 105


def test_report_that_cannot_be_written(mixed):
    done = netstar("run", COUNTER, "-r", mixed, "--report", "/dev/full")
    assert done.returncode == 1 and "--report /dev/full: No space left on device" in done.stderr


def test_several_inputs(mixed):
    done = netstar("run", COUNTER, "-r", mixed, "-r", mixed, "--report", "-")
    assert done.returncode == 0 and sums_up(json.loads(done.stdout))["packets"] == 210
    assert "counter on 2 captures" in done.stderr


@pytest.mark.parametrize("fail, cause, forwarded", [("closed", 100, 5), ("open", 0, 105)])
def test_budget_and_policy_reach_the_nf(mixed, fail, cause, forwarded):
    """A handler that wants to wait longer than the budget ends in the policy's verdict, every time."""
    done = netstar("run", COUNTER, "-r", mixed, "--wait-ms", "80", "--budget", "20ms", "--fail", fail, "--report", "-")
    assert done.returncode == 0, done.stderr
    e = sums_up(json.loads(done.stdout))
    assert e["policy"]["timeout"] == 100 and e["dropped"]["timeout"] == cause and e["forwarded"] == forwarded


def test_truncated_capture(tmp_path):
    path = capture(tmp_path / "cut.pcap", [frame(b"a", flow=i) for i in range(10)], cut=3)
    done = netstar("run", COUNTER, "-r", path, "--report", "-")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert sums_up(report)["packets"] == 9
    assert "cut.pcap" in report["error"] and "netstar: error: " in done.stderr and "closing report" in done.stderr


def test_ips_says_where_a_rule_is_wrong(tmp_path, mixed):
    (tmp_path / "bad.rules").write_text("this is no rule\n")
    done = netstar("run", "ips", "-r", mixed, "--rules", str(tmp_path / "bad.rules"), cwd=tmp_path)
    assert done.returncode == 1 and "bad.rules" in done.stderr and "closing report" not in done.stderr


def test_unreachable_store_is_said_and_gone_on_with(tmp_path, mixed):
    rules = os.path.join(ROOT, "nf", "ips", "rules.example")
    done = netstar("run", "ips", "-r", mixed, "--rules", rules, "--store", "redis://127.0.0.1:1", "--report", "-",
                   cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "netstar: warning: store redis://127.0.0.1:1/0 cannot be reached" in done.stderr
    assert sums_up(json.loads(done.stdout))["packets"] == 105


# ---- progress
def test_no_progress_without_a_terminal(tmp_path):
    path = capture(tmp_path / "slow.pcap", [frame(b"a", flow=i) for i in range(20)], step=0.08)
    done = netstar("run", COUNTER, "-r", path, "--speed", "1")
    assert done.returncode == 0
    assert "\r" not in done.stderr and "%" not in done.stderr


def test_progress_on_a_terminal(tmp_path):
    path = capture(tmp_path / "slow.pcap", [frame(b"a", flow=i) for i in range(20)], step=0.08)
    master, slave = pty.openpty()
    with subprocess.Popen([NETSTAR, "run", COUNTER, "-r", path, "--speed", "1"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=slave) as p:
        os.close(slave)
        text = b""
        while select.select([master], [], [], 60)[0]:
            try:
                more = os.read(master, 4096)
            except OSError:
                break
            text += more
    os.close(master)
    assert p.returncode == 0
    assert b"\r\033[K" in text and b" packets/s" in text, text


# ---- signals
class Running:
    def __init__(self, *argv):
        self.p = subprocess.Popen([NETSTAR, "run", *argv, "--report", "-"], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said = ""

    def until(self, text):
        while text not in self.said:
            line = self.p.stderr.readline()
            assert line, f"it ended: {self.said}"
            self.said += line

    def end(self):
        out, err = self.p.communicate(timeout=60)
        self.said += err
        return self.p.returncode, json.loads(out)

    def __enter__(self):
        self.until("netstar: ready")
        return self

    def __exit__(self, *what):
        if self.p.poll() is None:
            self.p.kill()
            self.p.communicate()


def live_ports(tmp_path, n):
    """Live ports: the first reads a capture of n datagrams of one flow as one burst, the other takes what leaves."""
    path = capture(tmp_path / "one.pcap", [frame(b"%d" % i) for i in range(n)])
    return f"net_pcap0,rx_pcap={path},tx_pcap={tmp_path}/tx.pcap,net_null1,no-rx=1"


@pytest.mark.parametrize("hold, full", [(1, 18), (32, 0)])
def test_hold_reaches_the_nf(tmp_path, hold, full):
    """While the first datagram of the flow waits, `hold` others have room, and the rest meets a full queue."""
    with Running(COUNTER, "--ports", live_ports(tmp_path, 20), "--wait-ms", "20", "--hold", str(hold)) as it:
        it.until("the first waits")
        it.p.send_signal(signal.SIGINT)
        status, report = it.end()
    assert status == 0, it.said
    e = sums_up(report)
    assert e["policy"]["hold_full"] == e["dropped"]["hold_full"] == full
    assert e["held_peak"] == min(hold, 19) and e["forwarded"] == 20 - full


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_and_reports(tmp_path, number):
    path = capture(tmp_path / "long.pcap", [frame(b"a", flow=i % 7) for i in range(1000)], step=1)
    with Running(COUNTER, "-r", path, "--speed", "1") as it:
        it.p.send_signal(number)
        status, report = it.end()
    assert status == 0, it.said
    assert report["ended_by"] == "signal" and sums_up(report)["packets"] < 1000


def test_a_second_signal_ends_it_at_once(tmp_path):
    """On live ports (which read a capture here) a handler would wait for an hour, and the first signal for the handler."""
    with Running(COUNTER, "--ports", live_ports(tmp_path, 4), "--wait-ms", "3600000", "--budget", "1h") as it:
        it.until("the first waits")
        it.p.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            it.p.wait(3)
        it.p.send_signal(signal.SIGINT)
        status, report = it.end()
    assert status == 0, it.said
    assert report["ended_by"] == "signal" and report["input"] == "live"
    e = sums_up(report)
    assert e["packets"] == 4 and e["forwarded"] == 0 and e["dropped"]["shutdown"] >= 1


# ---- check
def rows(done):
    return [line.split(None, 2) for line in done.stdout.splitlines() if line[:2] in ("ok", "wa", "pr")]


def test_check_looks_at_everything():
    done = netstar("check")
    found = {row[1]: row[0] for row in rows(done)}
    assert {"kernel", "processor", "privileges", "hugepages", "store", "memory"} <= set(found)
    assert set(found.values()) <= {"ok", "warning", "problem"}
    assert found["store"] == "ok"
    assert done.returncode == (1 if "problem" in found.values() else 0)
    assert ("Not fit" in done.stdout) == (done.returncode == 1)


def test_check_misses_an_interface_and_a_store():
    with socket.socket() as nobody:  # bound, but not listening: connections are refused
        nobody.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{nobody.getsockname()[1]}"
        done = netstar("check", "--ports", "nosuch0,nosuch1", "--store", url)
    found = {row[1]: row for row in rows(done)}
    assert done.returncode == 1
    assert found["nosuch0"][0] == found["nosuch1"][0] == "problem" and "no such" in found["nosuch0"][2]
    assert done.stderr == ""
    assert found["store"][0] == "problem" and url in found["store"][2]


def test_check_adds_the_memory_up():
    small = netstar("check", "--flows", "1000", "--stream-memory", "1M", "--packets", "1024", "--no-huge")
    large = netstar("check", "--flows", "1000M", "--stream-memory", "16T", "--packets", "1024", "--no-huge")
    levels = [{row[1]: row[0] for row in rows(done)}["memory"] for done in (small, large)]
    assert levels[1] == "warning"
    assert "lower --flows" in large.stdout
