"""The command `neuro-local`: parse, call, print, exit code."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import shutil
import sys
import urllib.request
from typing import Callable, Dict, List, Optional

from . import __version__, config, daemon, instance
from .config import Settings
from .engines.sandbox.catalogue import CATALOGUE
from .errors import NeuroLocalError, UsageError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

# What `up` says of an engine.
RUNS = {
    config.SANDBOX: [
        "Jobs run in sandboxes on this machine. Images that were not saved here are a plain base",
        "with Python 3 and pip, except for these, which are made from PyPI on first use:",
        *(f"  {entry.repository}: {entry.holds}" for entry in CATALOGUE),
    ],
    config.DOCKER: ["Jobs run as containers of this machine's Docker engine."],
}


def up(settings: Settings, args: argparse.Namespace) -> int:
    """Start the local platform in the background and print how to point the client at it."""
    fresh = daemon.up(settings)
    engine = daemon.running_engine(settings)
    if config.asked_engine(args.engine, os.environ) not in (None, config.AUTO, engine):
        raise UsageError(
            f"it runs already, with the engine {engine}; stop it first: `{_self(args)} down`"
        )
    print(f"neuro-local {'is' if fresh else 'was already'} running at {instance.api_url(settings)}")
    print(f"  state  {settings.state}")
    print(f"  token  {settings.token_file} (readable by you only)")
    print(f"  engine {engine}")
    for line in RUNS[engine or config.SANDBOX]:
        print(line)
    print("Make `neuro` in this shell talk to it with:")
    print(f'  eval "$({_self(args)} env)"')
    return OK


def env(settings: Settings, args: argparse.Namespace) -> int:
    """Print shell exports; eval "$(neuro-local env)" points every neuro of the shell here."""
    _require_running(settings, args)
    print(instance.shell_exports(settings))
    return OK


def status(settings: Settings, args: argparse.Namespace) -> int:
    """Tell whether the local platform runs, and what runs on it; exit code 1 when it does not."""
    if daemon.running_pid(settings) is None:
        print(f"neuro-local does not run; start it with `{_self(args)} up`")
        return FAILED
    jobs = _running_jobs(settings)
    print(f"neuro-local runs at {instance.api_url(settings)} (state: {settings.state})")
    print(f"{len(jobs)} unfinished job{'' if len(jobs) == 1 else 's'}")
    for job in jobs:
        print(f"  {job['id']}  {job['status']}  {job.get('name', '')}")
    return OK


def logs(settings: Settings, args: argparse.Namespace) -> int:
    """Print the server's own log (a job's log: neuro logs JOB)."""
    if settings.log_file.exists():
        with settings.log_file.open(errors="replace") as file:
            shutil.copyfileobj(file, sys.stdout)
    return OK


def down(settings: Settings, args: argparse.Namespace) -> int:
    """Stop the local platform and every job on it; storage and images stay."""
    stopped = daemon.down(settings)
    print("neuro-local has stopped" if stopped else "neuro-local was not running")
    return OK


def serve(settings: Settings, args: argparse.Namespace) -> int:
    """Run the server in the foreground (what `up` starts in the background)."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level="INFO")
    daemon.serve(settings, args.ready_fd)
    return OK


COMMANDS: List[Callable[[Settings, argparse.Namespace], int]] = [
    up,
    env,
    status,
    logs,
    down,
    serve,
]


def main(argv: Optional[List[str]] = None) -> int:
    """Run the command line (the process's own without `argv`) and return its exit code; errors that
    users can do something about become a sentence on standard error. Raises SystemExit for help and
    for what does not parse."""
    args = _parser().parse_args(argv)
    try:
        result: int = args.run(config.load(args.state_dir, os.environ, args.engine), args)
        sys.stdout.flush()
        return result
    except UsageError as error:
        print(f"neuro-local: {error}", file=sys.stderr)
        return USAGE
    except NeuroLocalError as error:
        print(f"neuro-local: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:  # a full disk, a state folder that is not ours, a closed pipe
        print(f"neuro-local: {error}", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="neuro-local", description="A stand-in for the Neuro platform on this machine."
    )
    parser.add_argument("--version", action="version", version=f"neuro-local {__version__}")
    parser.add_argument(
        "--state-dir",
        metavar="DIR",
        help="folder of this instance: storage, images, token (default: NEURO_LOCAL_STATE_DIR, "
        "then neuro-local in the XDG data folder)",
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for run in COMMANDS:
        command = subparsers.add_parser(run.__name__, help=run.__doc__, description=run.__doc__)
        command.set_defaults(run=run, engine=None)
        if run in (up, serve):
            command.add_argument(
                "--engine",
                metavar="|".join(config.ENGINES),
                help="what jobs run on; auto: docker if one answers, else sandbox "
                "(default: NEURO_LOCAL_ENGINE, then sandbox)",
            )
        if run is serve:
            command.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    return parser


def _require_running(settings: Settings, args: argparse.Namespace) -> None:
    if daemon.running_pid(settings) is None:
        raise UsageError(f"it does not run; start it with `{_self(args)} up`")


def _running_jobs(settings: Settings) -> List[Dict[str, str]]:
    request = urllib.request.Request(
        f"{instance.api_url(settings)}/jobs?status=pending&status=running",
        headers={"Authorization": f"Bearer {instance.token(settings)}"},
    )
    # The environment's proxy is none of loopback's business.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        jobs: List[Dict[str, str]] = json.load(answer)["jobs"]
    return jobs


def _self(args: argparse.Namespace) -> str:
    """Return how to call this command again, for the same instance, from the user's shell."""
    found = shutil.which("neuro-local")
    same = found is not None and os.path.realpath(found) == os.path.realpath(sys.argv[0])
    command = "neuro-local" if same else shlex.quote(os.path.abspath(sys.argv[0]))
    if os.path.basename(sys.argv[0]) == "__main__.py":
        command = f"{shlex.quote(sys.executable)} -m neuro_local"
    return command + (f" --state-dir {shlex.quote(args.state_dir)}" if args.state_dir else "")
