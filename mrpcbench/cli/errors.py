"""Turns the exception of any command into one line on stderr and an exit code."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from traceback import print_exc
from typing import TYPE_CHECKING, Any

import typer

from mrpcbench.cli.help import PanelGroup
from mrpcbench.cli.streams import StyledStream, safe_streams, write_command
from mrpcbench.display.escapes import one_line
from mrpcbench.environment.variables import blamed_variable, is_first_process
from mrpcbench.errors import (
    ExitStatus,
    InterruptedRunError,
    MrpcbenchError,
    ReportedError,
    UsageError,
    first_line,
)
from mrpcbench.progress import Detail

if TYPE_CHECKING:
    from mrpcbench.cli.terminal import Terminal
    from mrpcbench.schema.gate_requests import Publish
    from mrpcbench.schema.verdicts import Comparison


class Invocation:
    """One run of the program: its global options, and its terminal, which is created when a command needs it."""

    def __init__(self) -> None:
        self.detail: Detail = "normal"
        self.traceback = False
        self.command = ""
        self._publish: Publish | None = None
        self._terminal: Terminal | None = None

    @property
    def terminal(self) -> "Terminal":
        """Shows progress and results."""
        if self._terminal is None:
            from mrpcbench.cli.terminal import Terminal

            self._terminal = Terminal(self.detail)
        return self._terminal

    def publish_to(self, request: "Publish") -> None:
        """Write the verdict, or the error that takes its place, where `request` says; `UsageError` if it is invalid."""
        from mrpcbench.display.ci import check_publish

        check_publish(request)
        self._publish = request

    def publish(self, found: "Comparison") -> None:
        """Write the verdict to the files of `publish_to`, and for GitHub Actions."""
        from mrpcbench.display.ci import publish

        if self._publish:
            self.terminal.annotate(publish(found, self._publish, os.environ))

    def _publish_error(self, message: str, status: ExitStatus) -> None:
        if self._publish is None and os.environ.get("GITHUB_ACTIONS") != "true":
            return
        with suppress(Exception):  # a failure to publish the error must not hide it
            from mrpcbench.display.ci import publish_error
            from mrpcbench.schema.gate_requests import Publish

            for line in publish_error(self.command, message, status, self._publish or Publish(), os.environ):
                write_command(line)

    def close(self) -> None:
        """Restore the terminal."""
        if self._terminal is not None:
            self._terminal.close()

    def report(self, error: BaseException) -> ExitStatus:
        """Show `error` as one line on stderr, and return its exit code.

        If a run was interrupted, its finished part is shown first.
        """
        if self.traceback:
            print_exc()
        # All processes of a launch have the same command line, so one of them says what is wrong with it.
        if isinstance(error, ReportedError) or (isinstance(error, typer.TyperException) and not is_first_process()):
            return ExitStatus(getattr(error, "status", ExitStatus.USAGE))
        if isinstance(error, InterruptedRunError) and error.record is not None:
            with suppress(Exception):  # a failure to show the record must not hide the error
                self.terminal.partial(error.record, error.view)
        self.close()
        own = isinstance(error, typer.TyperException | KeyboardInterrupt | InterruptedRunError)
        variable = None if own else blamed_variable(error, os.environ)
        message, status = (variable, ExitStatus.USAGE) if variable else _explain(error)
        # A set NO_COLOR takes the colour (no-color.org), and leaves the weight, as in rich.
        label = typer.style("error:", fg=None if os.environ.get("NO_COLOR") else typer.colors.RED, bold=True)
        typer.echo(f"{label} {one_line(message)}", file=StyledStream("stderr"))  # type: ignore[arg-type]
        self._publish_error(message, status)
        return status


class CommandLine(PanelGroup):
    """The root command. The `obj` of its context is the `Invocation`."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and exit with its exit code; unless `standalone_mode`, return or raise instead."""
        invocation = Invocation()
        args = sys.argv[1:] if args is None else list(args)
        if not standalone_mode:
            _check_arguments(args)
            return super().main(args, prog_name, complete_var, False, windows_expand_args, obj=invocation, **extra)
        with safe_streams() as streams:
            try:
                _check_arguments(args)
                status = super().main(
                    args, prog_name, complete_var, False, windows_expand_args, obj=invocation, **extra
                )
            except SystemExit:
                raise
            except BaseException as error:
                status = invocation.report(error)
            finally:
                invocation.close()
            if problem := streams.flush():
                unwritten = invocation.report(OSError(problem.errno, problem.strerror, "standard output"))
                status = status or unwritten
        sys.exit(status or ExitStatus.OK)

    def invoke(self, ctx: Any) -> Any:
        """Run a command. Without this, Typer exits silently on an interrupt."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise InterruptedRunError("interrupted") from None


def _check_arguments(arguments: Sequence[str]) -> None:
    """Raise `UsageError` for an argument that is not text; Python has stand-ins for the bytes that it cannot decode."""
    for previous, argument in zip(("", *arguments), arguments, strict=False):
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(argument).decode("utf-8", "backslashreplace")
            shown = f"{previous} {shown}" if previous.startswith("-") else shown
            if _is_utf8(os.fsencode(argument)):
                remedy = f"text that {sys.getfilesystemencoding()} lacks; set PYTHONUTF8=1 or a UTF-8 locale"
            else:
                remedy = "bytes that are not UTF-8; rename the file, or convert the text to UTF-8"
            raise UsageError(f"{shown}: {remedy}") from None


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


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
        case _ if type(error).__name__ == "OutOfMemoryError":  # of torch, which takes a second to import
            return f"out of GPU memory; use a smaller --batch-size ({first_line(error)})", ExitStatus.FAILED
        case _:
            return _explain_unexpected(error)


def _explain_unexpected(error: BaseException) -> tuple[str, ExitStatus]:
    """As `_explain`, for an error that no case describes: a package is not installed, or there is a bug."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if package not in sys.modules and find_spec(package) is None:
            needed = f"the Python package {package!r} is missing, which this command needs"
            return f"{needed}; install mrpcbench without --no-deps", ExitStatus.MISSING
    text = f"internal error: {type(error).__name__}: {error} (`mrpcbench --traceback` shows where)"
    return text, ExitStatus.FAILED
