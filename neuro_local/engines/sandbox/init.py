"""Process 1 of a sandboxed job: starts processes in it, reaps them, and ends with it.

Stands alone: it runs inside the job, so it imports nothing of ours and keeps to Python 3.9. Every
job waits until it has started, so it imports little. The engine holds the other end of its one
socket (see channel.py); when that end closes, the server is gone, and the job goes with it.

A request is JSON in a memory file, since an environment may outgrow a packet, and behind it the
descriptors it needs. An answer is a packet of JSON with the descriptors it promises.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing these takes a sixth of the time in which this starts
    from typing import Any, Dict, List, NoReturn, Optional, Sequence, Tuple

NOT_FOUND = 127
NOT_EXECUTABLE = 126
PRIVILEGED_PORTS = "/proc/sys/net/ipv4/ip_unprivileged_port_start"


class Init:
    """Does what the engine asks for over the socket `control`."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._processes: Dict[int, int] = {}  # pid: the id of the request that started it
        self._main: Optional[int] = None  # the first process: with it the job ends

    def serve(self) -> NoReturn:
        """Greet the engine, then take its requests and tell it of exits. Never returns: all ends
        with the main process, or when the engine hangs up."""
        children = watch_children()
        self._greet()
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(children, select.POLLIN)
        while True:
            for ready, _ in poll.poll():
                if ready == children:
                    os.read(children, 4096)
                    self._reap()
                else:
                    self._receive()

    def _greet(self) -> None:
        """Hand over what only this side of the namespaces can make.

        That is a handle on this process, a socket that listens inside (the job's way out), and
        the setting that says from which port on this network is open to all: its owner, outside,
        may change it, a process in here may not.
        """
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        handle = os.pidfd_open(os.getpid())  # type: ignore[attr-defined,unused-ignore]
        setting = os.open(PRIVILEGED_PORTS, os.O_RDONLY)
        greeting = {"id": 0, "proxy": listener.getsockname()[1]}
        self._send(greeting, [handle, listener.fileno(), setting])
        listener.close()
        os.close(handle)
        os.close(setting)

    def _receive(self) -> None:
        packet, descriptors, _, _ = socket.recv_fds(self._control, 16, 4)
        if not packet:
            end()
        for descriptor in descriptors:  # recv_fds itself has no way to ask for this
            os.set_inheritable(descriptor, False)
        with open(descriptors.pop(0), "rb") as payload:
            payload.seek(0)
            request = json.load(payload)
        try:
            getattr(self, "do_" + request["do"])(request, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def do_start(self, request: Dict[str, Any], streams: List[int]) -> None:
        """Start `argv` with `env` in `cwd`, on these streams or, with `tty`, on a new terminal of
        that `size`, whose other end goes with the answer. The first process is the main one; a
        later one that cannot start says so on its output and exits."""
        answer: List[int] = []
        if request["tty"]:
            master, slave = open_terminal(request["size"])
            answer, streams[:] = [master], [slave]
        pid, failure = spawn(request, streams)
        if pid is not None:
            self._processes[pid] = request["id"]
            self._main = self._main or request["id"]
            self._send({"id": request["id"]}, answer)
        elif self._main is None:
            self._send({"id": request["id"], "error": failure[1]})
        else:  # as under a shell: a process that only says what went wrong
            self._send({"id": request["id"]}, answer)
            os.write(streams[-1], failure[1].encode(errors="replace") + b"\n")
            self._send({"exited": request["id"], "code": failure[0]})
        for descriptor in answer:
            os.close(descriptor)

    def do_signal(self, request: Dict[str, Any], _: List[int]) -> None:
        """To the main process and its group, so that a shell's children hear it too."""
        for pid, started_by in self._processes.items():
            if started_by == self._main:
                os.killpg(pid, request["number"])
        self._send({"id": request["id"]})

    def do_socket(self, request: Dict[str, Any], _: List[int]) -> None:
        """A socket belongs to the network it was made in, whoever connects it."""
        with socket.socket(request["family"]) as made:
            self._send({"id": request["id"]}, [made.fileno()])

    def do_measure(self, request: Dict[str, Any], _: List[int]) -> None:
        """Tell the processor time that the job has used so far, and the memory that it has."""
        ticks = pages = 0
        for name in os.listdir("/proc"):
            if name.isdecimal():
                used, held = measure(name)
                ticks += used
                pages += held
        cpu = ticks / os.sysconf("SC_CLK_TCK")
        memory = pages * os.sysconf("SC_PAGE_SIZE")
        self._send({"id": request["id"], "cpu": cpu, "memory": memory})

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            started_by = self._processes.pop(pid, None)
            if started_by is not None:
                code = os.waitstatus_to_exitcode(status)
                code = code if code >= 0 else 128 - code
                self._send({"exited": started_by, "code": code})
                if started_by == self._main:
                    end()

    def _send(self, message: Dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], list(descriptors))
        except OSError:  # nobody is left to tell
            end()


