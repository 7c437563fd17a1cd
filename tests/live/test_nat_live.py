# SPDX-License-Identifier: Apache-2.0
"""The NAT between a real client and a real server, with a real Redis: many connections at once, instances that are killed and
replaced, and several that share the ports."""
import os
import signal
import socket
import struct
import threading
import time

import pytest
from lab import CLIENT4, SERVER4, NetStar, Process, entered, netstar_binary, run, wait_for

BLOB = os.urandom(6 << 20)
PUBLIC = "10.88.0.1"


class Nat(NetStar):
    def __init__(self, lab, store, *extra):
        super().__init__(lab, store, "")
        self.argv = [netstar_binary(), "run", "nat", "--ports", ",".join(lab.ports), "--store", store, "--public", PUBLIC,
                     "--inside", CLIENT4, "--report", self.report_path, *extra]


@pytest.fixture(autouse=True)
def routed(lab):
    run("ip", "-n", lab.server, "route", "replace", PUBLIC + "/32", "via", CLIENT4)


def mappings(redis):
    """What the store has: inside end → (outside end, id), outside end → (inside end, id). Each value follows its mark."""
    found = {b"i": {}, b"o": {}}
    for kind, other in (b"i", 1), (b"o", 0):
        for key in redis.ask("KEYS", b"nat:" + kind + b":*"):
            value = redis.ask("GET", key)
            if value is not None:
                record = value[8:]
                assert len(record) == 24 and key[6:] == record[7 * (1 - other):7 * (2 - other)]
                found[kind][key[6:]] = (record[7 * other:7 * other + 7], record[16:])
    return found[b"i"], found[b"o"]


def check_mappings(redis):
    """No port stands for two inside ends, and each mapping has the port that it says it has."""
    inside, outside = mappings(redis)
    ports = [end for end, _ in inside.values()]
    assert len(set(ports)) == len(ports)
    for end, (public, number) in inside.items():
        assert outside[public] == (end, number)
    return inside, outside


def seen_from(nginx, since):
    return {line.split()[0] for line in nginx.requests()[since:]}


def ping(lab, host):
    """An echo request of the client's: true when its answer comes."""
    message = struct.pack("!BBHHH", 8, 0, 0, 4711, 1) + b"ping" * 8
    total = sum(struct.unpack(f"!{len(message) // 2}H", message))
    total = (total & 0xffff) + (total >> 16)
    message = message[:2] + struct.pack("!H", ~total & 0xffff) + message[4:]
    with entered(lab.client):
        s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with s:
        s.settimeout(5)
        s.sendto(message, (host, 0))
        while True:
            answer, sender = s.recvfrom(2048)
            if sender[0] == host and answer[20] == 0:
                return answer[24:] == message[4:]


def finish(nat):
    status, report = nat.interrupt(signal.SIGINT)
    assert status == 0, nat.text()
    return report


