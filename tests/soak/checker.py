"""The verdict on a run: ``python -m soak.checker RUN.json``. A program of its own that knows nothing of the product's code.

It reads what was recorded outside (the provider's ledger, the watchers' recordings, the faults), the database, the
pictures and the logs, and prints a line for each invariant: ``ok``, ``BROKEN`` or ``note``. Exit code 1 where one is broken.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from soak.recorded import Row, Run, calls_by_prompt, image_tokens, marker

FINAL = {"COMPLETED", "FAILED", "CANCELLED"}
TABLES = (
    "users",
    "workflows",
    "credentials",
    "buckets",
    "executions",
    "results",
    "attempts",
    "images",
    "retry_requests",
)
RUDE = re.compile(
    r"Traceback|Task was destroyed|never retrieved|was never awaited|Exception ignored|StatusCode\.INTERNAL\b"
)
FLAWS_SHOWN = 8


def every_result_is_final(run: Run) -> Iterator[str]:
    for row in run.results:
        if row["state"] not in FINAL:
            yield f"result {row['id']} is {row['state']}"
    for row in run.executions:
        if row["state"] not in FINAL:
            yield f"execution {row['id']} is {row['state']}"
    wanted = run.facts.get("results")
    if wanted is not None and len(run.results) != wanted:
        yield f"{len(run.results)} results for {wanted} accepted prompts"


def one_output_each_and_counts_are_rows(run: Run) -> Iterator[str]:
    places = Counter((row["execution_id"], row["batch_index"], row["variation"]) for row in run.results)
    yield from (f"{count} rows at {place}" for place, count in places.items() if count > 1)
    done = Counter(row["result_id"] for row in run.attempts if row["outcome"] == "COMPLETED")
    masters = sum(row["kind"] == "MASTER" for row in run.images)
    named = {row["master_image_id"] for row in run.results if row["master_image_id"]}
    if run.facts.get("retried"):  # the late picture of a cancelled result is kept, beside that of its retry
        if masters != sum(done.values()):
            yield f"{masters} master pictures for {sum(done.values())} completed attempts"
    else:
        yield from (f"result {result} was completed {count} times" for result, count in done.items() if count > 1)
        if masters != len(named):
            yield f"{masters} master pictures for {len(named)} results that name one"
    for execution in run.executions:
        counted = Counter(row["state"] for row in run.results if row["execution_id"] == execution["id"])
        for state in ("pending", "processing", "completed", "failed", "cancelled"):
            if execution[state] != counted[state.upper()]:
                yield f"execution {execution['id']} counts {execution[state]} {state}, its rows {counted[state.upper()]}"
    for _, name, messages in run.recordings():
        for message in messages:
            if "stats" in message and message["stats"][0] and sum(message["stats"][1:]) != message["stats"][0]:
                yield f"{name} was told {message['stats']}: the states do not add up"


def pictures_exist(run: Run) -> Iterator[str]:
    folder = Path(run.facts["pictures"])
    for row in run.images:
        path = folder / row["blob_path"]
        if not path.exists():
            yield f"picture {row['id']} has a row and no file"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != row["sha256"]:
            yield f"picture {row['id']} is not what its row says"
    have = {row["id"] for row in run.images}
    for row in run.results:
        if row["state"] == "COMPLETED" and not {row["image_id"], row["master_image_id"]} <= have:
            yield f"result {row['id']} is COMPLETED without its picture"


def calls_are_explained(run: Run) -> Iterator[str]:
    """Each call has its attempt; each call that made no result has its fault."""
    yield from (f"attempt {row['id']} is still open" for row in run.attempts if row["charged"] is None)
    prompt_of = {row["id"]: marker(row["prompt_text"]) for row in run.results}
    attempts: dict[str, list[Row]] = defaultdict(list)
    for row in run.attempts:
        if row["result_id"] in prompt_of:
            attempts[prompt_of[row["result_id"]]].append(row)
    for prompt, calls in calls_by_prompt(run).items():
        sent = [row for row in attempts[prompt] if row["outcome"] != "RELEASED"]
        if len(calls) > len(sent):
            yield f"[{prompt}] was called {len(calls)} times, the ledger has {len(sent)}"
        wasted = [row for row in sent if row["outcome"] != "COMPLETED"]
        pictures = sum(row["outcome"] == "COMPLETED" for row in sent)
        extra = len(calls) - (pictures if run.facts.get("retried") else min(pictures, 1))
        if extra <= 0:
            continue
        told = [row for row in wasted if row["outcome"] != "CRASHED"]
        unexplained = extra - len(told) - len([call for call in calls[: len(calls)] if fault_of(run, call, sent)])
        if unexplained > 0:
            facts = [(call["caller"], round(call["arrived"], 2), round(call["ended"], 2)) for call in calls]
            outcomes = [
                (
                    row["outcome"],
                    *(round(run.monotonic(row[when]), 2) for when in ("start_time", "end_time") if row[when]),
                )
                for row in sent
            ]
            yield f"[{prompt}] {unexplained} of {extra} extra calls have no fault: calls {facts}, attempts {outcomes}"
    if not run.facts.get("extra_calls_allowed", True):
        extra = sum(max(0, len(calls) - 1) for calls in calls_by_prompt(run).values())
        if extra:
            yield f"{extra} calls more than results, where none is allowed"


def fault_of(run: Run, call: Row, attempts: list[Row]) -> Row | None:
    """Return the fault that this call's generator met between the call's arrival and the close of its attempt."""
    before = [row for row in attempts if run.monotonic(row["start_time"]) <= call["arrived"] + 0.05]
    closed = run.monotonic(before[-1]["end_time"]) if before and before[-1]["end_time"] else math.inf
    for event in run.events:
        hit = event["who"] in {"", call["caller"]} and event["kind"] in {
            "kill",
            "freeze",
            "storage-kill",
            "outage",
            "blocked",
        }
        if hit and call["arrived"] - 0.2 <= event.get("until", event["at"]) and event["at"] <= closed + 0.2:
            return dict(event)
    return None


def watchers_saw_everything_once(run: Run) -> Iterator[str]:
    rows: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in run.results:
        rows[row["execution_id"]][row["id"]] = row
    for execution_id, name, messages in run.recordings():
        last, finals, states = 0, Counter(), {}
        for message in messages:
            if not message.get("revision"):
                continue
            if message["revision"] <= last:
                yield f"{name}: revision {message['revision']} came after {last}"
            last = message["revision"]
            if message["kind"] == "result":
                # A picture that arrives for a cancelled result is told of with its cost; the state stays.
                again = message["state"] == "CANCELLED" == states.get(message["result"])
                states[message["result"]] = message["state"]
                finals[message["result"]] += message["state"] in FINAL and not again
        yield from (
            f"{name}: result {one} ended {n} times"
            for one, n in finals.items()
            if n > 1 and not run.facts.get("retried")
        )
        if run.facts.get("watchers_complete", True):
            yield from _last_told(name, states, rows.get(execution_id))


def _last_told(name: str, states: dict[str, str], rows: dict[str, Row] | None) -> Iterator[str]:
    if rows is None:
        yield f"{name} watched an execution that the database does not know"
        return
    for result_id, row in rows.items():
        if states.get(result_id) != row["state"]:
            yield f"{name}: result {result_id} is {row['state']}, it was last told {states.get(result_id)}"


def final_states_stay(run: Run) -> Iterator[str]:
    if run.facts.get("retried"):
        return
    for _, name, messages in run.recordings():
        ended: dict[str, str] = {}
        for message in messages:
            if message.get("kind") != "result":
                continue
            before = ended.get(message["result"])
            if before and message["state"] != before:
                yield f"{name}: result {message['result']} went from {before} to {message['state']}"
            if message["state"] in FINAL:
                ended[message["result"]] = message["state"]


def costs_are_the_bill(run: Run) -> Iterator[str]:
    paid = sum(row["image_output_tokens"] for row in run.attempts if row["charged"] == "YES")
    unsure = sum(1 for row in run.attempts if row["charged"] == "MAYBE")
    billed = [call["usage"] for call in run.calls if call["usage"]]
    bill = sum(image_tokens(usage) for usage in billed)
    most = max([image_tokens(usage) for usage in billed], default=0)
    if paid > bill:
        yield f"{paid} picture tokens are down as paid, the bill says {bill}"
    if bill > paid + unsure * most:
        yield f"the bill says {bill} picture tokens; {paid} are down as paid and {unsure} calls as perhaps paid"
    for execution in run.executions:
        mine = [row for row in run.attempts if row["execution_id"] == execution["id"]]
        cost = sum(row["cost_micros"] for row in mine)
        if cost != execution["cost_micros"]:
            yield f"execution {execution['id']} costs {execution['cost_micros']}, its attempts {cost}"
        cap = execution["max_cost_micros"]
        if cap is not None and execution["cost_micros"] + execution["uncertain_micros"] > cap:
            spent = f"{execution['cost_micros']} + {execution['uncertain_micros']}"
            yield f"execution {execution['id']} has spent {spent} under a cap of {cap}"


def nothing_is_held(run: Run) -> Iterator[str]:
    for row in run.executions:
        for column in ("reserved_micros", "open_attempts", "finishing", "processing"):
            if row[column]:
                yield f"execution {row['id']} still has {column} = {row[column]}"
    yield from (f"result {row['id']} still has a reservation" for row in run.results if row["reserved_micros"])
    kept = run.rows("select id from credentials where not saved and record is not null")
    if kept and all(row["state"] in FINAL for row in run.executions):
        yield f"{len(kept)} keys that nobody saved outlived their executions"


def key_is_nowhere(run: Run) -> Iterator[str]:
    canary = run.facts["canary"]
    for table in TABLES:
        if any(canary in str(value) for row in run.rows(f"select * from {table}") for value in row.values()):
            yield f"the key stands in the table {table}"
    for path in Path(run.facts["logs"]).rglob("*"):
        if path.is_file() and path.name != "run.json" and canary.encode() in path.read_bytes():
            yield f"the key stands in {path.name}"


def logs_are_calm(run: Run) -> Iterator[str]:
    for path in sorted(Path(run.facts["logs"]).glob("*.log")):
        text = path.read_text(errors="replace")
        found = RUDE.search(text)
        if found:
            around = text[max(0, found.start() - 300) : found.end() + 1500]
            yield f"{path.name}: {found[0]}\n{around}"


def nothing_failed(run: Run) -> Iterator[str]:
    allowed = run.facts.get("failures_allowed", 0)
    failed = [row for row in run.results if row["state"] == "FAILED"]
    if len(failed) > allowed:
        codes = Counter(row["error_code"] for row in failed)
        yield f"{len(failed)} results failed by the faults: {dict(codes)}"


INVARIANTS: tuple[tuple[str, Callable[[Run], Iterator[str]]], ...] = (
    ("I1  every accepted result is final", every_result_is_final),
    ("I2  one output each, counts are rows", one_output_each_and_counts_are_rows),
    ("I3  every picture is there with its hash", pictures_exist),
    ("I4  every call has its attempt and its reason", calls_are_explained),
    ("I5  watchers: rising, each end once, last = rows", watchers_saw_everything_once),
    ("I6  no final state changes", final_states_stay),
    ("I7  YES <= bill <= YES + MAYBE, costs add up", costs_are_the_bill),
    ("I8  no lease, place, reservation or key is left", nothing_is_held),
    ("I9  the key is nowhere", key_is_nowhere),
    ("I12 logs are calm", logs_are_calm),
    ("R1  nothing failed by the faults", nothing_failed),
)


def figures(run: Run) -> Iterator[str]:
    """What is to be known besides: how many faults hit work, and how long recovery took."""
    calls = calls_by_prompt(run)
    extra = sum(max(0, len(one) - 1) for one in calls.values())
    completed = {marker(row["prompt_text"]) for row in run.results if row["state"] == "COMPLETED"}
    outcomes = Counter(row["outcome"] for row in run.attempts)
    results = f"{len(completed)} completed of {len(run.results)} results"
    yield f"calls {len(run.calls)} for {results}, {extra} extra; attempts {dict(outcomes)}"
    done = {row["result_id"]: run.monotonic(row["end_time"]) for row in run.attempts if row["outcome"] == "COMPLETED"}
    done_prompt = {marker(row["prompt_text"]): done[row["id"]] for row in run.results if row["id"] in done}
    processes = [event for event in run.events if event["kind"] in {"kill", "freeze"} and event["who"].startswith("g")]
    if processes:
        flights = [
            sum(
                call["caller"] == event["who"]
                and call["arrived"] <= event["at"]
                and (call["ended"] > event["at"] or done_prompt.get(marker(call["prompt"]), math.inf) > event["at"])
                for call in run.calls
            )
            for event in processes
        ]
        hit = sum(flight > 0 for flight in flights)
        yield f"faults {len(processes)}, {hit} hit work in flight ({sum(flights)} calls); extra {extra}"
        if hit < 0.8 * len(processes) and run.facts.get("faults_hit_work", True):
            yield f"INVALID: only {hit} of {len(processes)} faults hit work in flight"
        recovered = sorted(recoveries(run))
        if recovered and run.facts.get("recovery_promised", True) is not None:
            limit = run.facts["lease_seconds"] + 1
            p99 = recovered[min(len(recovered) - 1, math.ceil(0.99 * len(recovered)) - 1)]
            middle = recovered[len(recovered) // 2]
            late = "LATE   " if run.facts.get("recovery_promised", True) else ""
            verdict = "within" if p99 <= limit else f"{late}not within"
            yield (
                f"{verdict} {limit:g} s: leased again after p50 {middle:.2f} s, p99 {p99:.2f} s, "
                f"max {recovered[-1]:.2f} s, n={len(recovered)}"
            )
    orphans = sum(1 for path in Path(run.facts["pictures"]).rglob("*") if path.is_file()) - len(run.images)
    yield f"files without a row (for the sweeper): {orphans}"


def recoveries(run: Run) -> Iterator[float]:
    """Seconds from a generator's fault until a lease that it had held was given anew, for each call that it had out."""
    prompt_of = {row["id"]: marker(row["prompt_text"]) for row in run.results}
    calls = calls_by_prompt(run)
    at = {event["who"]: event["at"] for event in run.events if event["kind"] in {"kill", "freeze"}}
    for row in run.attempts:
        if row["outcome"] != "CRASHED" or row["result_id"] not in prompt_of:
            continue
        opened, closed = run.monotonic(row["start_time"]), run.monotonic(row["end_time"])
        for call in calls[prompt_of[row["result_id"]]]:
            hit = at.get(call["caller"])
            if opened - 0.05 <= call["arrived"] <= closed and hit is not None and hit <= closed:
                yield closed - max(hit, opened)
                break


def main() -> int:
    facts = json.loads(Path(sys.argv[1]).read_text())
    run = Run(facts)
    broken = 0
    for title, check in INVARIANTS:
        flaws = list(check(run))
        broken += bool(flaws)
        print(f"{'BROKEN' if flaws else 'ok    '} {title}" + (f": {len(flaws)}" if flaws else ""))
        for flaw in flaws[:FLAWS_SHOWN]:
            print(f"         {flaw}")
    for line in figures(run):
        broken += line.startswith("INVALID")
        mark = "BROKEN " if line.startswith("INVALID") else "" if line.startswith("LATE") else "note   "
        print(f"{mark}{line}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
