#!/usr/bin/env python3
"""Judges the history of a kill campaign. Knows nothing of the bus but what those outside of it were told.

    check.py history.jsonl

Prints a table of the invariants with what was checked and violated, the first violations of each in words, and one line
of JSON. Exits with 1 when something is violated, 2 when the history cannot be read.

A history is one JSON object to a line, in the order of the telling; `t` is microseconds since it began. A message is
named by its producer, its topic, and its number `n` among the producer's on that topic, counted from 0.

    campaign      seed, kills, streams [{name, durability, retained}]     first line; `retained`: messages that retention
                                                                          must leave, null when it removes nothing
    sent          producer, topic, n, sha256, bytes                       before it is published
    acknowledged  producer, topic, n, stream, offset, level               its answer: one of these three
    failed        producer, topic, n, why                                 known not to have been accepted
    indeterminate producer, topic, n, asked, why                          may have been accepted or not; `asked`: its own
                                                                          answer said so, not that of one before it
    live          message, stream, offset, sha256                         a live subscriber got it
    replay        pass, stream, from, whole                               before a replay is asked for
    replay-began  pass, first, end                                        where it begins, where the stream ended then
    replayed      pass, message, stream, offset, sha256
    skipped       pass, from, to, why                                     offsets that did not come
    replay-ended  pass       replay-left  pass       replay-refused  pass
    joined        consumer, stream, membership                            a durable consumer is joined anew
    consumed      consumer, membership, message, stream, offset, sha256, deliveries
    ack           consumer, stream, offset                                before it is acknowledged
    ack-durable   consumer, stream, offset                                the broker has it on the disk
    position      consumer, stream, position, end                         as the broker says
    settled       consumer, stream                                        the last position was after a clean stop
    kill          kill, manner           listening  after_us              the broker was killed; it listens again
    verified      stream, code, text                                      what the bus's own verifier says in the end
    missed        who, messages                                           a live subscriber was told of a gap
    reload        version                checkpoint  stream, size
    new-incarnation, lost, inconsistent, rejected, broker-error, stalled: should not be there at all, but for new
                                                                          incarnations of those who publish nothing
"""

import json
import sys

# What must hold. The order is that of the table.
INVARIANTS = {
    "H": "the history is complete",
    "I1": "no acknowledged message is lost",
    "I2": "none is altered, none is invented",
    "I3": "offsets are dense, and one offset holds one message for ever",
    "I4": "the order of each producer on each topic is kept",
    "I5": "no message is kept twice",
    "I6": "what was refused is not kept",
    "I7": "retention leaves what it must leave",
    "L1": "every message gets its answer, however often the broker is killed",
    "C1": "what was acknowledged durably is not delivered again",
    "C2": "a consumer's position passes nothing that it did not acknowledge",
    "P1": "no producer is forgotten",
    "B1": "the broker reports no fault and serves nothing unbelievable",
}

# Violations of one invariant that are told in words.
TOLD_MAX = 10

EXPECTED_LEVELS = {"fsync", "interval", "memory"}

WAITING, ACKNOWLEDGED, FAILED, INDETERMINATE = range(4)


class Stream:
    """What is known of one stream."""

    def __init__(self, entry):
        self.name = entry["name"]
        self.durability = entry.get("durability")
        self.retained = entry["retained"]
        # Offset -> message, by whoever told first.
        self.owner = {}
        # Everything below it was seen or acknowledged.
        self.floor = 0
        # Of that, what was acknowledged.
        self.acknowledged_floor = 0
        self.end_max = 0
        self.trimmed_max = 0
        self.whole_passes = 0
        self.last_whole = None


class Pass:
    """One replay."""

    def __init__(self, entry, stream):
        self.number = entry["pass"]
        self.stream = stream
        self.whole = entry["whole"]
        self.floor = stream.floor
        self.acknowledged_floor = stream.acknowledged_floor
        self.first = None
        self.end = None
        self.next = None
        self.seen = {}
        self.last_n = {}


class Consumer:
    """A durable consumer."""

    def __init__(self):
        self.delivered = set()
        self.acknowledged = set()
        # Offset -> the membership in which it was acknowledged durably.
        self.durable = {}
        self.membership = None
        self.position = 0
        self.last = None
        self.late = 0


