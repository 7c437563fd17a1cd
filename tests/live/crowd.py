# SPDX-License-Identifier: Apache-2.0
"""A crowd of real connections: a server process and a client process, each in its namespace.

    python3 crowd.py server CONFIG LOG     listens until SIGTERM, then writes LOG
    python3 crowd.py client CONFIG LOG     connects, says "all are there" on standard output, goes on until SIGTERM, lets every
                                           connection come to its end, and writes LOG

A connection says what it is by its first line, "KIND NUMBER"; the server answers with a line that tells its own name and
whom it sees. Kinds:

    long    the server sends bytes at a slow pace until it is told that it is enough
    short   the same, a small amount; then the next one follows
    idle    silent, until it speaks again at the end
    chat    small messages there and back without end
    attack  is not expected to arrive, or not whole: the server keeps what it gets

What the server sends on a connection is made from the connection's number, and both sides sum it up. LOG is JSON: one
object for each connection.
"""
import asyncio
import contextlib
import ctypes
import hashlib
import json
import resource
import signal
import socket
import struct
import sys
import time

PATIENCE = 90  # seconds that a connection may stand still
CHUNK_TIME = 0.5


def content(number, n, size):
    """The n-th piece of what a connection brings."""
    return hashlib.shake_128(b"%d:%d" % (number, n)).digest(size)


def keep_watch(code):
    """A socket that gets, of all packets to this host, those that the filter lets pass."""
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    program = b"".join(struct.pack("HBBI", *line) for line in code)
    room = ctypes.create_string_buffer(program)
    s.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HL", len(code), ctypes.addressof(room)))  # SO_ATTACH_FILTER
    s.setblocking(False)
    return s


LD_HALF, LD_WORD, EQUAL, RETURN = 0x28, 0x20, 0x15, 0x06


def packets_where(load, offset, value):
    """IPv4 without options: the field at this place has this value."""
    return keep_watch([(load, 0, 0, offset), (EQUAL, 0, 1, value), (RETURN, 0, 0, 0xffff), (RETURN, 0, 0, 0)])


def to_port(port):
    return packets_where(LD_HALF, 22, port)


def from_port(port):
    return packets_where(LD_HALF, 20, port)


def from_address(text):
    return packets_where(LD_WORD, 12, struct.unpack("!I", socket.inet_aton(text))[0])


def count_all(s):
    n = 0
    with contextlib.suppress(BlockingIOError):
        while s.recv(100):
            n += 1
    return n


# ---- server ----
class Server:
    def __init__(self, config):
        self.config, self.log = config, []
        self.watches = {}

    async def serve(self, reader, writer):
        entry = {"t0": time.time(), "peer": writer.get_extra_info("peername"), "local": writer.get_extra_info("sockname"),
                 "kind": "?", "number": -1, "sum": "", "sent": 0, "end": "open", "got": ""}
        self.log.append(entry)
        try:
            await self.talk(reader, writer, entry)
            entry["end"] = "closed"
        except (OSError, asyncio.IncompleteReadError, ValueError) as e:
            entry["end"] = repr(e)
        finally:
            entry["t1"] = time.time()
            writer.close()

    async def talk(self, reader, writer, entry):
        first = await reader.readline()
        if not first:
            return
        if first.startswith(b"attack"):
            got = bytearray(first)
            entry["kind"], entry["got"] = "attack", first.decode("latin1")
            while data := await reader.read(4096):
                got += data
                entry["got"] = got.decode("latin1")
            return
        kind, number = first.split()
        entry["kind"], entry["number"] = kind.decode(), int(number)
        local, peer = entry["local"], entry["peer"]
        name = self.config["names"].get(local[0], local[0])
        writer.write(f"{name} {peer[0]} {peer[1]} {local[1]}\n".encode())
        if kind in (b"long", b"short"):
            await self.send(reader, writer, entry)
        else:
            while line := await reader.readline():
                writer.write(name.encode() + b" " + line)
                await writer.drain()

    async def send(self, reader, writer, entry):
        amount = self.config["short"] if entry["kind"] == "short" else 1 << 40
        size, total, n = self.config["chunk"], hashlib.sha256(), 0
        enough = asyncio.ensure_future(reader.readline())
        while entry["sent"] < amount and not enough.done():
            data = content(entry["number"], n, size)
            writer.write(data)
            total.update(data)
            entry["sent"] += len(data)
            n += 1
            await writer.drain()
            await asyncio.wait([enough], timeout=CHUNK_TIME)
        entry["sum"] = total.hexdigest()
        writer.write_eof()
        await enough

    async def run(self):
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        for port in self.config["listen"]:
            await asyncio.start_server(self.serve, "0.0.0.0", port, backlog=4096)
        for port in self.config.get("forbidden", []):
            self.watches[f"to port {port}"] = to_port(port)
        if "stray" in self.config:
            self.watches["stray"] = from_port(self.config["stray"])
        print("ready", flush=True)
        await stop.wait()
        return {"log": self.log, "watched": {k: count_all(s) for k, s in self.watches.items()}}


