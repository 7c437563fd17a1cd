# SPDX-License-Identifier: Apache-2.0
"""Instances with names: heartbeats in the store, who may have a name, what `netstar top` and `netstar stats` show, and that a
store that is away costs no packet because of any of it."""
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import pytest
from lab import SERVER4, LabError, NetStar, Process, entered, netstar_binary, wait_for

FILE = os.urandom(1 << 20)
QUIET = "net_null0,no-rx=1,net_null1,no-rx=1"


def command(lab, *words, seconds=30):
    """In the middle namespace, where the Redis is."""
    argv = ["ip", "netns", "exec", lab.middle, netstar_binary(), *words]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)


def run_dir(lab):
    return os.path.join(lab.dir, "run")


def named(lab, url, rules, name, ports=None, extra=()):
    netstar = NetStar(lab, url, rules, extra=["--instance", name, "--control", run_dir(lab), *extra])
    if ports:
        netstar.argv[netstar.argv.index("--ports") + 1] = ports
    return netstar


def top(lab, redis):
    done = command(lab, "top", "--store", redis.url, "--json")
    assert done.returncode == 0, done.stderr
    return {i["name"]: i for i in json.loads(done.stdout)}


def key_of(name):
    return f"netstar:instance:{name}"


def test_who_is_there_and_what_it_holds(lab, nginx, redis, rules):
    digest = nginx.add("file", FILE)
    with named(lab, redis.url, rules, "edge1") as one, named(lab, redis.url, rules, "edge2", QUIET) as two:
        wait_for(lambda: {"edge1", "edge2"} == {n for n, i in top(lab, redis).items() if "flows" in i}, 10, "both hearts")
        with lab.connect() as s:
            s.sendall(b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_for(lambda: top(lab, redis)["edge1"]["flows"] == 1, 10, "the flow that it holds")
            seen = top(lab, redis)
        assert seen["edge1"]["pid"] == one.process.pid and seen["edge2"]["pid"] == two.process.pid
        assert seen["edge1"]["nf"] == "ips" and seen["edge1"]["cores"] == 1 and not seen["edge1"]["overdue"]
        assert seen["edge2"]["flows"] == 0 and seen["edge2"]["packets"] == 0
        assert 0 < redis.ask("TTL", key_of("edge1")) <= 60
        download = lab.download(f"http://{SERVER4}/slow/file")
        wait_for(lambda: top(lab, redis)["edge1"]["packets_per_second"] > 50, 10, "a rate")
        assert download.finish() == (0, digest, len(FILE))
        wait_for(lambda: top(lab, redis)["edge1"]["packets"] > 500, 10, "what it has received")
        seen = top(lab, redis)["edge1"]
        assert seen["store_p99_us"] >= seen["store_p50_us"] > 0
        # One is stopped for a while, and is overdue; it comes back as the one that it was.
        two.process.signal(signal.SIGSTOP)
        wait_for(lambda: top(lab, redis)["edge2"]["overdue"], 10, "that it is missed")
        text = command(lab, "top", "--store", redis.url, "--once").stdout
        assert re.search(r"^edge2 .* OVERDUE \d+s$", text, re.M) and re.search(r"^edge1 .* alive$", text, re.M)
        assert "2 instances, 1 overdue" in text
        two.process.signal(signal.SIGCONT)
        wait_for(lambda: not top(lab, redis)["edge2"]["overdue"], 10, "that it is back")
        # In the end the names are free at once.
        assert two.interrupt()[0] == 0 and one.interrupt()[0] == 0
        assert top(lab, redis) == {}


def test_a_name_is_one_instances(lab, redis, rules):
    with named(lab, redis.url, rules, "edge", QUIET) as first:
        wait_for(lambda: "flows" in top(lab, redis).get("edge", {}), 10, "its heart")
        # Elsewhere: another directory for sockets, so that only the store can tell.
        second = named(lab, redis.url, rules, "edge", QUIET, ["--control", "no"])
        with pytest.raises(LabError, match=rf"the instance edge is alive: ips on \S+, process {first.process.pid}"):
            second.start()
        assert second.process.popen.returncode == 1
        # Killed, and started anew: at once, since the kernel knows that the first is gone.
        first.kill()
        third = named(lab, redis.url, rules, "edge", QUIET)
        with third:
            assert top(lab, redis)["edge"]["pid"] == third.process.pid
            assert third.interrupt()[0] == 0


def test_a_start_that_fails_keeps_no_name(lab, redis, rules):
    netstar = named(lab, redis.url, rules, "edge", "nosuch0,nosuch1")
    with pytest.raises(LabError, match="nosuch0"):
        netstar.start()
    assert top(lab, redis) == {} and os.listdir(run_dir(lab)) == []


def test_a_silent_owner_loses_its_name(lab, redis, rules):
    with named(lab, redis.url, rules, "edge", QUIET) as old:
        wait_for(lambda: "flows" in top(lab, redis).get("edge", {}), 10, "its heart")
        old.process.signal(signal.SIGSTOP)
        new = named(lab, redis.url, rules, "edge", QUIET, ["--control", "no"])
        with new:
            assert top(lab, redis)["edge"]["pid"] == new.process.pid
            old.process.signal(signal.SIGCONT)
            wait_for(lambda: f"the name edge now belongs to ips on" in old.text(), 10, "that it notices")
            time.sleep(1.5)
            assert top(lab, redis)["edge"]["pid"] == new.process.pid, "the old one does not overwrite the new"
            assert new.interrupt()[0] == 0
        wait_for(lambda: top(lab, redis).get("edge", {}).get("pid") == old.process.pid, 10, "that it is its again")
        assert old.interrupt()[0] == 0


def test_a_store_that_is_away_costs_no_packet(lab, nginx, redis, rules):
    """Neither its start nor the packets wait for a heart: they are as with a store that is away and --fail open."""
    digest = nginx.add("file", FILE)
    url = f"http://{SERVER4}/file"
    redis.kill()
    with named(lab, redis.url, rules, "edge", extra=["--fail", "open", "--budget", "20ms"]) as netstar:
        assert "does not say whether the name edge is free" in netstar.text()
        assert lab.curl(url) == (0, digest, len(FILE))
        redis.start()
        wait_for(lambda: "flows" in top(lab, redis).get("edge", {}), 15, "its heart")
        redis.pause()
        assert lab.curl(url, 60) == (0, digest, len(FILE))
        time.sleep(3)
        redis.resume()
        beat = wait_for(lambda: top(lab, redis).get("edge"), 10, "its heart")["beat"]
        wait_for(lambda: top(lab, redis)["edge"]["beat"] > beat, 15, "that it goes on beating")
        redis.ask("SET", key_of("edge"), "nonsense")
        wait_for(lambda: "flows" in top(lab, redis).get("edge", {}), 15, "that it takes its name back")
        assert netstar.interrupt()[0] == 0


def test_hostile_heartbeats_harm_nobody(lab, redis, rules):
    """Whatever stands in the store: top shows what can be shown, and nothing of it moves the cursor."""
    version = b"\xf5" + bytes(7)
    for i, value in enumerate([b"", b"{", b"[" * 4000, b"{\"name\":1}", b"\xff" * 100, b"x" * 5000,
                               b'{"name":"../x","beat":1}', b'{"name":"ok","beat":1,"host":"\\u001b[2Jx","at":-9e99}']):
        redis.ask("SET", key_of(f"k{i}"), version + value)
    redis.ask("SET", key_of("plain"), "no value of NetStar's")
    redis.ask("LPUSH", key_of("list"), "1")
    done = command(lab, "top", "--store", redis.url, "--once")
    assert done.returncode == 0, done.stderr
    assert "1 instance, 1 overdue" in done.stdout and "\033" not in done.stdout
    redis.ask("SET", key_of("edge"), version + b"[" * 4000)
    with named(lab, redis.url, rules, "edge", QUIET) as netstar:
        wait_for(lambda: "flows" in top(lab, redis).get("edge", {}), 10, "its heart")
        assert netstar.interrupt()[0] == 0


def test_top_on_a_terminal(lab, redis, rules):
    with named(lab, redis.url, rules, "edge", QUIET) as netstar:
        wait_for(lambda: "flows" in top(lab, redis).get("edge", {}), 10, "its heart")
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
        argv = ["ip", "netns", "exec", lab.middle, netstar_binary(), "top", "--store", redis.url, "--every", "200ms"]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave) as p:
            os.close(slave)
            text, end = b"", time.monotonic() + 20
            while text.count(b"\033[H") < 3 and time.monotonic() < end:
                if select.select([master], [], [], 1)[0]:
                    text += os.read(master, 65536)
            p.send_signal(signal.SIGINT)
            with contextlib.suppress(OSError):
                while select.select([master], [], [], 5)[0] and (more := os.read(master, 65536)):
                    text += more
            assert p.wait(10) == 0
        os.close(master)
        assert text.count(b"\033[H") >= 3 and b"edge " in text and b" alive\033[K" in text
        assert netstar.interrupt()[0] == 0


