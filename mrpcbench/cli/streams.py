"""Standard streams that cannot make a command fail: closed, broken or full streams, and limited encodings.

A closed stream is replaced by the null device. If the reader of a pipe exits, the rest of the output is dropped. Only a
result that could not be written to stdout, for example to a full disk, is an error, reported at the end of the command.
"""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from mrpcbench.display.escapes import CONTROL, INNER_COMMAND, escaped

# Replacements in ASCII for characters that an encoding may lack; those in tables have the same width.
ASCII = str.maketrans(
    dict(zip("µμ×Δ•·≈–—‘’“”─━│┃█╸╺╌═║", "uuxd**~--''\"\"--||#----|", strict=True))
    | dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼┏┓┗┛┡┩┢┪┠┨┯┷┿╇╈╉╊╋┳┻╞╡╪╤╧╔╗╚╝╠╣╦╩╬", "+")
    | {"±": "+/-", "…": "...", "°": "deg", "·": "-", "→": "->", "≤": "<=", "≥": ">=", "\N{NO-BREAK SPACE}": " "}
)
# What a CI runner takes for a command at the beginning of a line (github.com/actions/runner, ActionCommand.cs).
LINE_COMMAND = re.compile(r"(^|[\r\n])([^\S\r\n]*)::")
# The reader or the terminal of a stream is gone, so an error could not be shown anyway.
GONE = (errno.EPIPE, errno.EBADF, errno.EIO, errno.ECONNRESET, errno.ESHUTDOWN)


def printable(text: str, encoding: str | None) -> str:
    """`text` with every character that `encoding` lacks replaced by similar ASCII, or by an escape."""
    if encoding is None:
        return text
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(map(_encodable, text, [encoding] * len(text)))
    return text


def printable_json(document: str, encoding: str | None) -> str:
    """A JSON document without control characters and commands of a CI runner, which can only be in its strings.

    If `encoding` lacks any of its characters, all non-ASCII characters are escaped.
    """
    document = CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", INNER_COMMAND.sub(r"#\\u0023", document))
    try:
        document.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        escaped = document.encode("utf-16-be", "surrogatepass")
        units = (int.from_bytes(escaped[at : at + 2]) for at in range(0, len(escaped), 2))
        return "".join(chr(unit) if unit < 128 else f"\\u{unit:04x}" for unit in units)
    return document


def _encodable(character: str, encoding: str) -> str:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        instead = character.translate(ASCII)
        return instead if instead.isascii() else character.encode("ascii", "backslashreplace").decode()
    return character


class SafeStream:
    """A text stream whose `write` and `flush` do not raise; `error` is the first error that was not a missing reader.

    It prints no control character and no command of a CI runner, whatever a text holds: see `StyledStream` and
    `write_command` for what needs them. It has no `buffer`, because writing there would bypass it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._in_margin = True  # nothing but white space is on the line so far
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write `text`, with replacements for control characters and for those that the encoding lacks.

        On a terminal a carriage return stays, because libraries draw progress bars with it.
        """
        with self._guarded():
            parts = text.split("\r") if self._stream.isatty() else [text]
            self.write_styled("\r".join(map(escaped, parts)))
        return len(text)

    def write_styled(self, text: str) -> None:
        """Write `text`, which may have the styles and cursor movements of rich."""
        # A line that has other text already begins no command: a NUL stands for it.
        before = "" if self._in_margin else "\0"
        found = LINE_COMMAND.sub(r"\1\2\\::", before + text)
        self._in_margin = not re.split(r"[\r\n]", before + text)[-1].strip()
        self.write_command(found.removeprefix(before))

    def write_command(self, text: str) -> None:
        """Write `text`, which may be a command of a CI runner."""
        with self._guarded():
            self._stream.write(printable(text, self._stream.encoding))

    def writelines(self, lines: Any) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the buffer."""
        with self._guarded():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self._stream, name)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except ValueError:  # the file object is closed
            return
        except OSError as error:
            if error.errno not in GONE:
                self.error = self.error or error
            # Buffered text, and the output of libraries, goes to the null device.
            with suppress(OSError, ValueError):
                _redirect(self._stream.fileno())


class StyledStream:
    """stdout or stderr, by its `name`, as it is at each write, for text with styles that is clean otherwise."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def stream(self) -> Any:
        """The stream itself; a live display of rich puts one of its own in its place."""
        stream = getattr(sys, self._name)
        return getattr(stream, "rich_proxied_file", stream)

    def write(self, text: str) -> int:
        """Write `text`."""
        stream = self.stream
        (stream.write_styled if isinstance(stream, SafeStream) else stream.write)(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def write_command(line: str) -> None:
    """Write a command for a CI runner to stderr."""
    stream = sys.stderr
    (stream.write_command if isinstance(stream, SafeStream) else stream.write)(line + "\n")


class SafeStreams:
    """stdout and stderr of a command."""

    def __init__(self) -> None:
        self.out = SafeStream(sys.stdout)
        self.err = SafeStream(sys.stderr)

    def flush(self) -> OSError | None:
        """Flush both streams. Returns the error if a part of stdout could not be written, else None."""
        self.out.flush()
        self.err.flush()
        return self.out.error


@contextmanager
def safe_streams() -> Iterator[SafeStreams]:
    """Replace the standard streams by safe ones, and restore them at the end."""
    _open_closed()
    kept = sys.stdout, sys.stderr
    streams = SafeStreams()
    sys.stdout, sys.stderr = streams.out, streams.err  # type: ignore[assignment]
    try:
        yield streams
    finally:
        streams.flush()
        sys.stdout, sys.stderr = kept


def _open_closed() -> None:
    """Open the null device for closed descriptors 0, 1 and 2.

    Otherwise the next file that is opened gets such a number, and libraries print into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            _redirect(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123


def _redirect(number: int) -> None:
    """Redirect the file descriptor `number` to the null device, for this process and its children."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    os.set_inheritable(number, True)
