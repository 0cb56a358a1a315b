#!/usr/bin/env python3
"""Shows that the checker bites: a good history with one thing wrong must not pass.

    self_test.py [history.jsonl]

Without an argument the good history is made up here. With one it is that of a real campaign, which must be good itself.
Exits with 1 when a mutation is not found, or is found by none of the invariants that it violates.
"""

import copy
import hashlib
import json
import sys

import check

PRODUCERS = 3
STREAMS = {"orders": None, "events": None, "recent": 20}
DURABILITIES = {"orders": "fsync", "events": "interval", "recent": "memory"}
CONSUMER = {"consumer": "billing", "stream": "orders"}


class Story:
    """Makes up a good history."""

    def __init__(self):
        self.entries = []
        self.logs = {stream: [] for stream in STREAMS}
        self.counts = {}
        self.first = dict.fromkeys(STREAMS, 0)
        self.passes = 0

    def tell(self, op, **fields):
        self.entries.append({"t": 10 * len(self.entries), "op": op, **fields})

    def send(self, producer, stream, fate="acknowledged"):
        topic = f"{stream}/a"
        n = self.counts.get((producer, topic), 0)
        self.counts[producer, topic] = n + 1
        named = {"producer": producer, "topic": topic, "n": n}
        sha256 = hashlib.sha256(f"{producer} {topic} {n}".encode()).hexdigest()
        self.tell("sent", **named, sha256=sha256, bytes=10)
        if fate == "failed":
            return self.tell("failed", **named, why="refused")
        offset = len(self.logs[stream])
        self.logs[stream].append({**named, "stream": stream, "offset": offset, "sha256": sha256})
        if fate == "acknowledged":
            level = DURABILITIES[stream]
            self.tell("acknowledged", **named, stream=stream, offset=offset, level=level)
        else:
            self.tell("indeterminate", **named, asked=False, why="")

    def replay(self, stream, first, whole):
        self.passes += 1
        end = len(self.logs[stream])
        self.tell("replay", **{"pass": self.passes}, stream=stream, **{"from": "?"}, whole=whole)
        self.tell("replay-began", **{"pass": self.passes}, first=first, end=end)
        for kept in self.logs[stream][first:]:
            self.tell("replayed", **{"pass": self.passes}, **kept)
        self.tell("replay-ended", **{"pass": self.passes})

    def consume(self, membership, offsets):
        self.tell("joined", **CONSUMER, membership=membership)
        for offset in offsets:
            kept = self.logs["orders"][offset]
            self.tell("consumed", consumer="billing", membership=membership, deliveries=1, **kept)
            self.tell("ack", **CONSUMER, offset=offset)
            if offset % 5 == 0:
                self.tell("ack-durable", **CONSUMER, offset=offset)

    def position(self):
        end = len(self.logs["orders"])
        self.tell("position", **CONSUMER, position=end, end=end)


def made_up():
    story = Story()
    streams = [
        {"name": name, "durability": DURABILITIES[name], "retained": retained} for name, retained in STREAMS.items()
    ]
    story.tell("campaign", seed=1, kills=3, streams=streams)
    consumed = 0
    for life in range(3):
        for step in range(20):
            for producer in range(PRODUCERS):
                fate = {7: "failed", 11: "unknown"}.get(step, "acknowledged")
                story.send(producer, list(STREAMS)[(producer + step) % 3], fate)
        end = len(story.logs["orders"])
        story.consume(life, range(consumed, end))
        consumed = end
        for kept in story.logs["events"][-5:]:
            story.tell("live", **kept)
        for stream in STREAMS:
            story.replay(stream, len(story.logs[stream]) - 10, False)
        story.tell("kill", kill=life + 1, manner="loaded")
        story.tell("listening", after_us=1_000)
    story.position()
    story.first["recent"] = len(story.logs["recent"]) - 25
    for _ in range(2):
        for stream in STREAMS:
            story.replay(stream, story.first[stream], True)
    story.consume(99, [])
    story.position()
    story.tell("settled", **CONSUMER)
    for stream in STREAMS:
        story.tell("verified", stream=stream, code=4 if stream == "recent" else 0, text="")
    return story.entries


