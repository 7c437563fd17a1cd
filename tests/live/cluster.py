# SPDX-License-Identifier: Apache-2.0
"""A real Redis cluster in the middle namespace, three masters with a replica each, and what each of the six was told to do:
`redis-cli monitor` writes it into a file per node, which history.py reads."""
import os
import re
import signal
import time

from lab import LabError, Process, Redis, run, wait_for

MASTERS, NODES, FIRST_PORT = 3, 6, 7000


class Node(Redis):
    def __init__(self, lab, n, timeout_ms):
        super().__init__(lab, FIRST_PORT + n)
        self.n = n
        self.dir = lab.path(f"node{n}")
        os.mkdir(self.dir)
        self.argv = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", self.socket,
                     "--save", "", "--appendonly", "no", "--dir", self.dir, "--cluster-enabled", "yes", "--cluster-node-timeout", str(timeout_ms),
                     "--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0",
                     "--repl-diskless-sync-delay", "0", "--maxmemory-policy", "noeviction"]
        self.record = os.path.join(self.dir, "monitor")
        self.monitor = None

    def start(self):
        self.process = Process(self.argv, self.lab.path("redis.log"), self.lab.middle)
        wait_for(lambda: self.process.alive() and self._pong(), 10, f"node {self.n}")

    def watch(self):
        self.monitor = Process(["redis-cli", "-p", str(self.port), "monitor"], self.record, self.lab.middle)
        wait_for(lambda: self.monitor.text().startswith("OK"), 10, "the monitor")

    def says(self, what, *words):
        return what in self.ask(*words)

    def is_master(self):
        return self.says(b"role:master", "INFO", "replication")


class Cluster:
    def __init__(self, lab, timeout_ms=1500):
        self.lab, self.timeout_ms = lab, timeout_ms
        self.nodes = []
        self.lost = []  # (master, its replica that took over, when it was killed)

    def __enter__(self):
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self):
        self.nodes = [Node(self.lab, n, self.timeout_ms) for n in range(NODES)]
        for node in self.nodes:
            node.start()
        out = run("ip", "netns", "exec", self.lab.middle, "redis-cli", "--cluster", "create",
                  *(f"127.0.0.1:{n.port}" for n in self.nodes), "--cluster-replicas", "1", "--cluster-yes")
        if "All 16384 slots covered" not in out:
            raise LabError("the cluster cannot be made:\n" + out)
        wait_for(lambda: all(n.says(b"cluster_state:ok", "CLUSTER", "INFO") for n in self.nodes), 20, "the cluster")
        for node in self.nodes[:MASTERS]:
            wait_for(lambda n=node: n.says(b"state=online", "INFO", "replication"), 20, "a replica")
        for node in self.nodes:
            node.watch()

    def url(self, options=""):
        return "redis-cluster://" + ",".join(f"127.0.0.1:{n.port}" for n in self.nodes[:MASTERS]) + options

    def first_masters(self):
        """Those that are what they were."""
        return [n for n in range(MASTERS) if n not in [old for old, _, _ in self.lost]]

    def replica_of(self, master):
        port, = re.findall(rb"slave0:ip=127.0.0.1,port=(\d+)", master.ask("INFO", "replication"))
        return self.nodes[int(port) - FIRST_PORT]

    def lose_master(self, n):
        """Kills it, and waits until its replica has taken over. Then it comes back, as a replica."""
        master = self.nodes[n]
        replica = self.replica_of(master)
        master.kill()
        when = time.time()
        wait_for(replica.is_master, 30, "the replica to take over", pause=0.2)
        self.lost.append((n, replica.n, when))
        master.monitor.kill()
        master.start()
        wait_for(lambda: master.says(b"master_link_status:up", "INFO", "replication"), 30, "the lost node to be a replica",
                 pause=0.2)

    def pause(self, n, seconds):
        """It hangs for a while. When its replica takes over meanwhile, what it still does as a master when it wakes is not
        part of the history: it will throw that away."""
        node, replica = self.nodes[n], self.replica_of(self.nodes[n])
        node.process.signal(signal.SIGSTOP)
        when = time.time()
        time.sleep(seconds)
        node.process.signal(signal.SIGCONT)
        agreed = 0
        while agreed < 5:  # for a second
            time.sleep(0.2)
            roles = node.is_master(), replica.is_master()
            agreed = agreed + 1 if roles[0] != roles[1] else 0
        if roles[1]:
            self.lost.append((n, replica.n, when))
            wait_for(lambda: node.says(b"master_link_status:up", "INFO", "replication"), 30, "the paused node to be a replica")

    def histories(self):
        """By shard: the records of the nodes that were its master, one after another, and when each began to be that."""
        chains = {n: [(self.nodes[n].record, 0.0)] for n in range(MASTERS)}
        for old, new, when in self.lost:
            chain = next(c for c in chains.values() if c[-1][0] == self.nodes[old].record)
            chain.append((self.nodes[new].record, when))
        return list(chains.values())

    def __exit__(self, *what):
        for node in self.nodes:
            if node.monitor and node.monitor.alive():
                node.monitor.kill()
            if node.process:
                node.kill()
