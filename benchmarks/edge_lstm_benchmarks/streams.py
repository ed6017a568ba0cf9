"""A whole book through a model, one character a step: ``make streams``.

Native code reads the book from the first character to the last without a break. At equal
distances its state is saved, as the bytes of an ``.npz``. Then all stretches are read again, side
by side as rows of a batch, by two sessions whose rows go on from what was saved:

==========  ==================================================================================
``numpy``   the NumPy session
``native``  native code, restored
==========  ==================================================================================

Both must give the bytes of the unbroken stream, and each row of theirs must end in the state that
was saved for the next. So NumPy, read without a break, gives those bytes too: its first row starts
from zero, and each row goes on where the one before ended.

At the start of each stretch one call of a lone stream is timed and its memory traced, and some
characters are read one by one, with ``step``.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import io
import json
import platform
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.arrays import I32, Array
from edge_lstm.errors import EdgeLstmError
from edge_lstm.files import write_atomically
from edge_lstm.program import Program
from edge_lstm.runtime import Session
from edge_lstm_benchmarks import one_thread
from edge_lstm_benchmarks.book import KJV, book_text, book_tokens, in_integers, text_model
from edge_lstm_benchmarks.machine import describe_host
from edge_lstm_benchmarks.picture_streams import streams_png
from edge_lstm_benchmarks.results_page import ROOT, write_page
from edge_lstm_benchmarks.runtimes import machine_name

SCHEMA = "edge-lstm.streams/1"
PROFILES = ("edge", "tflm")
MOST_ROWS = 64
CHUNK = 1024
"""Characters of a call."""
STEPPED = 256
"""Characters of each stretch that are read one by one."""

State = Mapping[str, Array]


def snapshot(state: State) -> bytes:
    """Return a state as the bytes of an .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **dict(state))  # type: ignore[arg-type]
    return buffer.getvalue()


