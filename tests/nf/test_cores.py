# SPDX-License-Identifier: Apache-2.0
"""Several cores against one: the same captures must give the same alerts and, byte for byte, the same output."""
import json
import os
import signal
import subprocess
import time

import pytest
from scapy.all import IP, TCP, Ether, wrpcap
from test_command import COUNTER, NETSTAR, capture, frame
from test_ips import RULES, START, busy_traffic, redis  # noqa: F401  (redis is a fixture)


def replay(folder, frames, cores, *args, store="mem:", nf="ips", step=0.001):
    folder.mkdir()
    packets = [Ether(f) for f in frames]
    for i, p in enumerate(packets):
        p.time = START + i * step
    wrpcap(str(folder / "in.pcap"), packets)
    (folder / "rules").write_text(RULES)
    done = subprocess.run([NETSTAR, "run", nf, "-r", "in.pcap", "-w", "out.pcap", "--store", store, "--rules", "rules",
                           "--alerts", "alerts", "--report", "report", "--flows", "4096", "--budget", "20s",
                           "--packets", "8192", "--cores", str(cores), *args],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=folder, timeout=90)
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "report").read_text())
    engine = report["engine"]
    assert engine["packets"] == engine["forwarded"] + engine["sent_by_handler"] + sum(engine["dropped"].values()), engine
    assert report["buffers"]["whole"]
    return sorted((folder / "alerts").read_text().splitlines()), (folder / "out.pcap").read_bytes(), report, done.stderr


def same_work(one, many):
    for name in ("packets", "bytes", "forwarded", "dropped", "injected", "flows_opened", "stream_bytes", "events",
                 "conflicts", "retransmits", "gaps"):
        assert many["engine"][name] == one["engine"][name], name


@pytest.mark.parametrize("nf", ["ips", "ips --state each", "ips-callback"])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_as_with_one_core(tmp_path, nf, seed):
    frames = busy_traffic(seed, flows=90)
    nf, *args = nf.split()
    alerts, out, one, _ = replay(tmp_path / "one", frames, 1, *args, nf=nf)
    assert len(alerts) > 20
    for cores in 2, 3:
        more, again, many, text = replay(tmp_path / f"{cores}", frames, cores, *args, nf=nf)
        assert more == alerts
        assert again == out
        same_work(one, many)
        if nf == "ips" and not args:  # how many changes become one write, and what waits for it, is a matter of time
            for name in "records_written", "packets_that_waited":
                assert all(run["module"].pop(name, 1) > 0 for run in (one, many))
        assert many["module"] == one["module"]
        assert f"{cores} cores, each with its own mem:" in text and "flows spread by software" in text
        assert len(many["cores"]) == cores
        assert all(c["engine"]["flows_opened"] > 0 for c in many["cores"])
        assert sum(c["engine"]["given"] for c in many["cores"]) == many["engine"]["taken_over"] > 0
        assert sum(c["engine"]["packets"] for c in many["cores"]) == len(frames)


@pytest.mark.parametrize("state", ["kept", "each"])
def test_with_answers_from_outside(tmp_path, redis, state):  # noqa: F811
    frames = busy_traffic(5)
    redis.clear()
    alerts, out, one, _ = replay(tmp_path / "one", frames, 1, "--state", state, store=redis.url)
    redis.clear()
    more, again, two, _ = replay(tmp_path / "two", frames, 2, "--state", state, store=redis.url)
    assert (more, again) == (alerts, out)
    assert all(c["engine"]["waits"] > 0 and c["store"]["requests"] > 0 for c in two["cores"])
    if state == "each":  # otherwise how many changes become one write is a matter of time
        assert two["store"]["requests"] == one["store"]["requests"]


def test_many_rounds_in_the_order_of_the_input(tmp_path):
    """Rounds of 512 packets: the output has every packet, where it was."""
    frames = [frame(b"datagram %d" % i, flow=i % 50) for i in range(5000)]
    path = capture(tmp_path / "in.pcap", frames, step=0.00001)
    outs = []
    for cores in 1, 2, 4:
        out = tmp_path / f"out{cores}.pcap"
        done = subprocess.run([NETSTAR, "run", COUNTER, "-r", path, "-w", str(out), "--cores", str(cores)],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=80)
        assert done.returncode == 0, done.stderr
        outs.append(out.read_bytes())
    assert outs[0] == outs[1] == outs[2]


