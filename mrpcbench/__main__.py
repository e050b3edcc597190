"""`python -m mrpcbench` is `mrpcbench`."""

import signal
import sys


def main() -> None:
    """Run the command line. A failure before its error handling is loaded is one line on stderr too.

    SIGTERM, with which schedulers and containers end a process, ends it like Ctrl-C.
    """
    if sys.flags.optimize > 1:
        _end("PYTHONOPTIMIZE=2 and python -OO remove docstrings, which transformers reads; use PYTHONOPTIMIZE=1", 2)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        try:
            from mrpcbench.cli.app import app
        except Exception as error:
            _end(f"mrpcbench cannot start ({type(error).__name__}: {error}); install it again", 1)
        app(prog_name="mrpcbench")
    except KeyboardInterrupt:  # before or after the command's own error handling
        _end("interrupted", 130)


def _end(message: str, status: int) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"error: {' '.join(message.split())}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