def restored(snapshots: Iterable[bytes]) -> dict[str, Array]:
    """Return the states that ``snapshot`` made into bytes, as rows of one."""
    rows = [dict(np.load(io.BytesIO(data), allow_pickle=False)) for data in snapshots]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def resident_bytes() -> int | None:
    """Return what this process holds of the machine's memory now, where the system says it."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf8").splitlines()
    except OSError:
        return None
    kilobytes = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(kilobytes[0]) * 1024 if kilobytes else None


def equal_stretches(characters: int) -> int:
    """Return how many stretches of one length make the whole: the most, up to ``MOST_ROWS``."""
    return max(rows for rows in range(1, MOST_ROWS + 1) if characters % rows == 0)


def unbroken(
    session: Session, stretches: I32, say: Callable[[str], None]
) -> tuple[list[bytes], list[dict[str, Any]]]:
    """Read all without a break; return a snapshot at each start and end, and what each showed.

    Args:
        session: of one row.
        stretches: tokens, [stretches, characters].
        say: told of every tenth of the book.
    """
    snapshots, rows = [snapshot(session.state)], []
    for number, tokens in enumerate(stretches):
        digest, nanoseconds = hashlib.sha256(), 0
        for first in range(0, len(tokens), CHUNK):
            x = tokens[None, first : first + CHUNK]
            start = time.process_time_ns()
            y = session.run(x)
            nanoseconds += time.process_time_ns() - start
            digest.update(y.tobytes())
        snapshots.append(snapshot(session.state))
        rows.append(
            {
                "stop": (number + 1) * len(tokens),
                "us_per_character": nanoseconds / len(tokens) / 1000,
                "sha256": digest.hexdigest(),
                "snapshot_bytes": len(snapshots[-1]),
                "resident_bytes": resident_bytes(),
            }
        )
        if (number + 1) % max(1, len(stretches) // 10) == 0:
            say(f"{rows[-1]['stop']:,} characters")
    return snapshots, rows


def side_by_side(
    sessions: Mapping[str, Session],
    stretches: I32,
    snapshots: list[bytes],
    want: list[str],
    say: Callable[[str], None],
) -> dict[str, dict[str, int]]:
    """Read every stretch from its snapshot; return of each session what differs.

    Args:
        sessions: of as many rows as there are stretches; the first is compared with the others.
        stretches: tokens, [stretches, characters].
        snapshots: at each start and end.
        want: SHA-256 of each stretch's outputs in the unbroken stream.
        say: told now and then.
    """
    digests = {name: [hashlib.sha256() for _ in want] for name in sessions}
    differing, compared = dict.fromkeys(sessions, 0), 0
    for session in sessions.values():
        session.state = restored(snapshots[:-1])
    length = stretches.shape[1]
    for first in range(0, length, CHUNK):
        x = np.ascontiguousarray(stretches[:, first : first + CHUNK])
        outputs = {name: session.run(x) for name, session in sessions.items()}
        reference = next(iter(outputs.values()))
        compared += reference.nbytes
        for name, y in outputs.items():
            differing[name] += int(np.count_nonzero(y != reference))
            for digest, row in zip(digests[name], y, strict=True):
                digest.update(row.tobytes())
        if (first // CHUNK) % 10 == 9:
            say(f"{len(want)} rows, {first + CHUNK:,} of {length:,} characters each")
    ends = restored(snapshots[1:])
    found = {}
    for name, session in sessions.items():
        state = session.state
        found[name] = {
            "compared_bytes": compared,
            "differing_bytes": differing[name],
            "stretches_unlike_unbroken": sum(
                digest.hexdigest() != sha for digest, sha in zip(digests[name], want, strict=True)
            ),
            "ends_unlike_unbroken": sum(
                any((state[key][row] != end[row]).any() for key, end in ends.items())
                for row in range(len(want))
            ),
        }
    return found


def lone_calls(
    sessions: Mapping[str, Session], stretches: I32, snapshots: list[bytes]
) -> list[dict[str, Any]]:
    """Return the time and memory of a call at the start of each stretch, and if steps agree.

    Args:
        sessions: of one row.
        stretches: tokens, [stretches, characters].
        snapshots: at each start.
    """
    rows = []
    for number, (tokens, saved) in enumerate(zip(stretches, snapshots, strict=False)):
        x, state = tokens[None, :CHUNK], restored([saved])
        row: dict[str, Any] = {"first": number * len(tokens), "us": {}, "traced_peak_bytes": {}}
        outputs = []
        for name, session in sessions.items():
            session.state = state
            start = time.process_time_ns()
            outputs.append(session.run(x))
            row["us"][name] = (time.process_time_ns() - start) / x.shape[1] / 1000
            row["traced_peak_bytes"][name] = traced(session, x)
            session.state = state
            outputs.append(np.stack([session.step(t[None]) for t in x[0, :STEPPED]], axis=1))
        few = outputs[0][:, :STEPPED]
        row["differing_bytes"] = sum(
            int(np.count_nonzero(y[:, :STEPPED] != few)) for y in outputs[1:]
        )
        rows.append(row)
    return rows


def traced(session: Session, x: Array) -> int:
    """Return the most bytes that Python held for a call beyond those before, its output too."""
    tracemalloc.start()
    try:
        session.run(x)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def stream_book(program: Program, tokens: I32, say: Callable[[str], None]) -> dict[str, Any]:
    """Return what was measured and compared over all tokens, [characters]."""
    count = equal_stretches(len(tokens))
    stretches = tokens.reshape(count, -1)
    snapshots, rows = unbroken(program.compile(), stretches, say)
    calls = lone_calls(
        {"numpy": program.session(), "native": program.compile()}, stretches, snapshots
    )
    state = program.session().state
    found = side_by_side(
        {"numpy": program.session(count), "native": program.compile(count)},
        stretches,
        snapshots,
        [row["sha256"] for row in rows],
        say,
    )
    return {
        "profile": program.profile,
        "stretches": count,
        "state_bytes": sum(value.nbytes for value in state.values()),
        "unbroken": rows,
        "calls": calls,
        "restored": found,
    }


def failures(document: Mapping[str, Any]) -> list[str]:
    """Return what is not as it must be: bytes, stretches or states that differ."""
    found = []
    for run in document["streams"]:
        for name, row in run["restored"].items():
            for what in ("differing_bytes", "stretches_unlike_unbroken", "ends_unlike_unbroken"):
                if row[what]:
                    found.append(f"{run['profile']}, {name}: {what.replace('_', ' ')}: {row[what]}")
        if stepped := sum(call["differing_bytes"] for call in run["calls"]):
            found.append(f"{run['profile']}: single steps: differing bytes: {stepped}")
    return found


def measured(tokens: I32, profiles: Iterable[str]) -> dict[str, Any]:
    """Return the document of a book under some profiles."""
    with tempfile.TemporaryDirectory() as folder:
        spec = text_model(Path(folder))
    runs = [
        stream_book(
            in_integers(spec, tokens, profile),
            tokens,
            lambda line, profile=profile: print(f"{profile}: {line}", flush=True),  # type: ignore[misc]
        )
        for profile in profiles
    ]
    return {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        # Without the kernel's build, which says nothing about speed and much about the place.
        "host": {**describe_host(), "system": platform.system()},
        "book": f"{KJV.name} of {KJV.package} {KJV.version}",
        "characters": len(tokens),
        "unknown_characters": int((tokens == 0).sum()),
        "chunk": CHUNK,
        "stepped": STEPPED,
        "streams": runs,
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, keep and render; return 1 if a byte differs."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m edge_lstm_benchmarks.streams")
    parser.add_argument("--characters", type=int, help="of the book's beginning; not kept")
    parser.add_argument("--profiles", default=",".join(PROFILES), help="default: %(default)s")
    parser.add_argument("--folder", type=Path, default=ROOT, help="of results/ and RESULTS.md")
    options = parser.parse_args(given)
    status = one_thread.rerun("edge_lstm_benchmarks.streams", given)
    if status is not None:
        return status
    try:
        tokens = book_tokens(book_text())[: options.characters]
        document = measured(tokens, options.profiles.split(","))
        if options.characters is None:
            keep(document, options.folder)
    except EdgeLstmError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    wrong = failures(document)
    print("\n".join(wrong) or "every byte and every state is the same")
    return int(bool(wrong))


def keep(document: dict[str, Any], folder: Path) -> None:
    """Write the results, their picture and the page; profiles that were not run stay."""
    results = folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    name = f"streams-{machine_name()}"
    path = results / f"{name}.json"
    old = json.loads(path.read_text(encoding="utf8"))["streams"] if path.exists() else []
    runs = {run["profile"]: run for run in [*old, *document["streams"]]}
    streams = [runs[profile] for profile in sorted(runs)]
    document = {**document, "streams": streams, "picture": f"{name}.png"}
    write_atomically(results / document["picture"], streams_png(document))
    write_atomically(path, f"{json.dumps(document, indent=1)}\n".encode())
    write_page(folder)


if __name__ == "__main__":
    sys.exit(main())
