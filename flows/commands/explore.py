"""`mgd explore`: a page on which a run's samples are looked at, filtered, compared and carried off."""

from __future__ import annotations

import argparse

from flows.commands import Make, named, whole

TEXT = """look at a run's samples on a page: filter, brush, order, pick, export

Serves this machine only (127.0.0.1), to who has the address that is printed; Ctrl-C ends it. What the page shows
is kept in its address. Exports go to the home's subsets, with the `mgd subset` line that gives the same again."""


def add_explore(make: Make) -> None:
    """Add the command's parser."""
    made = make("explore", _run, TEXT)
    made.add_argument("run_id", nargs="?", type=named, metavar="RUN", help="run (default: the latest)")
    made.add_argument("--port", type=whole, help="port of 127.0.0.1 (default: any that is free)")
    made.add_argument("--open", action="store_true", help="open the page in this machine's browser")


def _run(options: argparse.Namespace) -> int:
    import webbrowser
    from contextlib import ExitStack, suppress

    from flows.console import shown_progress
    from tasks.explore.explorer import explored
    from tasks.explore.service import new_token
    from tasks.explore.serving import ADDRESS, listening, server
    from tasks.files.progress import begin

    with ExitStack() as held:
        socket = held.enter_context(listening(options.port))
        with shown_progress():
            begin("open the tables")
            explorer = held.enter_context(explored(options.home.resolve(), options.run_id))
        port, token = socket.getsockname()[1], new_token()
        url = f"http://{ADDRESS}:{port}/?token={token}"
        print(f"{len(explorer.frame):,} samples of {explorer.run}: {url}\n(Ctrl-C ends it)", flush=True)
        if options.open:
            webbrowser.open(url)
        with suppress(KeyboardInterrupt):
            server(explorer, port, token).run(sockets=[socket])
    return 0