@pytest.mark.parametrize("cores", [1, 2])
def test_stats(lab, nginx, redis, rules, cores):
    """The numbers of a running instance: as JSON, and as Prometheus reads them."""
    digest = nginx.add("file", FILE)
    with named(lab, redis.url, rules, "edge", extra=["--cores", str(cores)]) as netstar:
        for _ in range(4):
            assert lab.curl(f"http://{SERVER4}/file") == (0, digest, len(FILE))
        done = command(lab, "stats", "edge", "--control", run_dir(lab))
        assert done.returncode == 0, done.stderr
        stats = json.loads(done.stdout)
        assert stats["instance"] == "edge" and stats["pid"] == netstar.process.pid and stats["ended_by"] is None
        assert stats["engine"]["packets"] >= 1000 and stats["duration"] > 0
        assert len(stats["cores"]) == cores and len(stats["ports"]) == 2
        assert sum(p["rx_packets"] for p in stats["ports"]) >= stats["engine"]["packets"]
        scanned = [stats["module"]] if cores == 1 else [c["module"] for c in stats["cores"]]
        assert sum(m["bytes_scanned"] for m in scanned) >= 4 * len(FILE)
        assert stats["module"]["bytes_scanned"] == sum(m["bytes_scanned"] for m in scanned)
        assert stats["module"]["rules"] == 3
        done = command(lab, "stats", "--prometheus", "--control", run_dir(lab))
        assert done.returncode == 0, done.stderr
        samples, types = {}, {}
        for line in done.stdout.splitlines():
            if line.startswith("#"):
                word, kind, name, value = line.split()
                assert (word, kind) == ("#", "TYPE") and name not in types and value in ("counter", "gauge")
                types[name] = value
                continue
            m = re.fullmatch(r"([a-z_0-9]+)\{((?:[a-z_]+=\"(?:[^\"\\\n]|\\.)*\",?)+)\} (-?[0-9.e+-]+)", line)
            assert m, line
            assert m[1] in types, line
            assert m[1].endswith("_total") == (types[m[1]] == "counter")
            assert (m[1], m[2]) not in samples, line
            samples[m[1], m[2]] = float(m[3])
        own = 'instance="edge",nf="ips"'
        assert samples["netstar_packets_total", own] >= stats["engine"]["packets"]
        assert ("netstar_flows", own) in samples
        assert samples["netstar_dropped_total", own + ',cause="conflict"'] == 0
        assert samples["netstar_store_latency_seconds", own + ',quantile="0.99"'] > 0
        assert samples["netstar_port_rx_packets_total", own + ',port="m0"'] > 100
        at = own + ('' if cores == 1 else ',core="1"')
        assert samples["netstar_nf_value", at + ',name="rules"'] == 3
        assert netstar.interrupt()[0] == 0
