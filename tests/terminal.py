"""A pseudo-terminal, and what a person would see on its screen."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import termios
import threading
from typing import TextIO

_TOKEN = re.compile(r"\x1b\[[?]?([\d;]*)([A-Za-z])|\x1b\][^\x07]*\x07|[\r\n]|[^\x1b\r\n]+")


def screen(written: str, columns: int) -> list[str]:
    """Lines of an endlessly high screen after a program has written to it; colours are left out.

    Known are text (wrapped at the last column), carriage return, new line, cursor up and down, erase line and erase
    below: all that a progress bar uses.
    """
    rows, row, column = [""], 0, 0
    for token in _TOKEN.finditer(written):
        text, argument, command = token[0], token[1], token[2]
        if command == "A":
            row = max(0, row - int(argument or 1))
        elif command == "B":
            row += int(argument or 1)
        elif command == "K":
            rows[row] = "" if argument == "2" else rows[row][:column]
        elif command == "J":
            del rows[row + 1 :]
        elif text == "\r":
            column = 0
        elif text == "\n":
            row, column = row + 1, 0
        elif text[0] != "\x1b":
            for letter in text:
                if column == columns:
                    row, column = row + 1, 0
                    rows += [""] * (row + 1 - len(rows))
                rows[row] = rows[row].ljust(column)[:column] + letter + rows[row][column + 1 :]
                column += 1
        rows += [""] * (row + 1 - len(rows))
    return [line.rstrip() for line in rows]


class Terminal:
    """A pseudo-terminal of so many columns: a program writes to ``file``, and ``lines()`` are then on the screen."""

    def __init__(self, columns: int) -> None:
        self.columns, self._bytes = columns, b""

    def __enter__(self) -> Terminal:
        self.master, self.slave = os.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, self.columns, 0, 0))
        self.file: TextIO = os.fdopen(os.dup(self.slave), "w", encoding="utf-8", buffering=1)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self) -> None:
        while True:
            try:
                got = os.read(self.master, 4096)
            except OSError:  # the other end is closed
                return
            if not got:
                return
            self._bytes += got

    def __exit__(self, *raised: object) -> None:
        self.file.close()
        os.close(self.slave)
        self._reader.join(5)
        os.close(self.master)

    @property
    def written(self) -> str:
        """All that came through, once the terminal is closed."""
        return self._bytes.decode("utf-8", "replace")

    def lines(self) -> list[str]:
        """The screen, once the terminal is closed."""
        return screen(self.written, self.columns)
