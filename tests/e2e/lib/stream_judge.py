"""Judges the streams of tests/e2e/streams.sh.

    stream_judge.py stamp OUTPUT                     each line of standard input behind the time at which it came
    stream_judge.py judge OUTPUT TOLD RSS LOG SECRET prints TAP

OUTPUT is what stamp wrote of the guest's output, TOLD the server's account, RSS lines of "TIME KIBIBYTES"
of the broker, LOG its records as JSON lines. Server, stamps and RSS have one clock. The delay of an event
is from the server's call that sent it to here; EGRESS_STREAM_DELAY_MS bounds the worst (default 6000), and
EGRESS_STREAM_MEDIAN_MS the usual (default 300), which is less than what one event would be late if it came
with the next.
"""
import json
import os
import re
import statistics
import sys
import time

RSS_GROWTH_MAX_KIB = 256
EVENT = re.compile(r"(\d+) (\d+\.\d{6}) ?(\S*)$")


def stamp(output):
    with open(output, "w", encoding="utf-8") as file:
        for line in sys.stdin.buffer:
            file.write(f"{time.time():.6f} {line.decode(errors='backslashreplace')}")
            file.flush()


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


class Streams:
    def __init__(self, output, told):
        self.lines = {}
        self.times = {}
        with open(output, encoding="utf-8") as file:
            for line in file:
                when, name, text = (line.rstrip("\n") + "  ").split(" ", 2)
                self.lines.setdefault(name, []).append((float(when), text.strip()))
        self.told = {}
        for account in read_json(told):
            self.told.setdefault(account["stream"].rpartition("/")[2], {}).update(account)

    def after(self, name, prefix):
        """The lines of that client that begin so, as (when, rest)."""
        return [(when, text[len(prefix):].split()) for when, text in self.lines.get(name, []) if text.startswith(prefix)]

    def events(self, name, prefix):
        """Its whole events, as (when, number, said, rest). One that was cut off is none."""
        found = ((when, EVENT.match(" ".join(fields))) for when, fields in self.after(name, prefix))
        return [(when, int(match[1]), float(match[2]), match[3]) for when, match in found if match]

    def last(self, name, prefix):
        return (self.after(name, prefix) or [(0, [])])[-1][1]


def judge_events(tap, streams, name, prefix, placeholder, total):
    """That all came, in order, each at its time, and with the placeholder where the secret was."""
    events = streams.events(name, prefix)
    tap.same(f"{name}: {total} events, in order, none lost or said twice", list(range(1, total + 1)),
             [number for _, number, _, _ in events])
    delays = [(when - said) * 1000 for when, _, said, _ in events] or [1e9]
    worst, median = max(delays), statistics.median(delays)
    print(f"# {name}: {len(events)} events; delay: median {median:.1f} ms, worst {worst:.1f} ms")
    tap.ok(f"{name}: each came when it was sent", worst <= float(os.environ.get("EGRESS_STREAM_DELAY_MS", 6000)) and
           median <= float(os.environ.get("EGRESS_STREAM_MEDIAN_MS", 300)), f"median {median:.1f} ms, worst {worst:.1f} ms")
    tap.same(f"{name}: with the placeholder where the server said the secret",
             [placeholder if number % 3 == 0 else "" for number in range(1, total + 1)], [rest for *_, rest in events])


def find(log, **fields):
    return [record for record in log if all(record.get(name) == value for name, value in fields.items())]


def judge_sse(tap, streams, log, name, version):
    account = streams.told.get(name, {})
    ended = streams.last(name, "ended ")
    tap.same(f"{name}: the response ended well, and the client has all of it",
             [version, "200", str(account.get("bytes")), "0"], ended)
    records = find(log, kind="request", path=f"/events/{name}")
    tap.same(f"{name}: the log has one record of it, with the bytes and the secret", [(200, 0, account.get("bytes"), "API_KEY")],
             [(r["status"], r["sent"], r["received"], r.get("secrets")) for r in records if not r.get("reason")])


def judge_socket(tap, streams, log, total):
    account = streams.told.get("socket", {})
    tap.same("socket: the server had an answer to each push, and a pong to each ping", (total, 0, total // 2),
             (account.get("answers"), account.get("unanswered"), account.get("pongs")))
    delay = account.get("delay", -1) * 1000
    print(f"# socket: an answer took at most {delay:.1f} ms")
    tap.ok("socket: none of them late", 0 <= delay <= 2 * float(os.environ.get("EGRESS_STREAM_DELAY_MS", 6000)), delay)
    tap.same("socket: the client had an echo of each answer", list(range(1, total + 1)),
             [int(fields[0]) for _, fields in streams.after("socket", "echo answer ") if fields[0].isdigit()])
    tap.same("socket: and a pong to each ping", total // 2, len(streams.after("socket", "pong ")))
    closed = streams.last("socket", "closed ")
    tap.same("socket: the server closed it, and nobody else", ["1000", "over"], closed[:2])
    records = find(log, kind="connection", protocol="websocket")
    tap.same("socket: the log has one record of it, with the bytes of both directions and the secret",
             [(account.get("bytes"), int(closed[2]) if closed[2:] else None, "API_KEY", None)],
             [(r["sent"], r["received"], r.get("secrets"), r.get("reason")) for r in records])


def judge_memory(tap, rss, events):
    """Between the first quarter, when all has been used, and the last. `events` are times."""
    with open(rss, encoding="ascii") as file:
        samples = [(float(when), int(size)) for when, size in (line.split() for line in file)]
    begin, end = min(events), max(events)
    quarter = (end - begin) / 4
    early = max((size for when, size in samples if begin <= when <= begin + quarter), default=0)
    late = max((size for when, size in samples if end - quarter <= when <= end), default=1 << 30)
    print(f"# the broker: {early} KiB early, {late} KiB late ({len(samples)} samples)")
    tap.ok("the broker's memory did not grow", 0 < early and late <= early + RSS_GROWTH_MAX_KIB, f"{early} KiB, then {late} KiB")


def judge(output, told, rss, log, secret):
    from broker import Tap
    tap, streams, log = Tap(), Streams(output, told), read_json(log)
    placeholder = (streams.last("guest", "placeholder ") or [""])[0]
    tap.ok("the guest had a placeholder", len(placeholder) == len(secret) and placeholder != secret, placeholder)
    tap.same("the server cut no stream, and none was cut for it", [], [a for a in streams.told.values() if "problem" in a])
    totals = {name: streams.told.get(name, {}).get("events", -1) for name in ("http1", "http2", "socket")}
    tap.ok("all three went on to their end", len(set(totals.values())) == 1 and totals["http1"] > 0, totals)
    total = max(1, *totals.values())
    times = []
    for name, prefix in (("http1", "data: "), ("http2", "data: "), ("socket", "push ")):
        judge_events(tap, streams, name, prefix, placeholder, total)
        times += [when for when, *_ in streams.events(name, prefix)]
    judge_sse(tap, streams, log, "http1", "1.1")
    judge_sse(tap, streams, log, "http2", "2")
    judge_socket(tap, streams, log, total)
    judge_memory(tap, rss, times or [0])
    tap.finish()


{"stamp": stamp, "judge": judge}[sys.argv[1]](*sys.argv[2:])
