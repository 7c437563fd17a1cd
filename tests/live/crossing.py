# SPDX-License-Identifier: Apache-2.0
"""The switch of two_ways.py as a process of its own, fast enough for thousands of connections.

    python3 crossing.py SEED OFTEN        run in the switch's namespace

Each end keeps its way for a while and leaves it at random packets: with the probability OFTEN at each frame. Lines on
standard input open and close ways: "open 0", "close 1". At the end of the input it tells how often it has moved.
"""
import contextlib
import random
import select
import socket
import sys

BURST = 64


class Switch:
    def __init__(self, seed, often):
        self.random, self.often = random.Random(seed), often
        self.open, self.now, self.moves = [True, True], [0, 0], 0
        self.socket = {}
        for name in ("x0", "x1", "a0", "b0", "a1", "b1"):
            s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            s.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
            s.bind((name, 3))
            s.setblocking(False)
            self.socket[name] = s

    def way(self, end):
        if self.random.random() < self.often or not self.open[self.now[end]]:
            before = self.now[end]
            ways = [w for w in (0, 1) if self.open[w]] or [before]
            self.now[end] = self.random.choice(ways)
            self.moves += self.now[end] != before
        return "ab"[self.now[end]]

    def pass_on(self, name):
        s, end = self.socket[name], int(name[1])
        for _ in range(BURST):
            try:
                frame, sender = s.recvfrom(2048)
            except BlockingIOError:
                return
            if sender[2] == socket.PACKET_OUTGOING:
                continue
            to = self.way(end) + name[1] if name[0] == "x" else "x" + name[1]
            with contextlib.suppress(OSError):
                self.socket[to].send(frame)

    def run(self):
        poll, names = select.epoll(), {}
        for name, s in self.socket.items():
            names[s.fileno()] = name
            poll.register(s, select.EPOLLIN)
        poll.register(0, select.EPOLLIN | select.EPOLLHUP)
        while True:
            for fd, _ in poll.poll():
                if fd in names:
                    self.pass_on(names[fd])
                    continue
                line = sys.stdin.buffer.raw.readline()
                if not line:
                    return
                word, way = line.split()
                self.open[int(way)] = word == b"open"


if __name__ == "__main__":
    switch = Switch(int(sys.argv[1]), float(sys.argv[2]))
    switch.run()
    print(switch.moves, flush=True)
