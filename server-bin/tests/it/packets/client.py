#!/usr/bin/env python3
"""client.py HOST:PORT echo TEXT | digest TEXT | list | put FILE [NAME] | get NAME [FILE]"""
import hashlib, os, socket, struct, sys

ECHO, DIGEST, DIGEST_FILE, LIST, GET, TAKE, PUT, DATA = 1, 2, 3, 5, 6, 7, 8, 9
DIGESTED, SENT, STORED, CHUNK, ERROR = 0x82, 0x87, 0x89, 0x8B, 0x8F
ID = 1  # one request at a time

class Client:
    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.stream = socket.create_connection((host, int(port)), timeout=60).makefile("rwb")
    def send(self, kind, fields=b"", behind=b""):
        self.stream.write(struct.pack(">IBI", 5 + len(fields), kind, ID) + fields + behind)
        self.stream.flush()
    def read(self, count):
        data = self.stream.read(count)
        return data if len(data) == count else sys.exit("the server has gone")
    def answer(self, *kinds):
        while True:
            length, kind, number = struct.unpack(">IBI", self.read(9))
            fields = self.read(length - 5)
            if kind == ERROR:
                sys.exit(f"error {struct.unpack('>H', fields[:2])[0]}: {fields[2:].decode()}")
            if number == ID and kind in kinds:  # or it is somebody's broadcast
                return kind, fields
    def ask(self, kind, fields, answer=None):
        self.send(kind, fields)
        return self.answer(answer or kind | 0x80)[1]
    def list(self, name=b"", more=1):
        while more:
            fields = self.ask(LIST, name)
            more, at = fields[0], 1
            while at < len(fields):
                size, length = struct.unpack_from(">QB", fields, at)
                name, at = fields[at + 9:at + 9 + length], at + 9 + length
                print(size, os.fsdecode(name))
    def put(self, file, name):
        self.ask(PUT, struct.pack(">BQ", 1, os.fstat(file.fileno()).st_size) + name)
        while chunk := file.read(1 << 20):
            self.send(DATA, struct.pack(">I", len(chunk)), chunk)
        self.answer(STORED)
    def get(self, name, file):
        size, _, digest = *struct.unpack(">QQ", self.ask(GET, name)), hashlib.sha256()
        self.send(TAKE, struct.pack(">QQ", 0, size))
        while (answer := self.answer(CHUNK, SENT))[0] == CHUNK:
            chunk = self.read(*struct.unpack(">I", answer[1]))
            file.write(chunk), digest.update(chunk)
        digest.digest() == self.ask(DIGEST_FILE, name, DIGESTED) or sys.exit("it has changed")

(_, address, command, *rest) = sys.argv if len(sys.argv) > 2 else sys.exit(__doc__)
client, first, last = Client(address), os.fsencode((rest + [""])[0]), (rest + [""])[len(rest) - 1]
if command == "echo": print(os.fsdecode(client.ask(ECHO, first)))
elif command == "digest": print(client.ask(DIGEST, first).hex())
elif command == "list": client.list()
elif command == "put": client.put(open(first, "rb"), os.fsencode(os.path.basename(last)))
elif command == "get": client.get(first, open(last, "wb"))
else: sys.exit(__doc__)