@pytest.mark.parametrize("cores", ["1", "2"])
def test_many_connections_at_once(lab, nginx, redis, cores):
    digest = nginx.add("blob", BLOB[:200000])
    before = len(nginx.requests())
    with Nat(lab, redis.url, "--cores", cores) as nat:
        results = []
        threads = [threading.Thread(target=lambda: results.append(lab.curl(f"http://{SERVER4}/blob"))) for _ in range(40)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert results == [(0, digest, 200000)] * 40
        assert seen_from(nginx, before) == {PUBLIC}
        assert ping(lab, SERVER4)
        inside, _ = check_mappings(redis)
        assert sorted(end[0] for end in inside) == [socket.IPPROTO_ICMP] + [socket.IPPROTO_TCP] * 40
        finish(nat)


def test_instances_are_killed_and_replaced(lab, nginx, redis):
    digest = nginx.add("blob", BLOB)
    before = len(nginx.requests())
    nat = Nat(lab, redis.url, "--lease", "3").start()
    try:
        downloads = [lab.download(f"http://{SERVER4}/slow/blob", 60) for _ in range(8)]
        wait_for(lambda: all(d.size() > 0 for d in downloads), 15, "all downloads to have begun")
        for _ in range(3):
            nat.kill()
            nat = Nat(lab, redis.url, "--lease", "3").start()
            grown = [d.size() for d in downloads]
            wait_for(lambda: all(d.size() > was or d.size() == len(BLOB) for d, was in zip(downloads, grown)), 20,
                     "all downloads to go on")
        for d in downloads:
            assert d.finish() == (0, digest, len(BLOB))
        assert seen_from(nginx, before) == {PUBLIC}
        check_mappings(redis)
        assert lab.curl(f"http://{SERVER4}/blob") == (0, digest, len(BLOB)), "and new connections"
        check_mappings(redis)
        finish(nat)
    finally:
        nat.kill()


def capture(path, first_host, n):
    """n datagrams, each from an inside end of its own."""
    with open(path, "wb") as f:
        f.write(struct.pack("<IHHiIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1))
        for i in range(n):
            host = first_host + i // 50
            ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, 17, 0,
                             bytes([10, host >> 16 & 255, host >> 8 & 255, host & 255]), bytes([198, 51, 100, 7]))
            total = sum(struct.unpack("!10H", ip))
            total = (total & 0xffff) + (total >> 16)
            total = ~(total + (total >> 16)) & 0xffff
            frame = b"\2\0\0\0\0\2\2\0\0\0\0\1\x08\0" + ip[:10] + struct.pack("!H", total) + ip[12:] + \
                struct.pack("!HHHH", 2000 + i % 50, 53, 8, 0)
            f.write(struct.pack("<IIII", 1700000000 + i // 1000, i % 1000 * 1000, len(frame), len(frame)) + frame)


def sources(path):
    with open(path, "rb") as f:
        data = f.read()
    at, found = 24, []
    while at + 16 <= len(data):
        length, = struct.unpack_from("<I", data, at + 8)
        frame = data[at + 16:at + 16 + length]
        at += 16 + length
        found.append((frame[26:30], frame[34:36]))
    return found


def test_several_instances_share_the_ports(lab, redis):
    """Four at the same time, one of which is killed in the middle, and one more that takes its place. They map different
    inside ends, but for two of them, which map the same ones."""
    firsts, n = [0, 1000, 2000, 2000], 4000
    runs = []
    for k, first in enumerate([*firsts, 1000]):
        path = lab.path(f"in{k}.pcap")
        capture(path, first, n)
        runs.append((path, path + ".out"))

    def start(k):
        return Process([netstar_binary(), "run", "nat", "-r", runs[k][0], "-w", runs[k][1], "--store", redis.url, "--public",
                        PUBLIC, "--inside", "10.0.0.0/12", "--lease", "3", "--no-huge"], lab.path("nat.log"), lab.middle)
    processes = [start(k) for k in range(4)]
    wait_for(lambda: len(redis.ask("KEYS", "nat:i:*")) > 500, 30, "some mappings")
    processes[1].kill()
    processes.append(start(4))
    for k, p in enumerate(processes):
        if k != 1:
            assert p.wait(60) == 0, p.text()
    inside, _ = check_mappings(redis)
    assert len(inside) == 3 * n
    outs = [sources(out) for k, (_, out) in enumerate(runs) if k != 1]
    assert [len(out) for out in outs] == [n] * 4
    assert outs[1] == outs[2], "both know the same mappings"
    assert len(set(outs[0]) | set(outs[1]) | set(outs[3])) == 3 * n, "no port was given twice"


def test_redis_is_gone_for_a_while(lab, nginx, redis):
    """What is known here goes on for a moment; then nothing passes untranslated, and all is well again afterwards."""
    digest = nginx.add("blob", BLOB)
    before = len(nginx.requests())
    with Nat(lab, redis.url) as nat:
        download = lab.download(f"http://{SERVER4}/slow/blob", 60)
        wait_for(lambda: download.size() > 0, 10, "the download to have begun")
        redis.pause()
        time.sleep(3)
        redis.resume()
        assert download.finish() == (0, digest, len(BLOB))
        assert seen_from(nginx, before) == {PUBLIC}
        finish(nat)
