"""Standard streams that cannot make a command fail: closed, broken or full streams, and limited encodings.

A closed stream is replaced by the null device. If the reader of a pipe exits, the rest of the output is dropped. Only a
result that could not be written to stdout, for example to a full disk, is an error, reported at the end of the command.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

# Replacements in ASCII for characters that an encoding may lack; those in tables have the same width.
ASCII = str.maketrans(
    dict(zip("µμ×Δ•≈–—‘’“”─━│┃█╸╺╌═║", "uuxd*~--''\"\"--||#----|", strict=True))
    | dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼┏┓┗┛┡┩┢┪┠┨┯┷┿╇╈╉╊╋┳┻╞╡╪╤╧╔╗╚╝╠╣╦╩╬", "+")
    | {"±": "+/-", "…": "...", "°": "deg", "→": "->", "≤": "<=", "≥": ">=", "\N{NO-BREAK SPACE}": " "}
)
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
    """A JSON document; if `encoding` lacks any of its characters, with all non-ASCII characters escaped."""
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

    It has no `buffer`, because writing there would bypass it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write `text`, with replacements for the characters that the encoding lacks."""
        with self._guarded():
            self._stream.write(printable(text, self._stream.encoding))
        return len(text)

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
