"""The one place where an exception of any command becomes a line on stderr and an exit code."""

import sys
from collections.abc import Sequence
from traceback import print_exc
from typing import TYPE_CHECKING, Any

import typer

from mrpcbench.cli.help import PanelGroup
from mrpcbench.errors import ExitStatus, InterruptedRunError, MrpcbenchError, first_line
from mrpcbench.progress import Detail

if TYPE_CHECKING:
    from mrpcbench.cli.terminal import Terminal


class Invocation:
    """One call of the command line: its global options, and its terminal, which is loaded when a command needs it."""

    def __init__(self) -> None:
        self.detail: Detail = "normal"
        self.traceback = False
        self._terminal: Terminal | None = None

    @property
    def terminal(self) -> "Terminal":
        """What shows progress and results."""
        if self._terminal is None:
            from mrpcbench.cli.terminal import Terminal

            self._terminal = Terminal(self.detail)
        return self._terminal

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._terminal is not None:
            self._terminal.close()

    def failed(self, error: BaseException) -> ExitStatus:
        """Show `error` as one line on stderr, after the finished part of an interrupted run; the exit code for it."""
        if self.traceback:
            print_exc()
        if isinstance(error, InterruptedRunError) and error.record is not None:
            self.terminal.partial(error.record, error.view)
        self.close()
        message, status = _explain(error)
        label = typer.style("error:", fg=typer.colors.RED, bold=True)
        typer.echo(f"{label} {' '.join(message.split())}", err=True)
        return status


class Funnel(PanelGroup):
    """The whole command line. Its context's `obj` is the `Invocation`."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and exit with its exit code, or in the other mode return it or raise."""
        invocation = Invocation()
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, windows_expand_args, obj=invocation, **extra)
        try:
            status = super().main(args, prog_name, complete_var, False, windows_expand_args, obj=invocation, **extra)
        except SystemExit:
            raise
        except BaseException as error:
            status = invocation.failed(error)
        finally:
            invocation.close()
        sys.exit(status or ExitStatus.OK)

    def invoke(self, ctx: Any) -> Any:
        """Run a command. Typer would turn an interrupt into an exit without a word."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise InterruptedRunError("interrupted") from None


def _explain(error: BaseException) -> tuple[str, ExitStatus]:
    """One line that says what went wrong, and the exit code for it."""
    match error:
        case MrpcbenchError():
            return str(error), error.status
        case typer.TyperException():
            context = getattr(error, "ctx", None)
            see = f" (see `{context.command_path} --help`)" if context else ""
            return f"{error.format_message().rstrip('.')}{see}", ExitStatus(error.exit_code)
        case KeyboardInterrupt():
            return "interrupted", ExitStatus.INTERRUPTED
        case OSError():
            return f"{error.filename or 'input or output'}: {error.strerror or error}", ExitStatus.FAILED
        case _ if type(error).__name__ == "OutOfMemoryError":  # torch's; importing torch to name it would take a second
            return f"out of GPU memory; use a smaller --batch-size ({first_line(error)})", ExitStatus.FAILED
        case _:  # whatever is left is a bug, and is called one
            text = f"internal error: {type(error).__name__}: {error} (`mrpcbench --traceback` shows where)"
            return text, ExitStatus.FAILED
