"""A client that knows nothing but the proto, on gRPC's C core: every call once, and what each kind of error looks like.

    independent.py HOST:PORT
"""
import queue
import sys

import grpc
from chitchat.v1 import chat_pb2 as pb, chat_pb2_grpc

channel = grpc.insecure_channel(sys.argv[1])
chat = chat_pb2_grpc.ChatServiceStub(channel)


def status_of(call):
    """The code, and the details of the google.rpc.Status as they are on the wire."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
    raise AssertionError("the call should fail")


# Health, without the health service's proto: an empty request asks for the whole server; field 1, value 1 is SERVING.
check = channel.unary_unary("/grpc.health.v1.Health/Check")
assert check(b"", timeout=10) == b"\x08\x01"
missing, _ = status_of(lambda: check(b"\x0a\x07nothing", timeout=10))
assert missing == grpc.StatusCode.NOT_FOUND, missing

# Watch: a welcome, then what happens from now on.
watch = chat.Watch(pb.WatchRequest(), timeout=30)
welcome = next(watch)
assert (welcome.sequence, welcome.welcome.head, welcome.welcome.session) == (0, 0, ""), welcome

# Chat: join, say something that is taken and something that is not, half-close.
outbox = queue.SimpleQueue()
stream = chat.Chat(iter(outbox.get, None), timeout=30)
outbox.put(pb.JoinMsgLeave(type=pb.JOIN, client_name="Åse", timestamp=1))
joined = next(stream)
assert joined.msg_stream == "Participant Åse joined Chit Chat at logical time L=2", joined
assert joined.welcome.epoch == welcome.welcome.epoch and joined.welcome.session, joined
outbox.put(pb.JoinMsgLeave(type=pb.MESSAGE, msg="grød på 🥧", timestamp=4, message_id="a"))
said = next(stream)
assert (said.msg_stream, said.timestamp, said.sequence, said.sent_timestamp) == ("grød på 🥧", 5, 2, 4), said
outbox.put(pb.JoinMsgLeave(type=pb.MESSAGE, msg="å" * 129, timestamp=7, message_id="b"))
refused = next(stream)
assert (refused.sequence, refused.sender_name, refused.notice.code) == (0, "Server", pb.NOTICE_CODE_TOO_LONG), refused
assert refused.notice.message_id == "b" and "129" in refused.msg_stream, refused

# Unary calls beside an open stream.
who = chat.ListParticipants(pb.ListParticipantsRequest(), timeout=10)
assert [one.name for one in who.participants] == ["Åse"], who
own = pb.JoinMsgLeave(id=joined.welcome.id, session=joined.welcome.session, msg="by a unary call", message_id="c")
first, again = chat.SendMessage(own, timeout=10), chat.SendMessage(own, timeout=10)
assert (first.duplicate, again.duplicate) == (False, True), (first, again)
assert (first.sequence, first.timestamp) == (again.sequence, again.timestamp), (first, again)
assert next(stream).message_id == "c"
assert chat.SendMessage(pb.JoinMsgLeave(client_name="cron", msg="from outside"), timeout=10).sequence == 4
assert next(stream).sender_name == "cron"

# What each kind of refusal looks like to a client that has no Rust.
for request, code, reason in [
    (pb.JoinMsgLeave(client_name="åSE", msg="x"), grpc.StatusCode.ALREADY_EXISTS, b"NAME_HELD"),
    (pb.JoinMsgLeave(client_name="cron", msg=""), grpc.StatusCode.INVALID_ARGUMENT, b"msg"),
    (pb.JoinMsgLeave(client_name="cron", msg="x", timestamp=1 << 40), grpc.StatusCode.INVALID_ARGUMENT, b"timestamp"),
    (pb.JoinMsgLeave(client_name="x" * 33, msg="x"), grpc.StatusCode.INVALID_ARGUMENT, b"BAD_NAME"),
    (pb.JoinMsgLeave(id=joined.welcome.id, session="a guess", msg="x"), grpc.StatusCode.PERMISSION_DENIED, b"SESSION"),
]:
    status, details = status_of(lambda: chat.SendMessage(request, timeout=10))
    assert status == code and reason in details, (request, status, details)

# Half-close is a LEAVE, and the stream ends with OK.
outbox.put(None)
assert list(stream) == [] and stream.code() == grpc.StatusCode.OK, stream.code()

# Watch saw what the participant saw, and the history says the same.
events = [next(watch) for _ in range(5)]
history = chat.GetHistory(pb.GetHistoryRequest(), timeout=10)
assert [(e.sequence, e.timestamp, e.msg_stream) for e in history.events] == [
    (e.sequence, e.timestamp, e.msg_stream) for e in events
], (history, events)
assert [e.sequence for e in events] == [1, 2, 3, 4, 5] and events[-1].type == pb.LEAVE, events
assert history.epoch == welcome.welcome.epoch and not history.more, history
assert [(room.name, room.participants, room.head) for room in chat.ListRooms(pb.ListRoomsRequest(), timeout=10).rooms] == [
    ("lobby", 0, 5)
]
watch.cancel()
