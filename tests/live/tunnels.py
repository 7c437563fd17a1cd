# SPDX-License-Identifier: Apache-2.0
"""Tunnels between two namespaces, whatever the kernel has: frames put into them, and ends of tunnels in Python.

An `End` is a TUN or TAP device in a namespace and a socket on the underlay; what the one gives goes out by the other. So
the stacks inside are the kernel's, and so is what it does with the outer packets, fragments included.
"""
import contextlib
import fcntl
import os
import select
import socket
import struct
import threading

from frames import checksum
from lab import entered, run

KINDS = ("vxlan", "gre", "gretap", "ipip", "gtpu", "mpls")
ETHER = ("vxlan", "gretap")
PROTO = {"gre": 47, "gretap": 47, "ipip": 4}
PORT = {"vxlan": 4789, "gtpu": 2152}


def head(kind, up, size):
    """The tunnel's own header before an inner packet of so many bytes."""
    if kind == "vxlan":
        return struct.pack("!II", 0x08000000, 77 << 8)
    if kind == "gre":
        return struct.pack("!HH", 0, 0x0800)
    if kind == "gretap":
        return struct.pack("!HHI", 0x2000, 0x6558, 99)
    if kind == "gtpu":  # each direction has a TEID of its own
        return struct.pack("!BBHI", 0x30, 255, size, 1000 if up else 2000)
    if kind == "mpls":  # and labels
        return struct.pack("!II", 16 << 12 | 64, (300 if up else 400) << 12 | 0x100 | 64)
    return b""


def wrap(kind, frame, up):
    """An Ethernet frame of IPv4 in this tunnel, between 192.0.2.1 (where up comes from) and 192.0.2.2."""
    inner = frame if kind in ETHER else frame[14:]
    body = head(kind, up, len(inner)) + inner
    macs = b"\x02\0\0\0\1\2\x02\0\0\0\1\1" if up else b"\x02\0\0\0\1\1\x02\0\0\0\1\2"
    if kind == "mpls":
        return macs + b"\x88\x47" + body
    if kind in PORT:
        body = struct.pack("!HHHH", 50000, PORT[kind], 8 + len(body), 0) + body
    a, b = socket.inet_aton("192.0.2.1"), socket.inet_aton("192.0.2.2")
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0x4000, 64, PROTO.get(kind, 17), 0) + (a + b if up else b + a)
    return macs + b"\x08\0" + ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + body


class End:
    """One end of a tunnel: `name` with an address in the namespace, over the underlay's interface and addresses."""

    def __init__(self, kind, namespace, name, address, interface, here, there, up):
        self.kind, self.up, self.there, self.interface = kind, up, there, interface
        self.mac = None
        with entered(namespace):
            self.device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            tap = kind in ETHER
            fcntl.ioctl(self.device, 0x400454ca, struct.pack("16sH22x", name.encode(), (2 if tap else 1) | 0x1000))
            if kind == "mpls":
                self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x8847))
                self.socket.bind((interface, 0x8847))
            elif kind in PORT:
                self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                self.socket.bind((here, PORT[kind]))
            else:
                self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, PROTO[kind])
                self.socket.bind((here, 0))
            self.socket.setblocking(False)
        run("ip", "-n", namespace, "addr", "add", f"{address}/24", "dev", name)
        run("ip", "-n", namespace, "link", "set", name, "mtu", "1400", "up")
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.pump, daemon=True)

    def pump(self):
        while not self.done.is_set():
            ready, _, _ = select.select([self.device, self.socket], [], [], 0.2)
            with contextlib.suppress(BlockingIOError, OSError):
                if self.device in ready:
                    self.send(os.read(self.device, 65536))
                if self.socket in ready:
                    self.receive(self.socket.recv(65536))

    def send(self, packet):
        body = head(self.kind, self.up, len(packet)) + packet
        if self.kind == "mpls":
            self.socket.send(self.mac + b"\x88\x47" + body)
        else:
            self.socket.sendto(body, (self.there, PORT.get(self.kind, 0)))

    def receive(self, packet):
        if self.kind in PROTO:
            packet = packet[(packet[0] & 15) * 4:]
        elif self.kind == "mpls":
            if packet[:6] != self.mac[6:12]:
                return  # one that we have sent
            packet = packet[14:]
        os.write(self.device, packet[len(head(self.kind, self.up, 0)):])

    def close(self):
        self.done.set()
        if self.thread.is_alive():
            self.thread.join()
        self.socket.close()
        os.close(self.device)


def mac_of(namespace, interface):
    text = run("ip", "-n", namespace, "-o", "link", "show", interface).split("link/ether ")[1].split()[0]
    return bytes.fromhex(text.replace(":", ""))


@contextlib.contextmanager
def tunnel(lab, kind):
    """A tunnel of this kind between the lab's client (10.99.0.1) and server (10.99.0.2)."""
    ends = []
    try:
        ends.append(End(kind, lab.client, "t0", "10.99.0.1", "c0", "10.77.0.1", "10.77.0.2", True))
        ends.append(End(kind, lab.server, "t1", "10.99.0.2", "s0", "10.77.0.2", "10.77.0.1", False))
        macs = mac_of(lab.client, "c0"), mac_of(lab.server, "s0")
        ends[0].mac, ends[1].mac = macs[1] + macs[0], macs[0] + macs[1]
        for end in ends:
            end.thread.start()
        yield
    finally:
        for end in ends:
            end.close()


@contextlib.contextmanager
def kernel_vxlan(lab):
    """The same by the kernel."""
    try:
        for ns, dev, here, there, address in ((lab.client, "c0", "10.77.0.1", "10.77.0.2", "10.99.0.1"),
                                              (lab.server, "s0", "10.77.0.2", "10.77.0.1", "10.99.0.2")):
            run("ip", "-n", ns, "link", "add", "v0", "mtu", "1400", "type", "vxlan", "id", "77", "remote", there, "local",
                here, "dstport", "4789", "dev", dev)
            run("ip", "netns", "exec", ns, "ethtool", "-K", "v0", "tx", "off", "tso", "off", "gso", "off", "gro", "off",
                check=False)
            run("ip", "-n", ns, "addr", "add", f"{address}/24", "dev", "v0")
            run("ip", "-n", ns, "link", "set", "v0", "up")
        yield
    finally:
        for ns in (lab.client, lab.server):
            run("ip", "-n", ns, "link", "del", "v0", check=False)
