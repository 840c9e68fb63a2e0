"""Become a Postgres program: the little script that every Postgres process is started through.

    python -I -S child.py IDENTITY PARENT PROGRAM [ARGUMENT...]

IDENTITY says who the program shall be, because Postgres refuses to run as root:

* ``self``: whoever starts it (the ordinary case);
* ``namespace``: uid "nobody" inside a user namespace of its own, in which that is root outside. Files stay the
  starter's, so nothing needs another owner, and directories that only root may enter work;
* ``nobody``: really another user, for machines that forbid user namespaces. The data must belong to it.

PARENT is the pid whose death ends the program, or 0. A script and not a ``preexec_fn``: what runs between fork
and exec in a process with threads may deadlock. The pid stays the same, because the last step is an exec.
"""

import ctypes
import os
import signal
import sys

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
NOBODY = 65534


def enter_namespace(libc: ctypes.CDLL) -> None:
    """Make the present user appear as nobody, for this process and its children."""
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare of the user namespace")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {uid} 1"), ("gid_map", f"{NOBODY} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def become_nobody() -> None:
    """Drop to the user nobody for good."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def die_with(parent: int, libc: ctypes.CDLL) -> None:
    """Ask the kernel for an immediate shutdown when the parent goes, by whatever death."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)
    if os.getppid() != parent:  # it went before we could ask
        sys.exit(1)


def main(identity: str, parent: str, program: str, *arguments: str) -> None:
    """Change identity, tie the life to the parent's, and exec."""
    libc = ctypes.CDLL(None, use_errno=True)
    if identity == "namespace":
        enter_namespace(libc)
    elif identity == "nobody":
        become_nobody()
    if parent != "0":  # last: a change of credentials clears it
        die_with(int(parent), libc)
    os.execv(program, [program, *arguments])  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main(*sys.argv[1:])
