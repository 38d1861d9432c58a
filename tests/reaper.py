"""Outlives a killed pytest and ends the process groups that it left: one line on stdin per change, +PID or -PID."""

import contextlib
import os
import signal
import subprocess
import sys


def main() -> None:
    """Follow the lines; when the writer is gone, kill what is still listed."""
    groups: set[int] = set()
    for line in sys.stdin:
        sign, group = line[0], int(line[1:])
        (groups.add if sign == "+" else groups.discard)(group)
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


class Reaper:
    """The writer's end: started on first use, ended by the end of this process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def tell(self, sign: str, group: int) -> None:
        """List (+) or strike off (-) a process group."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, text=True, start_new_session=True
            )
        assert self._process.stdin is not None
        self._process.stdin.write(f"{sign}{group}\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """Let it end; what is still listed is killed."""
        if self._process is not None:
            process, self._process = self._process, None
            process.communicate(timeout=10)


if __name__ == "__main__":
    main()
