"""``poolhouse bench``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.errors import InvalidRequest

if TYPE_CHECKING:
    from cluster.benchmark.runs import Server

_EXAMPLES = """examples:
  poolhouse bench short http://127.0.0.1:8000
  poolhouse bench batch http://127.0.0.1:8000 --connections 4 --duration 20 --plot batch.png
  poolhouse bench mixed ours=http://127.0.0.1:8000 llama=http://127.0.0.1:8080 --rounds 5
  poolhouse bench short http://127.0.0.1:8000 --rate 50 --json
  poolhouse bench rerank http://127.0.0.1:8000

workloads:
{workloads}
  Texts are made from common words, and no two are alike, so that caches and de-duplication cannot help.
  Servers are measured in turn, once in each round; a ratio is to the first server, the median over the rounds.
  Tokens are counted by the server: x-poolhouse-tokens, else the answer's usage.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], help_text: str) -> None:
    """Register the command."""
    from cluster.benchmark.workloads import WORKLOADS

    listed = "\n".join(f"  {workload.name:8} {workload.description}" for workload in WORKLOADS.values())
    parser = subparsers.add_parser(
        "bench",
        help=help_text,
        epilog=_EXAMPLES.format(workloads=listed),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workload", choices=tuple(WORKLOADS), metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("servers", nargs="+", metavar="[NAME=]URL", help="of a server; several are compared")
    load = parser.add_argument_group("load")
    load.add_argument("--connections", type=_positive, help="that send (default: the workload's own)")
    load.add_argument("--rate", type=_above_zero, help="open loop: so many requests a second arrive at random")
    load.add_argument("--warm-up", type=_not_negative, default=2.0, metavar="S", help="default: %(default)s s")
    load.add_argument(
        "--duration", type=_above_zero, default=10.0, metavar="S", help="of a round (default: %(default)s s)"
    )
    load.add_argument("--requests", type=_positive, metavar="N", help="measure N requests instead of a time")
    load.add_argument("--rounds", type=_positive, help="default: 1 for one server, 3 for several")
    load.add_argument(
        "--timeout", type=_above_zero, default=60.0, metavar="S", help="of a request (default: %(default)s s)"
    )
    load.add_argument(
        "--generator", choices=("auto", "wrk", "own"), default="auto", help="auto: wrk where it can do it"
    )
    load.add_argument("--seed", type=int, default=0, help="of the texts (default: %(default)s)")
    asked = parser.add_argument_group("request")
    asked.add_argument("--model", help="default: the first that the server lists")
    asked.add_argument("--api-key", help="of the servers")
    asked.add_argument("--field", action="append", default=[], metavar="KEY=JSON", help="a further field of the body")
    parser.add_argument("--pid", type=_positive, nargs="+", help="first process of each server: its CPU time is shown")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the latencies")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from cluster.benchmark.generator import Schedule
    from cluster.benchmark.report import print_report, report_json
    from cluster.benchmark.runs import run_rounds, totals
    from cluster.benchmark.workloads import WORKLOADS

    workload = WORKLOADS[options.workload]
    schedule = Schedule(
        connections=options.connections or (64 if options.rate else workload.connections),
        rate=options.rate,
        warm_up_s=options.warm_up,
        duration_s=options.duration,
        requests=options.requests,
        timeout_s=options.timeout,
    )
    servers = _servers(options)
    rounds = options.rounds or (1 if len(servers) == 1 else 3)
    windows = run_rounds(
        servers,
        workload,
        schedule,
        rounds=rounds,
        seed=options.seed,
        generator=options.generator,
        progress=lambda line: print(line, file=sys.stderr),
    )
    if options.json:
        print(json.dumps(report_json(windows, workload, schedule), indent=2))
    else:
        print("\n".join(print_report(windows, workload, schedule, rounds)))
    if options.plot is not None:
        from cluster.benchmark.plots import draw_latencies, write_plot

        write_plot(options.plot, draw_latencies(totals(windows), f"{workload.name}: {workload.description}"))
        print(f"written: {options.plot}", file=sys.stderr)
    failed = any(window.errors for parts in windows.values() for window in parts)
    return 1 if failed else 0


def _servers(options: argparse.Namespace) -> list[Server]:
    from cluster.benchmark.runs import Server, model_of

    if options.pid is not None and len(options.pid) != len(options.servers):
        raise InvalidRequest(
            f"--pid has {len(options.pid)} process(es) for {len(options.servers)} server(s); give one for each"
        )
    fields = dict(_field(text) for text in options.field)
    servers: list[Server] = []
    for index, given in enumerate(options.servers):
        name, _, url = given.rpartition("=") if "://" in given.rpartition("=")[2] else (given, "", given)
        if any(server.name == (name or url) for server in servers):
            raise InvalidRequest(f"two servers are called {name or url!r}; name them, as in ours={url}")
        servers.append(
            Server(
                name=name or url,
                url=url,
                model=options.model or model_of(url, options.api_key),
                api_key=options.api_key,
                process=options.pid[index] if options.pid else None,
                fields=fields,
            )
        )
    return servers


def _field(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise InvalidRequest(f"--field {text!r} is not KEY=JSON, as in --field lane='\"bulk\"'")
    try:
        return key, json.loads(value)
    except ValueError:
        # A bare word is what most people write.
        return key, value


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _above_zero(text: str) -> float:
    number = _not_negative(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return number


def _not_negative(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return number
