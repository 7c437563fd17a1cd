# SPDX-License-Identifier: Apache-2.0
"""The IPS between a real client and a real server, with a real Redis: what passes, what does not, and what is left
when things die."""
import contextlib
import os
import signal
import time

import pytest
from lab import (CLIENT4, CLIENT6, DROPPED, NOTED, RESET, RULES, SERVER4, SERVER6, Lab, LabError, NetStar, Nginx,
                 Proxy, Redis, Sink, wait_for)

BLOB = os.urandom(3 << 20)
SMALL = os.urandom(20000)


def pieces(pattern, n=3):
    """The pattern in n parts, with something harmless around it."""
    cut = [len(pattern) * i // n for i in range(n + 1)]
    parts = [pattern[a:b] for a, b in zip(cut, cut[1:])]
    return [b"begin " + parts[0], *parts[1:-1], parts[-1] + b" end\n"]


def send_slowly(s, parts, pause=0.1):
    for part in parts:
        s.sendall(part)
        time.sleep(pause)


def arrived(sink, data, seconds=5):
    wait_for(lambda: data in sink.all(), seconds, f"{data!r} at the server, which has {sink.all()!r}")


def caught(lab, sink, netstar):
    """An attack on a connection of its own: true when there is an alert for it, and nothing of its end arrived."""
    with lab.connect(sink.port) as s:
        port = s.getsockname()[1]
        send_slowly(s, pieces(DROPPED))
        with contextlib.suppress(LabError):
            wait_for(lambda: any(a["src_port"] == port for a in netstar.alerts()), 1, "an alert")
            return True
    return False


def finish(netstar, number=signal.SIGINT):
    """It ends with status 0, which it does only when its pool of packet buffers is whole."""
    status, report = netstar.interrupt(number)
    assert status == 0, netstar.text()
    return report


@pytest.mark.parametrize("host", [SERVER4, f"[{SERVER6}]"], ids=["ipv4", "ipv6"])
def test_benign_download_is_byte_identical(lab, nginx, redis, rules, host):
    digest = nginx.add("blob", BLOB)
    with NetStar(lab, redis.url, rules) as netstar:
        for _ in range(3):
            assert lab.curl(f"http://{host}/blob") == (0, digest, len(BLOB))
        assert netstar.alerts() == []
        report = finish(netstar)
    assert report["engine"]["stream_bytes"] >= 3 * len(BLOB)
    assert report["engine"]["waits"] > 0, "the answers came from elsewhere"


@pytest.mark.parametrize("driver", ["xdp", "packet"])
def test_both_drivers(lab, nginx, sink, redis, rules, driver):
    digest = nginx.add("blob", BLOB)
    with NetStar(lab, redis.unix_url, rules, ports=[f"{driver}:{p}" for p in lab.ports]) as netstar:
        assert lab.curl(f"http://{SERVER4}/blob") == (0, digest, len(BLOB))
        with lab.connect(sink.port) as s:
            send_slowly(s, pieces(DROPPED))
            netstar.wait_alert(1001)
        finish(netstar)
    assert DROPPED not in sink.all()


@pytest.mark.parametrize("driver", ["xdp", "packet"])
def test_two_cores(lab, nginx, sink, redis, rules, driver):
    """Downloads pass whole, attacks are seen, and both cores work: each has one of the ports and some of the flows."""
    digest = nginx.add("blob", BLOB)
    ports = [f"{driver}:{p}" for p in lab.ports]
    with NetStar(lab, redis.url, rules, ports=ports, extra=["--cores", "2"]) as netstar:
        assert "flows spread by software" in wait_for(lambda: "one queue, of core 1" in netstar.process.text() and
                                                      netstar.process.text(), 5, "the opening lines")
        for _ in range(12):
            assert lab.curl(f"http://{SERVER4}/blob") == (0, digest, len(BLOB))
        assert lab.curl(f"http://[{SERVER6}]/blob") == (0, digest, len(BLOB))
        assert all(caught(lab, sink, netstar) for _ in range(6))
        before = cpu_seconds(netstar.process.pid)
        time.sleep(2)
        idle = cpu_seconds(netstar.process.pid) - before
        report = finish(netstar)
    assert DROPPED not in sink.all()
    assert idle < 1.0, f"{idle} of 2 seconds"
    cores = report["cores"]
    assert len(cores) == 2
    assert all(c["engine"]["flows_opened"] > 0 and c["engine"]["taken_over"] > 0 for c in cores)
    assert sum(c["engine"]["given"] for c in cores) == sum(c["engine"]["taken_over"] for c in cores)
    e = report["engine"]
    assert e["dropped"]["core_full"] == 0 or e["packets"] > 10000
    assert e["packets"] == e["forwarded"] + e["sent_by_handler"] + sum(e["dropped"].values()), e


@pytest.mark.parametrize("client,server", [(CLIENT4, SERVER4), (CLIENT6, SERVER6)], ids=["ipv4", "ipv6"])
def test_attack_split_over_three_segments(lab, sink, redis, rules, client, server):
    parts = pieces(DROPPED)
    with NetStar(lab, redis.url, rules) as netstar:
        with lab.connect(sink.port, server) as s:
            port = s.getsockname()[1]
            send_slowly(s, parts[:2])
            arrived(sink, parts[0] + parts[1])
            assert redis.keys(), "the state of the flow is in the store before its bytes are at the server"
            assert netstar.alerts() == []
            s.sendall(parts[2])
            alert, = netstar.wait_alert(1001)
            time.sleep(0.7)  # TCP sends it again meanwhile
        finish(netstar)
    assert sink.all() == parts[0] + parts[1]
    assert (alert["src"], alert["src_port"], alert["dst"], alert["dst_port"]) == (client, port, server, sink.port)
    assert alert["offset"] == len(b"begin ") + len(DROPPED), "it ends there in the stream"
    assert [a["rule"] for a in netstar.alerts()] == [1001], "sending it again alerts once"


def test_attack_in_what_the_server_sends(lab, nginx, redis, rules):
    evil = SMALL[:9000] + DROPPED + SMALL[9000:]
    nginx.add("evil", evil)
    with NetStar(lab, redis.url, rules) as netstar:
        download = lab.download(f"http://{SERVER4}/evil", 3)
        netstar.wait_alert(1001)
        status, _, size = download.finish()
        assert status != 0 and size < len(evil)
        with open(download.path, "rb") as f:
            assert DROPPED not in f.read()
        alert, = netstar.alerts()
        assert (alert["src"], alert["src_port"], alert["dst"]) == (SERVER4, 80, CLIENT4)
        finish(netstar)


def test_reset_ends_both_ends(lab, sink, redis, rules):
    with NetStar(lab, redis.url, rules) as netstar:
        with lab.connect(sink.port) as s:
            send_slowly(s, pieces(RESET)[:2])
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                s.sendall(pieces(RESET)[2])
                s.recv(1)
        netstar.wait_alert(1002)
        wait_for(lambda: sink.ended == len(sink.streams), 5, "the reset at the server")
        finish(netstar)
    assert RESET not in sink.all()


def test_alert_lets_it_pass(lab, nginx, redis, rules):
    digest = nginx.add("small", SMALL)
    with NetStar(lab, redis.url, rules) as netstar:
        with lab.connect() as s:
            send_slowly(s, [b"GET /small HTTP/1.0\r\n", NOTED[:7], NOTED[7:] + b"\r\n\r\n"])
            assert s.makefile("rb").read().endswith(SMALL)
        netstar.wait_alert(1003)
        assert lab.curl(f"http://{SERVER4}/small") == (0, digest, len(SMALL))
        finish(netstar)


@pytest.mark.parametrize("fault", ["loss", "reorder", "duplicate"])
def test_a_bad_line_costs_nothing_but_time(fault):
    with Lab(bad_line=fault) as lab, Nginx(lab) as nginx, Redis(lab) as redis, Sink(lab) as sink:
        digest = nginx.add("blob", BLOB)
        with NetStar(lab, redis.url, lab.write("rules", RULES)) as netstar:
            assert lab.curl(f"http://{SERVER4}/blob", 40) == (0, digest, len(BLOB))
            with lab.connect(sink.port) as s:
                send_slowly(s, pieces(DROPPED))
                netstar.wait_alert(1001)
            finish(netstar)
        assert DROPPED not in sink.all()


def test_takeover_after_sigkill(lab, nginx, sink, redis, rules):
    long = BLOB * 5
    digest = nginx.add("long", long)
    parts = pieces(DROPPED, 4)
    with NetStar(lab, redis.url, rules) as first, lab.connect(sink.port) as s:
        send_slowly(s, parts[:2])
        arrived(sink, parts[0] + parts[1])
        download = lab.download(f"http://{SERVER4}/slow/long")
        wait_for(lambda: download.size() > len(long) // 4, 20, "a quarter of the download")
        first.kill()
        have = download.size()
        assert have < len(long) and first.alerts() == []
        with NetStar(lab, redis.url, rules) as second:
            send_slowly(s, parts[2:])
            alert, = second.wait_alert(1001, 10)
            assert download.finish() == (0, digest, len(long)), second.text()
            time.sleep(0.5)
            assert DROPPED not in sink.all()
            assert alert["src_port"] == s.getsockname()[1]
            finish(second)


def test_takeover_with_bytes_on_their_way(lab, sink, redis, rules):
    """What the client sent while nobody was there arrives by TCP's own repetition, and is looked at."""
    parts = pieces(DROPPED, 4)
    with NetStar(lab, redis.url, rules) as first, lab.connect(sink.port) as s:
        send_slowly(s, parts[:2])
        arrived(sink, parts[0] + parts[1])
        first.kill()
        send_slowly(s, parts[2:])
        with NetStar(lab, redis.url, rules) as second:
            second.wait_alert(1001, 15)
            finish(second)
    assert DROPPED not in sink.all()


TROUBLES = ["stopped", "paused", "slow", "restarted", "garbage", "refused"]


@contextlib.contextmanager
def trouble(kind, redis, proxy):
    if kind == "stopped":
        redis.kill()
        yield
        redis.start()
    elif kind == "restarted":
        redis.kill()
        redis.start()
        yield
    elif kind == "paused":
        redis.pause()
        try:
            yield
        finally:
            redis.resume()
    else:
        proxy.set({"refused": "refuse"}.get(kind, kind))
        yield
        proxy.set("pass")


@pytest.mark.parametrize("fail", ["closed", "open"])
@pytest.mark.parametrize("kind", TROUBLES)
def test_store_trouble(lab, nginx, sink, redis, rules, kind, fail):
    digest = nginx.add("small", SMALL)
    url = f"http://{SERVER4}/small"
    good = (0, digest, len(SMALL))
    parts = pieces(DROPPED)
    with Proxy(lab, redis) as proxy, \
            NetStar(lab, proxy.url, rules, fail=fail, extra=["--budget", "50ms"]) as netstar, \
            lab.connect(sink.port) as s:
        assert lab.curl(url) == good
        s.sendall(parts[0])
        arrived(sink, parts[0])

        with trouble(kind, redis, proxy):
            if kind == "restarted":
                pass  # it is back at once, only what it knew is gone
            elif fail == "closed":
                s.sendall(parts[1])
                status, _, size = lab.curl(url, 2)
                assert status != 0 and size < len(SMALL), "nothing is let through unseen"
                assert sink.all() == parts[0]
            else:
                s.sendall(parts[1])
                arrived(sink, parts[0] + parts[1])
                assert lab.curl(url) == good

        wait_for(lambda: lab.curl(url, 2) == good, 30, "a download that works again")
        wait_for(lambda: caught(lab, sink, netstar), 30, "a new attack to be caught\n" + netstar.text())
        # The interrupted attack: while the store kept what it knew and nothing passed unseen, it is caught as well.
        if fail == "closed" and kind in ("paused", "slow", "garbage", "refused"):
            arrived(sink, parts[0] + parts[1], 30)
        s.sendall(b"".join(parts[2:]) if kind != "restarted" else b"".join(parts[1:]))
        if fail == "closed" and kind in ("paused", "slow", "garbage", "refused"):
            wait_for(lambda: any(a["src_port"] == s.getsockname()[1] for a in netstar.alerts()), 10,
                     "an alert for the interrupted attack")
        time.sleep(0.5)
        if fail == "closed":
            assert all(DROPPED not in stream for stream in sink.streams)
        report = finish(netstar)
    if kind != "restarted":
        policy = report["engine"]["policy"]
        assert policy["store"] + policy["timeout"] > 0, report
    if kind in ("stopped", "restarted", "refused", "garbage"):
        assert report["store"]["connects"] >= 2, report
    if kind == "garbage":
        assert report["store"]["protocol_errors"] > 0, report
        assert "Protocol error" in netstar.text(), "the log says what was wrong with the answer"


@pytest.mark.parametrize("state, asked", [("each", 500), ("kept", 10)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_drains_and_reports(lab, nginx, redis, rules, number, state, asked):
    nginx.add("long", BLOB * 4)
    with NetStar(lab, redis.url, rules, extra=["--state", state]) as netstar:
        download = lab.download(f"http://{SERVER4}/slow/long", 30)
        try:
            wait_for(lambda: download.size() > 1 << 20, 20, "some of the download")
            report = finish(netstar, number)
        finally:
            download.stop()
        assert report["engine"]["packets"] > 500
        assert report["store"]["requests"] > asked


def test_what_is_not_ip_or_tcp_passes(lab, redis, rules):
    with NetStar(lab, redis.url, rules) as netstar:
        lab.ping(SERVER4)
        lab.ping(SERVER6)
        report = finish(netstar)
    assert report["engine"]["not_ip"] >= 2, "a question for the neighbour and its answer"
    assert report["engine"]["other_proto"] >= 4, "two echo requests and their answers"


@pytest.mark.parametrize("ports", ["m0,nosuch0", "xdp:nosuch0,m1", "packet:m0,packet:nosuch0"])
def test_missing_interface(lab, redis, rules, ports):
    netstar = NetStar(lab, redis.url, rules, ports=ports.split(","))
    with pytest.raises(LabError, match="ended with status"), netstar:
        pass
    assert 0 < netstar.process.popen.returncode < 128
    assert "nosuch0" in netstar.text()


def test_no_store_at_start_fails_closed_and_then_works(lab, nginx, rules, redis):
    digest = nginx.add("small", SMALL)
    redis.kill()
    with NetStar(lab, redis.url, rules) as netstar:
        assert lab.curl(f"http://{SERVER4}/small", 2)[0] != 0
        redis.start()
        wait_for(lambda: lab.curl(f"http://{SERVER4}/small", 2) == (0, digest, len(SMALL)), 30, "a download")
        finish(netstar)


def test_it_idles_politely(lab, redis, rules):
    """With nothing to do it must not burn a core."""
    with NetStar(lab, redis.url, rules) as netstar:
        time.sleep(0.5)
        before = cpu_seconds(netstar.process.pid)
        time.sleep(2)
        used = cpu_seconds(netstar.process.pid) - before
        finish(netstar)
    assert used < 1.0, f"{used} of 2 seconds"


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
