"""The life of a link after its handshake: streams of messages, credit, keep-alive. Bytes and times in, bytes and events out.

A stream carries whole messages in both directions; either side may open one (odd numbers: the initiator). Its first message
opens it, the flag `last` or an END frame ends one direction, RESET ends both at once.

Credit is counted in whole messages. A sender starts a message only when it has the credit for all of it, on the stream and
on the connection; so every message that has begun can end, and a receiver that holds half of many messages is never stuck.
The receiver gives credit back when the application has consumed a message (`consumed`). Frames of different streams take
turns, so that a token does not wait behind a prefill.

Keep-alive is data: `next_deadline` says when to call `tick`. After `Closed` the session is of no more use and every stream
is gone; `outgoing` may still hold a last GOODBYE.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from swarmd.wire.events import (
    Closed,
    MessageReceived,
    RttMeasured,
    SessionEvent,
    StreamEnded,
    StreamGone,
    StreamOpened,
    StreamOver,
    StreamReset,
    TooManyStreams,
    Writable,
)
from swarmd.wire.frames import (
    FIRST,
    HEAD,
    HEADER,
    MAX_FRAME_PAYLOAD,
    MESSAGE_COST,
    RECORD_PREFIX_BYTES,
    Cutter,
    FrameError,
    Kind,
    Message,
    Payload,
    RecordReader,
    credit_frame,
    frame,
    parse_frame,
    parse_head,
    parse_reason,
    reason_payload,
)
from swarmd.wire.handshake import Role
from swarmd.wire.noise import TAG_BYTES, Buffer, CipherState, NoiseError
from swarmd.wire.streams import STREAM_WINDOW, Incoming, Stream, spare_memory

CONNECTION_WINDOW: Final = 64 * 1024 * 1024  # what one peer can make us hold; in `spare_memory` twice as much
MAX_PEER_STREAMS: Final = 256  # more than the micro-batches and calls that two nodes ever have open
IDLE_PING_S: Final = 3.0  # after that long without a word of ours at the latest
DEAD_AFTER_S: Final = 8.0  # a half-open link is noticed within 10 s, and an answer has 5 s to come
_LOOK_S: Final = IDLE_PING_S / 2
OUTGOING_BUDGET: Final = 256 * 1024  # encrypted at once: some 0.1 ms of work, then other sockets have their turn
_CONTROL_LIMIT: Final = 1024  # a peer that makes us answer and never reads is not served
_PINGS_LIMIT: Final = 4

GOODBYE_DONE: Final = 0
GOODBYE_PROTOCOL_ERROR: Final = 1

Unwanted = Callable[[int, int], tuple[int, str] | None]
"""`unwanted(code, payload bytes)` of a message that opens a stream → reset code and text; None when it is welcome."""


class Session:
    """See the module. `now` is any clock in seconds that never goes back; the same one in every call."""

    def __init__(self, *, role: Role, send: CipherState, receive: CipherState, now: float) -> None:
        self._send_cipher = send
        self._receive_cipher = receive
        self._next_stream = 1 if role is Role.INITIATOR else 2
        self._peer_parity = self._next_stream % 2 ^ 1
        self._last_peer_stream = 0
        self._streams: dict[int, Stream] = {}
        self._ours_open = 0
        self._peers_open = 0
        self._records = RecordReader()
        self._events: list[SessionEvent] = []
        self._control: deque[bytes] = deque()  # at most _CONTROL_LIMIT, then the session closes
        self._pong: bytes | None = None
        self._ready: deque[Stream] = deque()  # streams with a message on its way; at most one entry for a stream
        self._starved: deque[Stream] = deque()  # messages that wait for connection credit, in order; same bound
        self._send_credit = CONNECTION_WINDOW
        self._receive_credit = CONNECTION_WINDOW
        self._returned = 0
        self._heard = now
        self._look_at = now + _LOOK_S
        self._spoke = True
        """Since the last look."""
        self._ping_number = 0
        self._pings: dict[int, float] = {}
        self._closed: str | None = None
        self._unwanted: Unwanted = lambda code, payload_bytes: None
        spare_memory.enter()

    @property
    def closed(self) -> str | None:
        """Why the session is over; None while it is not."""
        return self._closed

    @property
    def has_outgoing(self) -> bool:
        """Whether `outgoing` would return something."""
        return bool(self._control or self._ready or self._pong)

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    def screen(self, unwanted: Unwanted) -> None:
        """What this says of a message that opens a stream is asked before memory is taken for it."""
        self._unwanted = unwanted

    # ---- sending

    def open_stream(self, code: int, meta: Buffer, payload: Payload = b"", *, last: bool = False) -> int:
        """Opens a stream with its first message. Raises TooManyStreams, StreamGone (session closed), ValueError (size)."""
        if self._closed is not None:
            raise StreamGone(self._closed)
        if self._ours_open >= MAX_PEER_STREAMS:
            raise TooManyStreams(f"{MAX_PEER_STREAMS} streams are open")
        stream = Stream(self._next_stream, announced=False)
        stream.outbox = Cutter(stream.id, opens=True, code=code, last=last, meta=meta, payload=payload)
        stream.ends = last
        self._next_stream += 2
        self._ours_open += 1
        self._streams[stream.id] = stream
        self._start(stream, stream.outbox)
        return stream.id

    def send(self, stream: int, code: int, meta: Buffer, payload: Payload = b"", *, last: bool = False) -> bool:
        """Sends one message. False, with nothing done, while an earlier one is `pending`; `Writable` follows then.

        Raises StreamGone, or ValueError above the size limits.
        """
        state = self._streams.get(stream)
        if state is None or state.local_ended or state.ends:
            raise StreamGone(self._closed or f"stream {stream} is over")
        if state.outbox is not None:
            state.waits = True
            return False
        state.outbox = Cutter(stream, opens=False, code=code, last=last, meta=meta, payload=payload)
        state.ends = last
        self._start(state, state.outbox)
        return True

    def pending(self, stream: int) -> bool:
        """Whether a message of this stream still waits for credit or for its turn. If so, `Writable` follows."""
        state = self._streams.get(stream)
        if state is None or state.outbox is None:
            return False
        state.waits = True
        return True

    def end(self, stream: int) -> None:
        """We send nothing more on this stream. Nothing happens when it is over already."""
        state = self._streams.get(stream)
        if state is None or state.local_ended or state.ends:
            return
        state.ends = True
        if state.outbox is None:
            self._control_frame(frame(Kind.END, stream=stream))
            self._ended_here(state)

    def reset(self, stream: int, code: int, text: str = "") -> None:
        """Gives the stream up, with what is on its way. Nothing happens when it is over already."""
        state = self._streams.get(stream)
        if state is None:
            return
        announced = state.announced
        self._drop(state)
        if announced:
            self._control_frame(frame(Kind.RESET, stream=stream, payload=reason_payload(code, text)))

    def ping(self, now: float) -> None:
        """Measures the round trip: `RttMeasured` follows."""
        if self._closed is not None or len(self._pings) >= _PINGS_LIMIT:
            return
        self._ping_number += 1
        self._pings[self._ping_number] = now
        self._control_frame(frame(Kind.PING, payload=self._ping_number.to_bytes(8, "little")))

    def close(self, reason: str) -> None:
        """Says goodbye. What has not been written is dropped; no event follows."""
        self._close(reason, GOODBYE_DONE)

    def consumed(self, stream: int, cost: int) -> None:
        """The application has taken a message of this `Message.cost`, or dropped it.

        Must be called exactly once for every message, also when its stream has ended meanwhile.
        """
        if self._closed is not None:
            return
        self._return_connection_credit(cost)
        state = self._streams.get(stream)
        if state is None or state.remote_ended:
            return
        state.returned += cost
        if state.returned >= STREAM_WINDOW // 4:  # what is left of the window still holds the largest message
            state.receive_credit += state.returned
            self._control_frame(credit_frame(stream, state.returned))
            state.returned = 0

    def outgoing(self, budget: int = OUTGOING_BUDGET) -> list[Buffer]:
        """Records to write now, in this order: all control frames, then messages in turn up to about `budget` bytes."""
        records: list[Buffer] = []
        if self._pong is not None:
            self._control.append(self._pong)
            self._pong = None
        control = self._control
        while control:
            records.append(self._record(control.popleft()))
        ready = self._ready
        while ready and budget > 0:
            stream = ready.popleft()
            outbox = stream.outbox
            assert outbox is not None, "a ready stream has something to write"
            record = self._record(outbox.next_frame())
            stream.announced = True
            budget -= len(record)
            records.append(record)
            if outbox.remaining:
                ready.append(stream)
            else:
                self._written(stream)
        while control:  # an END that followed a message
            records.append(self._record(control.popleft()))
        self._spoke = self._spoke or bool(records)
        return records

    # ---- receiving

    def receive(self, data: Buffer, now: float) -> list[SessionEvent]:
        """Bytes from the peer. Never raises, whatever they are. Events that `outgoing` caused come along."""
        if self._closed is not None:
            return self.take_events()
        self._heard = now
        try:
            for record in self._records.feed(data):
                self._frame(record, now)
                if self._closed is not None:
                    break
        except (FrameError, NoiseError) as error:
            self._fail(f"the peer broke the protocol: {error}")
        events, self._events = self._events, []
        return events

    def take_events(self) -> list[SessionEvent]:
        """What happened besides the last `receive` or `tick`: `Writable` after `outgoing`."""
        events = self._events
        if events:
            self._events = []
        return events

    def next_deadline(self) -> float:
        """When to call `tick` at the latest; it only ever moves forward."""
        return min(self._look_at, self._heard + DEAD_AFTER_S)

    def tick(self, now: float) -> list[SessionEvent]:
        """Time has passed: pings when we have been quiet, gives up a peer that is silent.

        It is our silence that is ended, not the peer's: who receives a long transfer over a slow line has to say that it is
        there, for its pong would wait in line behind the transfer together with the ping.
        """
        if self._closed is None:
            if now - self._heard >= DEAD_AFTER_S:
                self._fail("silent")
            elif now >= self._look_at:
                self._look_at = now + _LOOK_S
                if not self._spoke:
                    if len(self._pings) >= _PINGS_LIMIT:
                        self._pings.clear()  # those the peer skipped must not use up the limit
                    self.ping(now)
                self._spoke = False
                spare_memory.rest(now)
        return self.take_events()

    def _frame(self, record: memoryview, now: float) -> None:
        plaintext = self._receive_cipher.decrypt(record)
        kind, flags, number, value = parse_frame(plaintext)
        if kind == Kind.DATA:
            payload = memoryview(plaintext)[HEADER.size :]
            stream = self._streams.get(number)
            if stream is None:
                self._late(number, payload if flags & FIRST else None)
            elif flags & FIRST:
                self._message_begins(stream, payload, opens=False)
            else:
                self._message_goes_on(stream, payload)
            return
        self._other_frame(kind, number, value, memoryview(plaintext)[HEADER.size :], now)

    def _other_frame(self, kind: int, number: int, value: int, payload: memoryview, now: float) -> None:
        match kind:
            case Kind.OPEN:
                self._opened(number, payload)
            case Kind.END:
                stream = self._streams.get(number)
                if stream is None:
                    self._late(number, None)
                else:
                    self._ended_there(stream)
            case Kind.RESET:
                stream = self._streams.get(number)
                if stream is None:
                    self._late(number, None)
                else:
                    code, text = parse_reason(payload)
                    self._drop(stream)
                    self._events.append(StreamReset(stream=number, code=code, text=text))
            case Kind.CREDIT:
                self._credited(number, value)
            case Kind.PING:
                self._pong = frame(Kind.PONG, payload=bytes(payload))  # only the latest: a flood gets one answer
            case Kind.PONG:
                sent = self._pings.pop(int.from_bytes(payload, "little"), None)
                if sent is not None:
                    self._events.append(RttMeasured(seconds=now - sent))
            case _:
                code, text = parse_reason(payload)
                self._close(f"the peer said goodbye ({code}): {text}", None)
                self._events.append(Closed(reason=self._closed or ""))

    def _opened(self, number: int, payload: memoryview) -> None:
        if number % 2 != self._peer_parity or number <= self._last_peer_stream:
            raise FrameError(f"stream {number} cannot be opened after {self._last_peer_stream}")
        if self._peers_open >= MAX_PEER_STREAMS:
            raise FrameError(f"more than {MAX_PEER_STREAMS} streams")
        self._last_peer_stream = number
        self._peers_open += 1
        stream = Stream(number, announced=True)
        self._streams[number] = stream
        self._message_begins(stream, payload, opens=True)

    def _message_begins(self, stream: Stream, payload: memoryview, *, opens: bool) -> None:
        if stream.remote_ended or stream.incoming is not None:
            raise FrameError(f"a message begins on stream {stream.id}, which has ended or has one under way")
        code, last, meta_length, payload_length = parse_head(payload)
        cost = MESSAGE_COST + meta_length + payload_length
        if cost > stream.receive_credit or cost > self._receive_credit:
            raise FrameError(f"a message on stream {stream.id} costs {cost}: more than its credit")
        stream.receive_credit -= cost
        self._receive_credit -= cost
        if opens and (reset := self._unwanted(code, payload_length)) is not None:
            self._return_connection_credit(cost)
            self.reset(stream.id, *reset)
            return
        size = HEAD.size + meta_length + payload_length
        length = len(payload)
        if length == size:
            body = HEAD.size + meta_length
            message = Message(code, payload[HEAD.size : body], payload[body:], cost)
            self._message_ends(stream, message, opens=opens, last=last)
            return
        if length != MAX_FRAME_PAYLOAD or length > size:
            raise FrameError(f"a first frame of {length} bytes for a message of {size}")
        stream.incoming = Incoming(
            opens=opens, code=code, last=last, meta_length=meta_length, cost=cost, size=size, first=payload
        )

    def _message_goes_on(self, stream: Stream, payload: memoryview) -> None:
        incoming = stream.incoming
        if incoming is None or len(payload) != min(incoming.left, MAX_FRAME_PAYLOAD):
            raise FrameError(f"{len(payload)} bytes that no message of stream {stream.id} asked for")
        incoming.add(payload)
        if incoming.left:
            return
        stream.incoming = None
        whole = incoming.body.toreadonly()
        body = HEAD.size + incoming.meta_length
        message = Message(incoming.code, whole[HEAD.size : body], whole[body:], incoming.cost)
        self._message_ends(stream, message, opens=incoming.opens, last=incoming.last)

    def _message_ends(self, stream: Stream, message: Message, *, opens: bool, last: bool) -> None:
        if opens:
            self._events.append(StreamOpened(stream=stream.id, message=message))
        else:
            self._events.append(MessageReceived(stream.id, message))
        if last:
            self._ended_there(stream)

    def _late(self, number: int, first: memoryview | None) -> None:
        """A frame for a stream that is over here: fine, the peer did not know yet. Its credit is returned at once."""
        ours = number % 2 != self._peer_parity
        if number >= self._next_stream if ours else number > self._last_peer_stream:
            raise FrameError(f"stream {number} was never opened")
        if first is not None:
            _, _, meta_length, payload_length = parse_head(first)
            cost = MESSAGE_COST + meta_length + payload_length
            if cost > self._receive_credit:
                raise FrameError(f"a message on stream {number} costs {cost}: more than its credit")
            self._receive_credit -= cost
            self._return_connection_credit(cost)

    def _credited(self, number: int, credit: int) -> None:
        if number == 0:
            self._send_credit += credit
            if self._send_credit > CONNECTION_WINDOW:
                raise FrameError(f"{credit} bytes of credit were never used")
            self._feed()
            return
        stream = self._streams.get(number)
        if stream is None:
            self._late(number, None)
            return
        stream.send_credit += credit
        if stream.send_credit > STREAM_WINDOW:
            raise FrameError(f"{credit} bytes of credit on stream {number} were never used")
        if stream.short and stream.outbox is not None:
            self._start(stream, stream.outbox)

    # ---- both

    def _start(self, stream: Stream, outbox: Cutter) -> None:
        """Queues a message if it has the credit; else `_credited` does later."""
        cost = outbox.cost
        stream.short = cost > stream.send_credit
        if stream.short:
            return
        stream.send_credit -= cost
        if self._starved or cost > self._send_credit:
            self._starved.append(stream)
            return
        self._send_credit -= cost
        self._ready.append(stream)

    def _feed(self) -> None:
        """Starts what waited for connection credit, in order: so streams are opened in the order of their numbers."""
        while self._starved:
            stream = self._starved[0]
            outbox = stream.outbox
            assert outbox is not None, "a starved stream has something to write"
            if outbox.cost > self._send_credit:
                return
            self._starved.popleft()
            self._send_credit -= outbox.cost
            self._ready.append(stream)

    def _written(self, stream: Stream) -> None:
        outbox = stream.outbox
        stream.outbox = None
        if stream.waits:
            stream.waits = False
            self._events.append(Writable(stream=stream.id))
        if stream.ends and outbox is not None:
            if not outbox.last:
                self._control_frame(frame(Kind.END, stream=stream.id))
            self._ended_here(stream)

    def _ended_here(self, stream: Stream) -> None:
        stream.local_ended = True
        if stream.remote_ended:
            self._over(stream)

    def _ended_there(self, stream: Stream) -> None:
        if stream.remote_ended or stream.incoming is not None:
            raise FrameError(f"stream {stream.id} ends twice, or within a message")
        stream.remote_ended = True
        self._events.append(StreamEnded(stream=stream.id))
        if stream.local_ended:
            self._over(stream)

    def _over(self, stream: Stream) -> None:
        self._forget(stream)
        self._events.append(StreamOver(stream=stream.id))

    def _drop(self, stream: Stream) -> None:
        """Ends both directions now, whatever is under way."""
        outbox = stream.outbox
        if outbox is not None:
            stream.outbox = None
            if stream in self._starved:
                self._starved.remove(stream)
            elif stream in self._ready:
                self._ready.remove(stream)
                if not outbox.started:
                    self._send_credit += outbox.cost  # the peer will never hear of this message
            self._feed()
        if stream.incoming is not None:
            self._return_connection_credit(stream.incoming.cost)
            stream.incoming = None
        stream.local_ended = stream.remote_ended = True
        self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        del self._streams[stream.id]
        if stream.id % 2 == self._peer_parity:
            self._peers_open -= 1
        else:
            self._ours_open -= 1

    def _return_connection_credit(self, cost: int) -> None:
        self._returned += cost
        if self._returned >= CONNECTION_WINDOW // 4:
            self._receive_credit += self._returned
            self._control_frame(credit_frame(0, self._returned))
            self._returned = 0

    def _control_frame(self, plaintext: bytes) -> None:
        if self._closed is not None:
            return
        self._control.append(plaintext)
        if len(self._control) > _CONTROL_LIMIT:
            self._fail("the peer does not read")

    def _record(self, plaintext: bytes) -> Buffer:
        length = len(plaintext) + TAG_BYTES
        record = bytearray(RECORD_PREFIX_BYTES + length)
        record[:RECORD_PREFIX_BYTES] = length.to_bytes(RECORD_PREFIX_BYTES, "big")
        self._send_cipher.encrypt_into(plaintext, memoryview(record)[RECORD_PREFIX_BYTES:])
        return record

    def _fail(self, reason: str) -> None:
        self._close(reason, GOODBYE_PROTOCOL_ERROR)
        self._events.append(Closed(reason=reason))

    def _close(self, reason: str, goodbye: int | None) -> None:
        if self._closed is not None:
            return
        self._closed = reason
        spare_memory.leave()
        self._control.clear()
        self._ready.clear()
        self._starved.clear()
        self._pong = None
        self._streams.clear()
        if goodbye is not None:
            self._control.append(frame(Kind.GOODBYE, payload=reason_payload(goodbye, reason)))