class Checker:
    """Reads a history line by line and remembers what it violates."""

    def __init__(self):
        self.checked = dict.fromkeys(INVARIANTS, 0)
        self.violated = dict.fromkeys(INVARIANTS, 0)
        self.told = []
        self.counts = {}
        self.campaign = None
        self.streams = {}
        # (producer, topic) -> messages by n.
        self.lines = {}
        self.messages = []
        self.passes = {}
        self.consumers = {}
        self.live_n = {}
        self.verified = {}
        self.settled = False
        self.kills = 0
        self.starts_us = []
        self.last_us = 0

    def fail(self, invariant, text):
        self.violated[invariant] += 1
        if self.violated[invariant] <= TOLD_MAX:
            self.told.append((invariant, text))

    # -- what producers say

    def handle_campaign(self, entry):
        self.campaign = entry
        self.streams = {stream["name"]: Stream(stream) for stream in entry["streams"]}

    def handle_sent(self, entry):
        line = self.lines.setdefault((entry["producer"], entry["topic"]), [])
        if entry["n"] != len(line):
            self.fail("H", f"{name(entry)} was sent, but {len(line)} comes next")
        message = [entry["producer"], entry["topic"], entry["n"], bytes.fromhex(entry["sha256"]), WAITING, None]
        line.append(message)
        self.messages.append(message)

    def answered(self, entry, fate):
        message = self.find(entry)
        if message is None:
            return self.fail("H", f"{name(entry)} was answered and never sent")
        self.checked["L1"] += 1
        if message[4] != WAITING:
            self.fail("H", f"{name(entry)} was answered twice")
        message[4] = fate
        return message

    def handle_acknowledged(self, entry):
        message = self.answered(entry, ACKNOWLEDGED)
        if message is None:
            return
        stream = self.streams.get(entry["stream"])
        offset = entry["offset"]
        if stream is None or offset is None or stream.name != entry["topic"].split("/")[0]:
            return self.fail("I1", f"{name(entry)} was acknowledged without a place: {entry}")
        if entry["level"] not in EXPECTED_LEVELS or stream.durability not in (None, entry["level"]):
            self.fail("I1", f"{name(entry)} was acknowledged as {entry['level']}, not {stream.durability}")
        self.place(stream, offset, message, "its acknowledgement")
        stream.acknowledged_floor = max(stream.acknowledged_floor, offset + 1)

    def handle_failed(self, entry):
        self.answered(entry, FAILED)

    def handle_indeterminate(self, entry):
        self.answered(entry, INDETERMINATE)
        if entry["asked"]:
            self.fail("L1", f"{name(entry)}: {entry['why']}")

    def find(self, entry):
        line = self.lines.get((entry["producer"], entry["topic"]))
        n = entry["n"]
        return line[n] if line is not None and isinstance(n, int) and 0 <= n < len(line) else None

    # -- what readers say

    def place(self, stream, offset, message, where):
        """A message is at an offset: always, and nowhere else."""
        self.checked["I3"] += 1
        self.checked["I5"] += 1
        owner = stream.owner.setdefault(offset, message)
        if owner is not message:
            self.fail("I3", f"offset {offset} of {stream.name} held {words(owner)}, and {words(message)} by {where}")
        if message[5] is None:
            message[5] = offset
        elif message[5] != offset:
            self.fail("I5", f"{words(message)} is at offset {message[5]} of {stream.name}, and {offset} by {where}")
        stream.floor = max(stream.floor, offset + 1)

    def received(self, entry, where):
        """Somebody got a message: one that was sent, as it was sent, where it belongs."""
        self.checked["I2"] += 1
        message = self.find(entry)
        if message is None:
            self.fail("I2", f"{name(entry)} was never sent, and came by {where}")
            return None, None
        if message[3].hex() != entry["sha256"]:
            self.fail("I2", f"{name(entry)} was altered when it came by {where}")
        stream = self.streams.get(entry["stream"])
        offset = entry["offset"]
        if stream is None or offset is None or stream.name != entry["topic"].split("/")[0]:
            self.fail("I3", f"{name(entry)} came without a place by {where}: {entry}")
            return None, None
        self.place(stream, offset, message, where)
        return stream, message

    def in_order(self, last_n, message, where):
        self.checked["I4"] += 1
        key = (message[0], message[1])
        last = last_n.get(key, -1)
        if message[2] <= last:
            self.fail("I4", f"{words(message)} came after {last} by {where}")
        last_n[key] = message[2]

    def handle_live(self, entry):
        _, message = self.received(entry, "the live subscription")
        if message is not None:
            self.in_order(self.live_n, message, "the live subscription")

    def handle_replay(self, entry):
        self.passes[entry["pass"]] = Pass(entry, self.streams[entry["stream"]])

    def handle_replay_began(self, entry):
        replay = self.passes[entry["pass"]]
        stream = replay.stream
        replay.first, replay.end, replay.next = entry["first"], entry["end"], entry["first"]
        self.checked["I1"] += 1
        self.checked["I3"] += 1
        if replay.end < replay.acknowledged_floor:
            what = f"acknowledged up to {replay.acknowledged_floor}, ended at {replay.end} later"
            self.fail("I1", f"{stream.name} was {what}, by replay {replay.number}")
        elif replay.end < replay.floor:
            what = f"seen up to {replay.floor}, and ended at {replay.end} later"
            self.fail("I3", f"{stream.name} was {what}, by replay {replay.number}")
        if replay.whole:
            self.trimmed(stream, 0, replay.first, replay)
        stream.end_max = max(stream.end_max, replay.end)

    def trimmed(self, stream, first, to, replay):
        """Nothing of a stream is gone but what retention may remove. How much that is is judged at the end."""
        if to <= first:
            return
        if stream.retained is None:
            self.fail("I1", f"offsets {first} to {to - 1} of {stream.name} did not come, by replay {replay.number}")
        stream.trimmed_max = max(stream.trimmed_max, to)

    def handle_replayed(self, entry):
        replay = self.passes[entry["pass"]]
        where = f"replay {replay.number}"
        stream, message = self.received(entry, where)
        if message is None:
            return
        if stream is not replay.stream:
            return self.fail("I3", f"{words(message)} of {stream.name} came by {where} of {replay.stream.name}")
        offset = entry["offset"]
        if offset != replay.next:
            self.fail("I3", f"offset {offset} of {stream.name} came where {replay.next} was due, by {where}")
        replay.next = offset + 1
        self.in_order(replay.last_n, message, where)
        if replay.whole:
            if id(message) in replay.seen:
                self.fail("I5", f"{words(message)} came twice by {where}")
            replay.seen[id(message)] = offset

    def handle_skipped(self, entry):
        replay = self.passes[entry["pass"]]
        if entry["why"] != "trimmed":
            what = f"offsets {entry['from']} to {entry['to'] - 1} of {replay.stream.name} are missing"
            self.fail("B1", f"{what} ({entry['why']}) by replay {replay.number}")
        # What was trimmed lies before what comes, however far back the replay wanted to begin.
        if entry["from"] > replay.next or entry["to"] < replay.next:
            self.fail("I3", f"skipped {entry['from']} to {entry['to']} at {replay.next} by replay {replay.number}")
        self.trimmed(replay.stream, entry["from"], entry["to"], replay)
        replay.next = entry["to"]

    def handle_replay_ended(self, entry):
        """It came to the end of its stream: dense up to there, and with everything that had been acknowledged."""
        replay = self.passes.pop(entry["pass"])
        stream = replay.stream
        if replay.next < replay.end:
            self.fail("I3", f"replay {replay.number} of {stream.name} ended at {replay.next}, not {replay.end}")
        if not replay.whole:
            return
        stream.whole_passes += 1
        for message in self.messages:
            if message[4] != ACKNOWLEDGED or message[1].split("/")[0] != stream.name or message[5] is None:
                continue
            self.checked["I1"] += 1
            is_trimmed = stream.retained is not None and message[5] < stream.trimmed_max
            if id(message) not in replay.seen and not is_trimmed:
                self.fail("I1", f"{words(message)} was acknowledged at {message[5]}, not in replay {replay.number}")
        if stream.last_whole is not None and stream.last_whole[1] > replay.end:
            self.fail("I3", f"{stream.name} was shorter in replay {replay.number} than before")
        stream.last_whole = (replay.first, replay.end)

    def handle_replay_left(self, entry):
        self.passes.pop(entry["pass"])

    def handle_replay_refused(self, entry):
        self.passes.pop(entry["pass"])

    # -- what consumers say

    def consumer(self, entry):
        return self.consumers.setdefault((entry["consumer"], entry["stream"]), Consumer())

    def handle_joined(self, entry):
        self.consumer(entry).membership = entry["membership"]

    def handle_consumed(self, entry):
        consumer = self.consumer(entry)
        stream, message = self.received(entry, f"consumer {entry['consumer']}")
        if message is None:
            return
        offset = entry["offset"]
        self.checked["C1"] += 1
        since = consumer.durable.get(offset)
        if since is not None:
            # What had been given out before it was acknowledged may still come to the same member.
            if since == entry["membership"]:
                consumer.late += 1
            else:
                what = f"offset {offset} of {stream.name} was acknowledged durably in membership {since}"
                self.fail("C1", f"{what}, and came again in {entry['membership']}")
        consumer.delivered.add(offset)

    def handle_ack(self, entry):
        consumer = self.consumer(entry)
        if entry["offset"] not in consumer.delivered:
            self.fail("H", f"offset {entry['offset']} was acknowledged by a consumer that never got it")
        consumer.acknowledged.add(entry["offset"])

    def handle_ack_durable(self, entry):
        consumer = self.consumer(entry)
        consumer.durable.setdefault(entry["offset"], consumer.membership)

    def handle_position(self, entry):
        consumer = self.consumer(entry)
        for offset in range(consumer.position, entry["position"]):
            self.checked["C2"] += 1
            if offset not in consumer.acknowledged:
                got = "got" if offset in consumer.delivered else "never got"
                self.fail("C2", f"position {entry['position']} passes offset {offset}, which the consumer {got}")
        consumer.position = max(consumer.position, entry["position"])
        consumer.last = entry

    def handle_settled(self, entry):
        """After everything was acknowledged and the broker had stopped in good order, nothing is left."""
        self.settled = True
        consumer, stream = self.consumer(entry), self.streams[entry["stream"]]
        self.checked["C2"] += 1
        last = consumer.last
        if last is None or not last["position"] == last["end"] == (stream.last_whole or (0, 0))[1]:
            self.fail("C2", f"the last position is not the end of {stream.name}: {last}, {stream.last_whole}")

    # -- what the nemesis and the broker say

    def handle_kill(self, _entry):
        self.kills += 1

    def handle_listening(self, entry):
        self.starts_us.append(entry["after_us"])

    def handle_verified(self, entry):
        stream = self.streams[entry["stream"]]
        self.checked["B1"] += 1
        self.verified[stream.name] = entry["code"]
        # 4 is "incomplete": retention has removed some.
        if entry["code"] != 0 and not (entry["code"] == 4 and stream.retained is not None):
            self.fail("B1", f"the verifier says {entry['code']} of {stream.name}: {entry['text']}")

    def handle_ignored(self, _entry):
        pass

    def handle_forgotten(self, entry):
        # Who publishes nothing has no sequence that could be lost: a broker that was restarted may not know it.
        if entry["op"] == "new-incarnation" and not entry["who"].startswith("producer-"):
            return
        self.fail("P1", f"{entry['op']}: {entry['who']}: {entry['why']}")

    def handle_fault(self, entry):
        self.fail("B1", json.dumps(entry))

    HANDLERS = {
        "campaign": handle_campaign,
        "sent": handle_sent,
        "acknowledged": handle_acknowledged,
        "failed": handle_failed,
        "indeterminate": handle_indeterminate,
        "live": handle_live,
        "replay": handle_replay,
        "replay-began": handle_replay_began,
        "replayed": handle_replayed,
        "skipped": handle_skipped,
        "replay-ended": handle_replay_ended,
        "replay-left": handle_replay_left,
        "replay-refused": handle_replay_refused,
        "joined": handle_joined,
        "consumed": handle_consumed,
        "ack": handle_ack,
        "ack-durable": handle_ack_durable,
        "position": handle_position,
        "settled": handle_settled,
        "kill": handle_kill,
        "listening": handle_listening,
        "verified": handle_verified,
        "missed": handle_ignored,
        "reload": handle_ignored,
        "checkpoint": handle_ignored,
        "new-incarnation": handle_forgotten,
        "lost": handle_forgotten,
        "rejected": handle_fault,
        "inconsistent": handle_fault,
        "broker-error": handle_fault,
        "stalled": handle_fault,
    }

    def read(self, entry):
        op = entry["op"]
        self.counts[op] = self.counts.get(op, 0) + 1
        self.last_us = entry["t"]
        handler = self.HANDLERS.get(op)
        if handler is None or (self.campaign is None and op != "campaign"):
            return self.fail("H", f"a line that has no place here: {entry}")
        handler(self, entry)

    def finish(self):
        """What can only be said of the whole."""
        for message in self.messages:
            if message[4] == FAILED:
                self.checked["I6"] += 1
                if message[5] is not None:
                    self.fail("I6", f"{words(message)} was refused, and is at offset {message[5]}")
        for stream in self.streams.values():
            self.checked["H"] += 3
            if stream.whole_passes < 2:
                self.fail("H", f"{stream.name} was read whole {stream.whole_passes} times, not twice")
            if stream.name not in self.verified:
                self.fail("H", f"{stream.name} was not verified")
            if not stream.owner:
                self.fail("H", f"{stream.name} has no messages")
            if stream.retained is not None:
                self.checked["I7"] += 1
                if stream.trimmed_max == 0:
                    self.fail("H", f"{stream.name} was never trimmed")
                if stream.trimmed_max > max(0, stream.end_max - stream.retained):
                    what = f"{stream.trimmed_max} of {stream.end_max} offsets"
                    self.fail("I7", f"{what} of {stream.name} are trimmed, {stream.retained} must stay")
        self.checked["P1"] += len(self.lines)
        self.checked["H"] += 4
        if not self.settled:
            self.fail("H", "the consumer was not looked at in the end")
        if self.passes:
            self.fail("H", f"replays without an end: {sorted(self.passes)}")
        kills = self.campaign["kills"] if self.campaign else None
        if kills != self.kills:
            self.fail("H", f"{kills} kills were to be, {self.kills} were")
        if not any(message[4] == ACKNOWLEDGED for message in self.messages):
            self.fail("H", "nothing was acknowledged")

    def violations(self):
        return sum(self.violated.values())

    def report(self):
        rows = [("", "invariant", "checked", "violated")]
        for key, text in INVARIANTS.items():
            rows.append((key, text, f"{self.checked[key]:,}", f"{self.violated[key]:,}"))
        width = max(len(row[1]) for row in rows)
        lines = [f"{row[0]:<3} {row[1]:<{width}} {row[2]:>12} {row[3]:>9}" for row in rows]
        lines += [f"{invariant}: {text}" for invariant, text in self.told]
        count = self.counts.get
        summary = {
            "test": "kill",
            "seed": self.campaign["seed"] if self.campaign else None,
            "n": self.kills,
            "violations": self.violations(),
            "wall_s": round(self.last_us / 1e6, 1),
            "sent": len(self.messages),
            "acknowledged": count("acknowledged", 0),
            "indeterminate": count("indeterminate", 0),
            "failed": count("failed", 0),
            "live": count("live", 0),
            "replayed": count("replayed", 0),
            "consumed": count("consumed", 0),
            "acks_durable": count("ack-durable", 0),
            "late": sum(consumer.late for consumer in self.consumers.values()),
            "start_ms_p50": percentile(self.starts_us, 50) / 1e3,
            "start_ms_p99": percentile(self.starts_us, 99) / 1e3,
        }
        return "\n".join(lines) + "\n" + json.dumps(summary) + "\n"


def percentile(numbers, percent):
    ordered = sorted(numbers) or [0]
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


def name(entry):
    return f"{entry['topic']} {entry['n']} of producer {entry['producer']}"


def words(message):
    return f"{message[1]} {message[2]} of producer {message[0]}"


def judge(entries):
    """A checker that has read all of these."""
    checker = Checker()
    for entry in entries:
        checker.read(entry)
    checker.finish()
    return checker


def main(arguments):
    if len(arguments) != 1:
        print("usage: check.py history.jsonl", file=sys.stderr)
        return 2
    try:
        with open(arguments[0], encoding="utf-8") as lines:
            checker = judge(map(json.loads, lines))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{arguments[0]} is not a history: {error!r}", file=sys.stderr)
        return 2
    sys.stdout.write(checker.report())
    return 1 if checker.violations() else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
