#!/usr/bin/env python3
"""A Chit Chat client: says each line of standard input, prints each event, and comes back when the connection breaks.

From the root of the repository:

    pip install grpcio grpcio-tools
    mkdir -p target/python
    python3 -m grpc_tools.protoc -I proto --python_out=target/python --grpc_python_out=target/python \
        proto/chitchat/v1/chat.proto
    PYTHONPATH=target/python python3 deploy/examples/chat.py Ada 127.0.0.1:50052
"""
import asyncio
import random
import sys
import uuid

import grpc
from chitchat.v1 import chat_pb2 as pb, chat_pb2_grpc


class Participant:
    def __init__(self, name):
        self.name, self.clock = name, 0  # Lamport's clock: ticks before each send, merges what is received.
        self.session, self.epoch, self.sequence = "", "", 0  # What it takes to come back: as whom, to what, where to.
        self.unacknowledged = {}  # What was said and not yet read as an event, by message_id, in order.
        self.live = self.leaving = False  # Live: joined, and past the replay.

    def message(self, type, **fields):
        self.clock += 1
        return pb.JoinMsgLeave(type=type, timestamp=self.clock, **fields)

    async def stream(self):
        """What goes out on one stream: a JOIN, then whatever comes into the outbox."""
        self.live, self.outbox = False, (outbox := asyncio.Queue())
        resume = pb.Resume(epoch=self.epoch, after_sequence=self.sequence) if self.epoch else None
        yield self.message(pb.JOIN, client_name=self.name, session=self.session, resume=resume)
        while True:
            yield await outbox.get()

    def say(self, text):
        message = self.message(pb.MESSAGE, msg=text, message_id=uuid.uuid4().hex)
        self.unacknowledged[message.message_id] = message
        if self.live:
            self.outbox.put_nowait(message)

    def leave(self):
        self.leaving = True
        if self.live:
            self.outbox.put_nowait(self.message(pb.LEAVE))

    def receive(self, message):
        if message.HasField("welcome"):
            self.begin(message.welcome)
        before, self.clock = self.clock, max(self.clock, message.timestamp) + 1
        if message.sequence or message.HasField("notice"):
            print(f"#{message.sequence} [Server @ L={message.timestamp}] {message.sender_name}: {message.msg_stream}",
                  f"(me: max({before}, {message.timestamp}) + 1 = {self.clock})", flush=True)
        self.sequence = message.sequence or self.sequence
        self.unacknowledged.pop(message.message_id or message.notice.message_id, None)
        if not self.live and self.sequence >= self.head:
            self.live = True
            for lost in self.unacknowledged.values():  # It is not in the replay, so it never arrived: as it was, again.
                self.outbox.put_nowait(lost)
            if self.leaving:
                self.leave()

    def begin(self, welcome):
        if self.epoch and not welcome.recovered:
            print("-- some events are lost to us; reading starts anew", flush=True)
        if self.epoch not in ("", welcome.epoch):  # Another history, another time: what was said is said anew.
            said, self.unacknowledged, self.clock, self.sequence = self.unacknowledged, {}, 0, 0
            for message in said.values():
                self.say(message.msg)
        self.session, self.epoch, self.head = welcome.session, welcome.epoch, welcome.head


def worth_coming_back(error):
    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:  # google.rpc.ErrorInfo has the reason, in plain letters.
        return b"STALLED" in dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
    return error.code().name in ("UNAVAILABLE", "UNKNOWN", "INTERNAL", "CANCELLED")


async def speak(participant):
    lines = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    async for line in lines:
        participant.say(line.decode().strip())
    participant.leave()


async def main(name, server):
    participant, attempts = Participant(name), 0
    # A dead connection is noticed within 20 s. The loop below has a back-off, so the channel needs none of its own.
    options = [("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_timeout_ms", 10_000),
               ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)]
    async with grpc.aio.insecure_channel(server, options) as channel:
        speaking = asyncio.create_task(speak(participant))
        while True:
            try:
                async for message in chat_pb2_grpc.ChatServiceStub(channel).Chat(participant.stream()):
                    participant.receive(message)
                    attempts = 0
                return speaking.cancel()  # The server has taken our LEAVE.
            except grpc.aio.AioRpcError as error:
                print(f"-- {error.code().name}: {error.details()}", file=sys.stderr, flush=True)
                if not worth_coming_back(error):
                    sys.exit(1)
            attempts += 1
            await asyncio.sleep(random.uniform(0.5, 1) * min(5, 0.1 * 2**attempts))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