def measure(pid: str) -> Tuple[int, int]:
    """Return the ticks that a process and its dead children have used, and its pages in memory:
    proc_pid_stat(5). Of this one, which is not the job, only its children count."""
    try:
        with open("/proc/" + pid + "/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:  # it has just ended
        return 0, 0
    own, children = (int(fields[n]) + int(fields[n + 1]) for n in (11, 13))
    return (children, 0) if pid == "1" else (own + children, int(fields[21]))


def watch_children() -> int:
    """Return a descriptor that becomes readable whenever a child has ended."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return reader


def open_terminal(size: Sequence[int]) -> Tuple[int, int]:
    """Return a new terminal's master and slave; `size` is its width and height in character
    cells."""
    master, slave = os.openpty()
    width, height = size
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    return master, slave


def spawn(request: Dict[str, Any], streams: Sequence[int]) -> Tuple[Optional[int], Any]:
    """Start a process; return its pid, or None with an exit code and a sentence."""
    report, reporter = os.pipe()  # closed by a successful exec
    pid = os.fork()
    if not pid:
        become(request, streams, reporter)
    os.close(reporter)
    with open(report, "rb") as reading:
        failure = reading.read()
    if not failure:
        return pid, None
    os.waitpid(pid, 0)
    return None, json.loads(failure)


def become(request: Dict[str, Any], streams: Sequence[int], reporter: int) -> NoReturn:
    """In the child: turn into the process that was asked for."""
    try:
        os.setsid()
        if request["tty"]:
            fcntl.ioctl(streams[0], termios.TIOCSCTTY, 0)
        for target in (0, 1, 2):
            os.dup2(streams[min(target, len(streams) - 1)], target)
        for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these
            signal.signal(number, signal.SIG_DFL)
        os.chdir(request["cwd"])
    except OSError as error:
        sentence = f"The working folder {request['cwd']!r} cannot be entered: {error.strerror}."
        os.write(reporter, json.dumps((NOT_EXECUTABLE, sentence)).encode())
        os._exit(NOT_EXECUTABLE)
    try:
        os.execvpe(request["argv"][0], request["argv"], request["env"])
    except (OSError, ValueError) as error:
        os.write(reporter, json.dumps(explain(error, request["argv"][0])).encode())
    os._exit(NOT_FOUND)


def explain(error: Exception, command: str) -> Tuple[int, str]:
    """Return the exit code, as a shell's, and the sentence for a command that could not be
    executed."""
    command = repr(command if len(command) < 200 else command[:200] + "...")
    number = getattr(error, "errno", None)
    if number in (errno.ENOENT, errno.ENOTDIR):
        return NOT_FOUND, f"The command {command} was not found in the job."
    if number == errno.EACCES:
        return NOT_EXECUTABLE, f"The command {command} is not executable."
    return NOT_EXECUTABLE, f"The command {command} could not be started: {error}."


def end() -> NoReturn:
    """Kill whatever is left and leave, so that nothing of the job outlives this process."""
    try:
        os.kill(-1, signal.SIGKILL)
        while True:
            os.wait()
    except (ProcessLookupError, ChildProcessError):
        os._exit(0)


if __name__ == "__main__":
    inherited = socket.socket(fileno=int(sys.argv[1]))
    inherited.set_inheritable(False)
    Init(inherited).serve()
