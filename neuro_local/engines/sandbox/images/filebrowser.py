#!/opt/venv/bin/python -I
"""Stands in for the program `filebrowser`: takes its options and becomes copyparty.

Runs inside the job, so it imports nothing of ours.
"""

import argparse
import os
import sys
import tempfile

NAME = "File browser (neuro-local's stand-in)"

# Everybody who gets here may do everything: the platform has asked for the credential already.
# A point in the permissions means files whose names begin with one.
ACCESS = "::rwmd."
OPTIONS = (
    *("--name", NAME, "--theme", "1", "--localtime", "--see-dots", "--qdel", "1", "--ui-nocpla"),
    # Only plain HTTP, only what is below the folder, and no scripts of uploaded pages.
    *("--http-only", "--no-dav", "--xvol", "--no-script", "--no-robots"),
    # Nothing is kept beside the user's files: no old versions, thumbnails or embedded pages.
    *("--md-hist", "n", "--no-thumb", "--no-acode", "--no-readme", "--no-logues"),
    # No accounts, so no login; and nobody is locked out, since all come by way of one proxy,
    # with the cookies of every page on this machine.
    *("--no-ses", "--idp-store", "0", "--ui-noacci", "--dont-ban", "any", "--rproxy", "0"),
    *("--cookie-nmax", "1000", "--cookie-cmax", "65536", "--no-ansi", "--no-voldump"),
)


def main() -> None:
    """Become copyparty. Exits with a sentence without --noauth, and for a folder that cannot be
    shown."""
    args = parser().parse_args()
    if not args.noauth:
        sys.exit(f"{NAME} knows no users: start it with --noauth.")
    root = os.path.realpath(args.root)
    if ":" in root or not os.path.isdir(root):
        sys.exit(f"{NAME} cannot show {root!r}: it is no folder, or has a colon in its name.")
    own = tempfile.mkdtemp(prefix="filebrowser-")
    os.environ["XDG_CONFIG_HOME"] = own
    print(f"{NAME}: this is copyparty, on port {args.port}.", flush=True)
    # Isolated: nothing in the working folder may pass for a module. Unbuffered: logs are followed.
    command = [sys.executable, "-I", "-u", "-m", "copyparty", "-v", root + ACCESS, "--hist", own]
    command += [*OPTIONS, "-i", args.address or "0.0.0.0", "-p", args.port]
    os.execv(command[0], command)


def parser() -> argparse.ArgumentParser:
    """Return a parser of those options of filebrowser's that mean something here."""
    made = argparse.ArgumentParser(prog="filebrowser", description=NAME, allow_abbrev=False)
    made.add_argument("--noauth", action="store_true", help="needed: there are no users here")
    made.add_argument("-a", "--address", default="", help="address to listen on (all)")
    made.add_argument("-p", "--port", default="80", help="port to listen on (%(default)s)")
    made.add_argument("-r", "--root", default="/srv", help="folder to show (%(default)s)")
    made.add_argument("-d", "--database", help="ignored: there is none")
    made.add_argument("-l", "--log", help="ignored: standard output")
    made.add_argument("--disable-exec", "--disableExec", action="store_true", help="always so")
    return made


if __name__ == "__main__":
    main()