# ---- client ----
class Client:
    def __init__(self, config):
        self.config, self.log = config, []
        self.last = 0
        self.enough = asyncio.Event()
        self.there = 0
        self.delays = []

    async def connect(self, entry):
        c = self.config
        n = entry["number"]
        s = socket.socket()
        s.setblocking(False)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
        s.bind((c["from"][n % len(c["from"])], 0))
        host, port = c["to"][n // 3 % len(c["to"])]
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(loop.sock_connect(s, (host, port)), PATIENCE)
        except BaseException:
            s.close()
            raise
        entry["local"] = s.getsockname()
        entry["to"] = [host, port]
        return await asyncio.open_connection(sock=s)

    async def one(self, kind, first=False):
        self.last += 1
        entry = {"kind": kind, "number": self.last, "t0": time.time(), "end": "open", "got": 0, "sum": "", "seen": []}
        self.log.append(entry)
        writer = None
        try:
            reader, writer = await self.connect(entry)
            writer.write(f"{kind} {entry['number']}\n".encode())
            entry["seen"] = (await asyncio.wait_for(reader.readline(), PATIENCE)).decode().split()
            if len(entry["seen"]) != 4:
                raise ValueError("no greeting")
            self.there += first
            await getattr(self, kind)(reader, writer, entry)
            entry["end"] = "closed"
        except (OSError, ValueError, asyncio.TimeoutError) as e:
            entry["end"] = f"{time.time() - entry['t0']:.1f}: {e!r}"
        finally:
            entry["t1"] = time.time()
            if writer:
                writer.close()

    async def long(self, reader, writer, entry):
        total, told = hashlib.sha256(), False
        stop = asyncio.ensure_future(self.enough.wait())
        while True:
            data = await asyncio.wait_for(reader.read(65536), PATIENCE)
            if not data:
                break
            total.update(data)
            entry["got"] += len(data)
            if stop.done() and not told and entry["kind"] == "long":
                told = True
                writer.write(b"enough\n")
        stop.cancel()
        entry["sum"] = total.hexdigest()
        writer.write_eof()

    short = long

    async def ask(self, reader, writer, entry, text):
        writer.write(text)
        answer = await asyncio.wait_for(reader.readline(), PATIENCE)
        if answer != entry["seen"][0].encode() + b" " + text:
            raise ValueError(f"{answer!r} to {text!r}")

    async def idle(self, reader, writer, entry):
        await self.enough.wait()
        await asyncio.sleep(entry["number"] % 100 / 50)
        await self.ask(reader, writer, entry, b"again %d\n" % entry["number"])

    async def chat(self, reader, writer, entry):
        while not self.enough.is_set():
            begun = time.monotonic()
            await self.ask(reader, writer, entry, b"chat %d\n" % len(self.delays))
            self.delays.append(time.monotonic() - begun)
            await asyncio.sleep(0.05)

    async def shorts(self):
        await self.one("short", True)
        while not self.enough.is_set():
            await self.one("short")

    # Attacks end by themselves: without an answer, and with a reset.
    async def attack(self):
        a = self.config["attack"]
        while not self.enough.is_set():
            s = socket.socket()
            s.setblocking(False)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            loop = asyncio.get_running_loop()
            self.attacks["tried"] += 1
            with s, contextlib.suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(loop.sock_connect(s, tuple(a["to"])), a["patience"])
                self.attacks["connected"] += 1
                for part in a["parts"]:
                    await loop.sock_sendall(s, part.encode("latin1"))
                    await asyncio.sleep(a["pause"])
                self.attacks["sent"] += 1
                await asyncio.sleep(a["patience"])
            await asyncio.sleep(a["pause"])

    # Segments of connections that nobody has opened.
    async def strays(self):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
        host, port = self.config["to"][0]
        src = self.config["from"][0]
        raw.bind((src, 0))
        while not self.enough.is_set():
            segment = struct.pack("!HHIIBBHHH", self.config["stray"], port, 1, 1, 5 << 4, 0x10, 1000, 0, 0)
            pseudo = socket.inet_aton(src) + socket.inet_aton(host) + struct.pack("!BBH", 0, 6, len(segment))
            total = sum(struct.unpack(f"!{(len(pseudo) + len(segment)) // 2}H", pseudo + segment))
            total = (total & 0xffff) + (total >> 16)
            total = ~(total + (total >> 16)) & 0xffff
            with contextlib.suppress(OSError):
                raw.sendto(segment[:16] + struct.pack("!H", total) + segment[18:], (host, 0))
                self.attacks["strays"] += 1
            await asyncio.sleep(0.1)
        raw.close()

    async def run(self):
        c = self.config
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.enough.set)
        self.attacks = {"tried": 0, "connected": 0, "sent": 0, "strays": 0}
        watch = from_address(c["outsider"]) if "outsider" in c else None
        tasks, wanted = [], 0
        for kind, n in c["crowd"].items():
            for _ in range(n):
                tasks.append(asyncio.ensure_future(self.shorts() if kind == "short" else self.one(kind, True)))
                wanted += 1
                if wanted % 10 == 0:
                    await asyncio.sleep(10 / c["per_second"])
        if "attack" in c:
            tasks += [asyncio.ensure_future(self.attack()) for _ in range(c["attack"]["at_once"])]
        if "stray" in c:
            tasks.append(asyncio.ensure_future(self.strays()))
        while self.there < wanted and not self.enough.is_set():
            if any(e["end"] not in ("open", "closed") for e in self.log):
                break
            await asyncio.sleep(0.05)
        print(f"all are there: {self.there} of {wanted}", flush=True)
        await asyncio.gather(*tasks)
        return {"log": self.log, "attacks": self.attacks, "delays": sorted(self.delays), "there": self.there,
                "watched": {"outsider": count_all(watch)} if watch else {}}


def main():
    role, config, log = sys.argv[1:]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with open(config, encoding="utf-8") as f:
        config = json.load(f)
    result = asyncio.run((Server if role == "server" else Client)(config).run())
    with open(log, "w", encoding="utf-8") as f:
        json.dump(result, f)


if __name__ == "__main__":
    main()
