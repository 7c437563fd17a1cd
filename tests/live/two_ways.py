# SPDX-License-Identifier: Apache-2.0
"""A lab with two ways between the client and the server, each with a NetStar of its own, and a switch at both ends that sends
frames now by one and now by the other.

    c0 --- x0 [switch] a0 --- m0 netstar m1 --- a1 [switch] x1 --- s0
                       b0 --- n0 netstar n1 --- b1
"""
import contextlib
import os
import random
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading

from lab import CLIENT4, CLIENT6, SERVER4, SERVER6, Lab, _die_with_parent, entered, run


class TwoWays(Lab):
    """The switch is in the namespace `line`; both instances are in `middle`, with the ports `ways[0]` and `ways[1]`."""

    def __init__(self, often=0.05, seed=1):
        super().__init__()
        self.ways = [["m0", "m1"], ["n0", "n1"]]
        self.often, self.random = often, random.Random(seed)
        self.open = [True, True]    # by way: whether frames are sent there
        self.moves = 0
        self._now = [0, 0]          # by end of the switch: the way that it uses
        self._over = False

    def _make(self):
        self.dir = tempfile.mkdtemp(prefix="netstar-lab-")
        self._stack.callback(shutil.rmtree, self.dir, ignore_errors=True)
        for ns in (self.client, self.middle, self.line, self.server):
            self._stack.callback(run, "ip", "netns", "del", ns, check=False)
            run("ip", "netns", "add", ns)
            run("ip", "-n", ns, "link", "set", "lo", "up")
        for ns in (self.middle, self.line):
            run("ip", "netns", "exec", ns, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        for ns in (self.client, self.server):
            run("ip", "netns", "exec", ns, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0",
                "net.ipv6.conf.default.router_solicitations=0")
        for near, near_ns, far, far_ns in (("c0", self.client, "x0", self.line), ("a0", self.line, "m0", self.middle),
                                           ("b0", self.line, "n0", self.middle), ("a1", self.line, "m1", self.middle),
                                           ("b1", self.line, "n1", self.middle), ("s0", self.server, "x1", self.line)):
            self._wire(near, near_ns, far, far_ns)
        for end, ns, v4, v6 in (("c0", self.client, CLIENT4, CLIENT6), ("s0", self.server, SERVER4, SERVER6)):
            run("ip", "-n", ns, "addr", "add", f"{v4}/24", "dev", end)
            run("ip", "-n", ns, "addr", "add", f"{v6}/64", "dev", end, "nodad")
        self._begin()

    def _begin(self):
        with entered(self.line):
            self._sockets = {name: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
                             for name in ("x0", "x1", "a0", "b0", "a1", "b1")}
        for name, s in self._sockets.items():
            s.bind((name, 3))
        thread = threading.Thread(target=self._switch, daemon=True)
        thread.start()
        self._stack.callback(self._end, thread)

    def _end(self, thread):
        self._over = True
        thread.join()
        for s in self._sockets.values():
            s.close()

    def _way(self, end):
        """Most often as before."""
        if self.random.random() < self.often or not self.open[self._now[end]]:
            before = self._now[end]
            ways = [w for w in (0, 1) if self.open[w]] or [before]
            self._now[end] = self.random.choice(ways)
            self.moves += self._now[end] != before
        return "ab"[self._now[end]]

    def _switch(self):
        names = {s: name for name, s in self._sockets.items()}
        while not self._over:
            for s in select.select(list(names), [], [], 0.1)[0]:
                frame, sender = s.recvfrom(65536)
                if sender[2] == socket.PACKET_OUTGOING:
                    continue
                name = names[s]
                end = name[1]
                to = self._way(int(end)) + end if name[0] == "x" else "x" + end
                with contextlib.suppress(OSError):
                    self._sockets[to].send(frame)


class FastTwoWays(TwoWays):
    """The same with a switch that is a process of its own (crossing.py). `moves` is known at the end."""

    def _begin(self):
        switch = os.path.join(os.path.dirname(os.path.abspath(__file__)), "crossing.py")
        argv = ["ip", "netns", "exec", self.line, sys.executable, "-B", switch, str(self.random.randrange(1 << 30)), str(self.often)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=_die_with_parent)
        self._stack.callback(self._process.wait)
        self._stack.callback(self._process.kill)

    def send_by(self, way, is_open):
        """Frames are sent by this way, or are not any more."""
        self._process.stdin.write(b"%s %d\n" % (b"open" if is_open else b"close", way))
        self._process.stdin.flush()

    def count_moves(self):
        """Ends the switch."""
        return int(self._process.communicate(timeout=10)[0])