class Mutant:
    """A good history on the way to become a bad one."""

    def __init__(self, entries):
        self.entries = entries

    def places(self, wanted):
        return [place for place, entry in enumerate(self.entries) if wanted(entry)]

    def of(self, op, **fields):
        return self.places(lambda entry: entry["op"] == op and all(entry.get(k) == v for k, v in fields.items()))

    def last_pass(self, stream):
        """The lines of the last whole replay of a stream."""
        number = self.entries[self.of("replay", stream=stream, whole=True)[-1]]["pass"]
        return number, self.of("replayed", **{"pass": number})

    def acknowledged_pass_line(self, stream):
        """A line in the middle of the last whole replay, of a message that was acknowledged."""
        answers = {key(self.entries[place]) for place in self.of("acknowledged", stream=stream)}
        _, lines = self.last_pass(stream)
        known = [place for place in lines if key(self.entries[place]) in answers]
        return known[len(known) // 2]

    def change(self, place, **fields):
        self.entries[place] = {**self.entries[place], **fields}

    def drop(self, places):
        gone = set(places)
        self.entries = [entry for place, entry in enumerate(self.entries) if place not in gone]

    def insert(self, place, entry):
        self.entries.insert(place, entry)

    def everywhere(self, change):
        for place, entry in enumerate(self.entries):
            self.entries[place] = change(entry)


def key(entry):
    return entry["producer"], entry["topic"], entry["n"]


def drop_one(history):
    history.drop([history.acknowledged_pass_line("orders")])


def drop_the_tail(history):
    number, lines = history.last_pass("events")
    began = history.of("replay-began", **{"pass": number})[0]
    end = history.entries[began]["end"]
    history.change(began, end=end - 3)
    history.drop(lines[-3:])


def drop_everywhere(history):
    """Lost without a trace: the offset goes to nobody, and those behind it move up."""
    lost = history.entries[history.acknowledged_pass_line("orders")]
    readings = ("replayed", "live", "consumed")
    history.drop(history.places(lambda entry: entry["op"] in readings and key(entry) == key(lost)))

    def moved(entry):
        if entry["op"] in ("replayed",) and entry["stream"] == "orders" and entry["offset"] > lost["offset"]:
            return {**entry, "offset": entry["offset"] - 1}
        return entry

    history.everywhere(moved)


def alter_one(history):
    history.change(history.acknowledged_pass_line("orders"), sha256="00" * 32)


def alter_live(history):
    history.change(history.of("live")[-1], sha256="00" * 32)


def alter_consumed(history):
    history.change(history.of("consumed")[0], sha256="00" * 32)


def swap_two(history):
    _, lines = history.last_pass("events")
    one, two = lines[len(lines) // 2], lines[len(lines) // 2 + 1]
    first, second = history.entries[one], history.entries[two]
    history.change(one, **{**second, "t": first["t"], "offset": first["offset"]})
    history.change(two, **{**first, "t": second["t"], "offset": second["offset"]})


def duplicate_line(history):
    place = history.acknowledged_pass_line("orders")
    history.insert(place + 1, copy.copy(history.entries[place]))


def keep_twice(history):
    """A batch that was sent again is kept again, at the end of the stream."""
    number, lines = history.last_pass("events")
    again = history.entries[history.acknowledged_pass_line("events")]
    began = history.of("replay-began", **{"pass": number})[0]
    end = history.entries[began]["end"]
    history.change(began, end=end + 1)
    history.insert(lines[-1] + 1, {**again, "t": history.entries[lines[-1]]["t"], "offset": end})


def reorder_one_producer(history):
    """Two messages of one producer change places, whoever looks."""
    _, lines = history.last_pass("orders")
    first = history.entries[lines[len(lines) // 2]]
    same = (history.entries[place] for place in lines[len(lines) // 2 + 1 :])
    second = next(entry for entry in same if key(entry)[:2] == key(first)[:2])
    offsets = {key(first): second["offset"], key(second): first["offset"]}
    told = ("acknowledged", "live", "consumed")
    history.everywhere(
        lambda entry: {**entry, "offset": offsets[key(entry)]}
        if entry["op"] in told and key(entry) in offsets
        else entry
    )
    contents = {first["offset"]: second, second["offset"]: first}

    def exchanged(entry):
        if entry["op"] == "replayed" and entry["stream"] == "orders" and entry["offset"] in contents:
            other = contents[entry["offset"]]
            return {**other, "t": entry["t"], "pass": entry["pass"], "offset": entry["offset"]}
        return entry

    history.everywhere(exchanged)


def leave_a_hole(history):
    """An offset that nobody has, whoever looks."""
    middle = history.entries[history.acknowledged_pass_line("events")]["offset"]

    def moved(entry):
        if entry.get("stream") == "events" and entry.get("offset") is not None and entry["offset"] >= middle:
            return {**entry, "offset": entry["offset"] + 1}
        return entry

    history.everywhere(moved)
    numbers = {history.entries[place]["pass"] for place in history.of("replay", stream="events")}

    def longer(entry):
        if entry["op"] == "replay-began" and entry["pass"] in numbers and entry["end"] > middle:
            return {**entry, "end": entry["end"] + 1}
        return entry

    history.everywhere(longer)


def acknowledge_elsewhere(history):
    place = history.of("acknowledged", stream="orders")[10]
    history.change(place, offset=history.entries[place]["offset"] + 1)


def acknowledge_less_durably(history):
    history.change(history.of("acknowledged", stream="orders")[10], level="memory")


def invent_one(history):
    history.change(history.acknowledged_pass_line("orders"), n=10**9)


def refuse_what_is_kept(history):
    _, lines = history.last_pass("orders")
    kept = history.entries[lines[0]]
    place = history.of("acknowledged", **{name: kept[name] for name in ("producer", "topic", "n")})[0]
    answer = history.entries[place]
    history.entries[place] = {name: answer[name] for name in ("t", "producer", "topic", "n")} | {
        "op": "failed",
        "why": "refused",
    }


def forget_a_past_reading(history):
    """Another message at an offset that was seen in an earlier life of the broker."""
    for place in history.of("replay", stream="orders", whole=False):
        lines = history.of("replayed", **{"pass": history.entries[place]["pass"]})
        if len(lines) > 1:
            break
    one, two = history.entries[lines[0]], history.entries[lines[-1]]
    history.change(lines[0], producer=two["producer"], topic=two["topic"], n=two["n"], sha256=two["sha256"])
    history.change(lines[-1], producer=one["producer"], topic=one["topic"], n=one["n"], sha256=one["sha256"])


def go_back(history):
    """A stream that ends before what was acknowledged, in the middle of the campaign."""
    place = next(place for place in history.of("replay-began") if history.entries[place]["first"] > 0)
    history.change(place, end=history.entries[place]["first"])


def trim_what_must_stay(history):
    number, lines = history.last_pass("recent")
    began = history.of("replay-began", **{"pass": number})[0]
    keep = history.entries[began]["end"] - 3
    history.change(began, first=keep)
    history.drop([place for place in lines if history.entries[place]["offset"] < keep])


def trim_a_stream_without_retention(history):
    number, lines = history.last_pass("orders")
    began = history.of("replay-began", **{"pass": number})[0]
    history.change(began, first=5)
    history.drop([place for place in lines if history.entries[place]["offset"] < 5])


def deliver_again(history):
    acknowledged = history.entries[history.of("ack-durable")[0]]["offset"]
    again = next(
        history.entries[place] for place in history.of("consumed") if history.entries[place]["offset"] == acknowledged
    )
    place = history.of("settled")[0]
    history.insert(place, {**again, "t": history.entries[place]["t"], "membership": 10**6})


def skip_one(history):
    """The consumer never gets one, and its position passes it."""
    offset = history.entries[history.of("ack")[3]]["offset"]
    ops = ("consumed", "ack", "ack-durable")
    history.drop(history.places(lambda entry: entry["op"] in ops and entry["offset"] == offset))


def pass_unacknowledged(history):
    offset = history.entries[history.of("ack")[3]]["offset"]
    history.drop(history.places(lambda entry: entry["op"].startswith("ack") and entry.get("offset") == offset
                                and "consumer" in entry))


def leave_some(history):
    place = history.of("position")[-1]
    history.change(place, position=history.entries[place]["position"] - 1)


def add(op, **fields):
    def mutate(history):
        history.insert(len(history.entries) // 2, {"t": 0, "op": op, **fields})

    mutate.__name__ = f"add_{op}".replace("-", "_")
    return mutate


def distrust_the_verifier(history):
    history.change(history.of("verified")[0], code=2)


def unanswered(history):
    place = history.of("acknowledged", stream="events")[-1]
    answer = history.entries[place]
    history.entries[place] = {name: answer[name] for name in ("t", "producer", "topic", "n")} | {
        "op": "indeterminate",
        "asked": True,
        "why": "no answer",
    }


def end_early(history):
    history.entries = history.entries[: len(history.entries) * 9 // 10]


def kill_less(history):
    history.drop(history.of("kill")[:1])


MUTATIONS = [
    (drop_one, {"I1"}),
    (drop_the_tail, {"I1"}),
    (drop_everywhere, {"I1", "I3", "I5"}),
    (alter_one, {"I2"}),
    (alter_live, {"I2"}),
    (alter_consumed, {"I2"}),
    (swap_two, {"I3"}),
    (duplicate_line, {"I3", "I5"}),
    (keep_twice, {"I5"}),
    (reorder_one_producer, {"I4"}),
    (leave_a_hole, {"I3"}),
    (acknowledge_elsewhere, {"I3"}),
    (acknowledge_less_durably, {"I1"}),
    (invent_one, {"I2"}),
    (refuse_what_is_kept, {"I6"}),
    (forget_a_past_reading, {"I3"}),
    (go_back, {"I1", "I3"}),
    (trim_what_must_stay, {"I7"}),
    (trim_a_stream_without_retention, {"I1"}),
    (deliver_again, {"C1"}),
    (skip_one, {"C2"}),
    (pass_unacknowledged, {"C2"}),
    (leave_some, {"C2"}),
    (unanswered, {"L1"}),
    (add("new-incarnation", who="producer-1", why="forgotten"), {"P1"}),
    (add("lost", who="producer-1", why="forgotten"), {"P1"}),
    (add("rejected", who="screen", why="signature"), {"B1"}),
    (add("broker-error", text="damage"), {"B1"}),
    (add("inconsistent", who="auditor", why="rewritten"), {"B1"}),
    (add("something-new"), {"H"}),
    (distrust_the_verifier, {"B1"}),
    (end_early, {"H"}),
    (kill_less, {"H"}),
]


def main(arguments):
    if arguments:
        with open(arguments[0], encoding="utf-8") as lines:
            good = [json.loads(line) for line in lines]
    else:
        good = made_up()
    found = check.judge(good)
    if found.violations():
        print(f"the good history is not good:\n{found.report()}")
        return 1
    missed = 0
    for mutate, expected in MUTATIONS:
        history = Mutant(list(good))
        mutate(history)
        checker = check.judge(history.entries)
        hit = {invariant for invariant, count in checker.violated.items() if count}
        if not hit & expected:
            missed += 1
            print(f"{mutate.__name__}: {sorted(expected)} should have been violated, found {sorted(hit)}")
    print(f"{len(MUTATIONS) - missed} of {len(MUTATIONS)} mutations of {len(good)} lines were found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
