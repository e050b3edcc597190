"""Standard streams that cannot make a command fail: closed, broken or full ones, and encodings that lack characters.

A stream that the caller closed is the null device. Who reads may go away: what follows is dropped. Only a result that
could not be written to stdout, for example because the disk is full, is an error, and the command says so at its end.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

# What an encoding may lack, with ASCII to read instead: of one character where a table would lose its columns.
ASCII = str.maketrans(
    dict(zip("µμ×Δ•≈–—‘’“”─━│┃█╸╺╌═║", "uuxd*~--''\"\"--||#----|", strict=True))
    | dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼┏┓┗┛┡┩┢┪┠┨┯┷┿╇╈╉╊╋┳┻╞╡╪╤╧╔╗╚╝╠╣╦╩╬", "+")
    | {"±": "+/-", "…": "...", "°": "deg", "→": "->", "≤": "<=", "≥": ">=", "\N{NO-BREAK SPACE}": " "}
)
# The reader of a stream has gone, or its terminal has: nobody is left to be told.
GONE = (errno.EPIPE, errno.EBADF, errno.EIO, errno.ECONNRESET, errno.ESHUTDOWN)


def printable(text: str, encoding: str | None) -> str:
    """`text` with a replacement for every character that `encoding` lacks: ASCII that looks like it, or an escape."""
    if encoding is None:
        return text
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(map(_known, text, [encoding] * len(text)))
    return text


def printable_json(document: str, encoding: str | None) -> str:
    """A JSON document with escapes for all characters beyond ASCII, if `encoding` lacks one of them."""
    try:
        document.encode(encoding or "utf-8")
    except UnicodeEncodeError:
        escaped = document.encode("utf-16-be", "surrogatepass")
        units = (int.from_bytes(escaped[at : at + 2]) for at in range(0, len(escaped), 2))
        return "".join(chr(unit) if unit < 128 else f"\\u{unit:04x}" for unit in units)
    return document


def _known(character: str, encoding: str) -> str:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        instead = character.translate(ASCII)
        return instead if instead.isascii() else character.encode("ascii", "backslashreplace").decode()
    return character


class SafeStream:
    """A text stream whose `write` and `flush` do not raise; `error` is why a write failed although someone reads.

    It has no `buffer`, because what is written there would pass it by.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write `text`, with replacements for what the encoding lacks."""
        with self._guarded():
            self._stream.write(printable(text, self._stream.encoding))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is buffered."""
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
        except ValueError:  # a file object that was closed
            return
        except OSError as error:
            if error.errno not in GONE:
                self.error = self.error or error
            # What is still buffered, and what libraries print themselves, goes to the null device.
            with suppress(OSError, ValueError):
                _redirect(self._stream.fileno())


class SafeStreams:
    """stdout and stderr of a command."""

    def __init__(self) -> None:
        self.out = SafeStream(sys.stdout)
        self.err = SafeStream(sys.stderr)

    def flush(self) -> OSError | None:
        """Write what is buffered; why some of stdout could not be written, or None."""
        self.out.flush()
        self.err.flush()
        return self.out.error


@contextmanager
def safe_streams() -> Iterator[SafeStreams]:
    """Put safe streams in place of the standard ones, which come back at the end."""
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
    """Have a stream behind 0, 1 and 2: or the next file that is opened gets that number, and what libraries print."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            _redirect(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123


def _redirect(number: int) -> None:
    """Put the null device behind the file descriptor `number`, for this process and those that it starts."""
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    os.set_inheritable(number, True)
