# SPDX-License-Identifier: Apache-2.0
"""Two instances of ips, each on a core of its own, on one cluster of three Redis nodes: what both do together, beside what
one does alone."""
import json
import os
import pathlib
import socket
import statistics
import subprocess
import time

NODES, CASES = 3, ("ips_each", "ips_kept")


def free_ports(n):
    """Such that the cluster's own ports, 10000 above, are ports as well."""
    taken = []
    while len(taken) < n:
        s = socket.socket()
        s.bind(("127.0.0.1", 0))
        if s.getsockname()[1] < 55000:
            taken.append(s)
        else:
            s.close()
    ports = [s.getsockname()[1] for s in taken]
    for s in taken:
        s.close()
    return ports


class Cluster:
    def __init__(self, folder):
        self.nodes, self.ports = [], free_ports(NODES)
        for port in self.ports:
            home = pathlib.Path(folder) / str(port)
            home.mkdir()
            self.nodes.append(subprocess.Popen(
                ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--cluster-enabled", "yes", "--save", "",
                 "--dir", home], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL))

    def __enter__(self):
        names = [f"127.0.0.1:{port}" for port in self.ports]
        for port in self.ports:
            self.until(lambda: self.ask(port, "ping") == "PONG", "a node")
        subprocess.run(["redis-cli", "--cluster", "create", *names, "--cluster-replicas", "0", "--cluster-yes"],
                       check=True, stdout=subprocess.DEVNULL, timeout=60)
        for port in self.ports:
            self.until(lambda: "cluster_state:ok" in self.ask(port, "cluster", "info"), "the cluster")
        self.url = "redis-cluster://" + ",".join(names)
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            node.kill()
            node.wait()

    def clear(self):
        for port in self.ports:
            self.ask(port, "flushall")

    @staticmethod
    def ask(port, *words):
        done = subprocess.run(["redis-cli", "-p", str(port), *words], capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    @staticmethod
    def until(true, what):
        for _ in range(300):
            if true():
                return
            time.sleep(0.1)
        raise RuntimeError(f"{what} does not come up")


class Instance:
    """A process that runs one round whenever it is told to."""

    def __init__(self, command, case, url, cpu, which):
        self.process = subprocess.Popen(
            [*command, "--told", case, "--url", url, "--cpu", str(cpu), "--pass", str(16 * which)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.expect_ready()

    def expect_ready(self):
        line = self.process.stdout.readline()
        if line != "ready\n":
            raise RuntimeError(f"store_nf: {line!r}")

    def begin(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def end(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("store_nf has failed")
        self.expect_ready()
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


def measure(command, captures, rounds, folder):
    """A result for each case."""
    results = []
    cpus = sorted(os.sched_getaffinity(0))
    with Cluster(folder) as cluster:
        for case in CASES:
            two = [Instance([*command, *captures], case, cluster.url, cpus[-1 - i % len(cpus)], i) for i in range(2)]
            alone, both = [], []
            for _ in range(rounds):
                cluster.clear()
                two[0].begin()
                alone.append(two[0].end()["per_second"])
                cluster.clear()
                for instance in two:
                    instance.begin()
                both.append([instance.end()["per_second"] for instance in two])
            for instance in two:
                instance.close()
            sums = [sum(x) for x in both]
            results.append({
                "case": f"store_nf_{case}_two", "per_second": round(statistics.median(sums)),
                "alone_per_second": round(statistics.median(alone)),
                "sum_ratio": round(statistics.median(s / a for s, a in zip(sums, alone)), 3),
                "nodes": NODES, "cores": len(cpus), "rounds": rounds})
    return results