@pytest.mark.skipif("ASAN_OPTIONS" in os.environ, reason="sanitizers reserve more address space than is left here")
def test_one_core_fails_and_all_end(tmp_path):
    """The flow tables of three cores do not fit into this address space, that of one does."""
    path = capture(tmp_path / "in.pcap", [frame(b"x")])
    done = subprocess.run(["prlimit", "--as=3000000000", NETSTAR, "run", COUNTER, "-r", path, "--cores", "3", "--no-huge",
                           "--flows", "4000000", "--packets", "4096"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "error: " in done.stderr and "Sanitizer" not in done.stderr


@pytest.mark.parametrize("signals", [1, 3])
def test_a_signal_ends_all_cores(tmp_path, signals):
    path = capture(tmp_path / "in.pcap", [frame(b"datagram", flow=i % 20) for i in range(4000)], step=0.01)
    p = subprocess.Popen([NETSTAR, "run", COUNTER, "-r", path, "--speed", "1", "--cores", "2", "--report", "-"],
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        for line in p.stderr:
            if "ready" in line:
                break
        time.sleep(0.5)
        for _ in range(signals):
            p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=30)
    finally:
        p.kill()
        p.wait()
    assert p.returncode == 0 or signals > 1, err
    if signals == 1:
        report = json.loads(out)
        assert report["ended_by"] == "signal" and report["buffers"]["whole"]
        assert 0 < report["engine"]["packets"] < 4000


@pytest.mark.parametrize("args, words", [
    (["--cores", "0"], "--cores 0: expected a whole number from 1 to 32"),
    (["--cores", "33"], "--cores 33: expected a whole number from 1 to 32"),
    (["--cores", "2", "--cpu", "0"], "--cpu: 1 processors given for 2 cores"),
    (["--cores", "2", "--cpu", "0,0"], "--cpu: 0 is given twice"),
    (["--cpu", "0,1"], "--cpu: 2 processors given for 1 core"),
    (["--cores", "2", "--cpu", "0,x"], "--cpu x: expected a whole number"),
])
def test_bad_options(tmp_path, args, words):
    path = capture(tmp_path / "in.pcap", [frame(b"x")])
    done = subprocess.run([NETSTAR, "run", COUNTER, "-r", path, *args], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 2 and words in done.stderr


def test_check_counts_the_memory_of_all_cores():
    def most(*args):
        done = subprocess.run([NETSTAR, "check", *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=60)
        for word in done.stdout.split("at most ")[1].split():
            return float(word.rstrip(",G")) if word.rstrip(",").endswith("G") else float(word.rstrip(",M")) / 1024
        return None
    assert most("--cores", "4") == pytest.approx(4 * most(), rel=0.2)


def test_alerts_are_whole_lines(tmp_path):
    """All cores write to one file."""
    frames = busy_traffic(9, flows=120)
    alerts, _, _, _ = replay(tmp_path / "a", frames, 4)
    assert all(json.loads(line)["rule"] in (1001, 1003) for line in alerts)
    assert os.path.getsize(tmp_path / "a" / "alerts") == sum(len(line) + 1 for line in alerts)


def test_fragments_without_their_like_stop_nobody(tmp_path):
    """They wait on a core that the others do not wait for."""
    frames = busy_traffic(3, flows=60)
    lone = [Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src=f"10.9.0.{n + 1}", dst="10.9.1.1", flags="MF") /
            TCP(sport=7, dport=80) / bytes(44) for n in range(40)]
    for n, p in enumerate(lone):
        frames.insert(n * len(frames) // len(lone), bytes(p))
    _, _, report, _ = replay(tmp_path / "a", frames, 2)
    assert report["engine"]["dropped"]["fragment"] == len(lone)
