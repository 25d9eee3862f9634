"""Runs an ns2 program in real Tcl: a safe interpreter that knows the dialect's commands and nothing of the host.

    main interpreter ── owns ──► safe child: `set` that names objects, `new`, `source`, `puts`, tb-*, one command per object
                                      │ every one of them an alias
                                      ▼
                                 Python: simulator.call, tb_commands.call ──► Program

A safe interpreter has no files, sockets, processes or clock of its own; what could wait or make further interpreters is hidden as well.
Endless loops, memory and depth are bounded by the process that this runs in (`worker`), Tcl's own limits being no boundary
(an empty loop is never counted).
"""

from __future__ import annotations

import difflib
import posixpath
import re
import tkinter
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from fedkit.topology import addresses
from fedkit.topology.ns2 import simulator, tb_commands, units
from fedkit.topology.ns2.program import Enough, Program, Wrong

OUTPUT_LIMIT = 64 * 1024  # characters of what `puts` writes
RECURSION_LIMIT = 500
SOURCES_LIMIT = 16  # files deep
_HIDDEN = "after chan coroutine fblocked fcopy fileevent interp package pid update vwait yield yieldto zlib".split()  # noqa: SIM905
_ERROR = "1"  # TCL_ERROR, as `catch` tells it
_SOURCED = re.compile(r'\("uplevel" body line (\d+)\)\s+invoked from within\s+"uplevel #0 \$script"')
_PRELUDE = r"""
rename set ::fed_set
proc set {name args} {
    if {[llength $args] != 1} { return [uplevel 1 [list ::fed_set $name {*}$args]] }
    ::fed_set value [uplevel 1 [list ::fed_set $name [lindex $args 0]]]
    if {[string match _o* $value]} {
        if {[info level] == 1 || [string match ::* $name]
            || [lsearch -exact [uplevel 1 {info locals}] [lindex [split $name "("] 0]] < 0} {
            ::fed_named $value $name
        }
    }
    return $value
}
proc source {args} {
    ::fed_set script [::fed_source {*}$args]
    if {$script eq ""} { return "" }
    ::fed_set code [catch {uplevel #0 $script} result options]
    ::fed_sourced $code
    if {$code == 1} { return -options $options $result }
    return $result
}
"""


class Interpreter:
    """One run of one program; `files` are those sent along with it, by the name that `source` gives.

    `give_up` ends this process: a Tcl program that has gone too far cannot be stopped from within, it can catch every error.
    """

    def __init__(self, file: str, files: Mapping[str, str], give_up: Callable[[Program], NoReturn]) -> None:
        self.program = Program(self._where)
        self.output: list[str] = []
        self._written = 0
        self._file = file
        self._files = files
        self._stack: list[tuple[str, int]] = [(file, 0)]
        self._failed: str | None = None  # the innermost file sourced that the last error of Tcl itself came from
        self._give_up = give_up
        self._tcl = tkinter.Tcl()
        self._tcl.call("interp", "create", "-safe", "child")
        self._tcl.call("interp", "recursionlimit", "child", RECURSION_LIMIT)
        for name in _HIDDEN:
            self._tcl.call("interp", "hide", "child", name)
        self._tcl.call("child", "eval", _PRELUDE)
        self._expose("fed_named", self._named)
        self._expose("fed_source", self._source)
        self._expose("fed_sourced", self._sourced)
        self._expose("puts", self._puts)
        self._expose("new", lambda args: simulator.new(self.program, args))
        for name in tb_commands.NAMES:
            self._expose(name, self._tb_command(name))

    def run(self, text: str) -> None:
        """Run the whole program; what is wrong is in `program.errors` afterwards."""
        self._tcl.call("child", "eval", "::fed_set ::fed_program {}")
        self._tcl.call("child", "eval", ["::fed_set", "::fed_program", text])
        try:
            failed = self._tcl.call("child", "eval", "catch $::fed_program ::fed_message ::fed_details")
        except tkinter.TclError as error:
            self.program.error("ns2.limit", f"The program was stopped: {error}.")
            return
        if int(str(failed)) == 1:
            self._tcl_error()
        if not self.program.ran and not self.program.errors:
            self.program.error("ns2.no_run", "The program never says `$ns run`; add it as the last line.")

    def options(self) -> dict[str, str]:
        """The global array `opt`, whose values programs see."""
        listed = self._tcl.call("child", "eval", "array get ::opt")
        flat = [str(item) for item in self._tcl.splitlist(listed)]
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def _expose(self, name: str, function: object) -> None:
        """Make a Python function of a list of arguments a command of the child."""

        def call(*args: str) -> str:
            return self._guarded(function, args)

        self._tcl.createcommand(f"fed::{name}", call)
        self._tcl.call("interp", "alias", "child", name, "", f"fed::{name}")

    def _guarded(self, function: object, args: Sequence[str]) -> str:
        """What goes wrong in a command is noted, and the program goes on; what must stop it does."""
        try:
            try:
                return self._known(function(args) or "")  # type: ignore[operator]
            except Wrong as error:
                self.program.error(error.code, str(error))
            except units.BadUnit as error:
                self.program.error("ns2.bad_unit", str(error))
            except addresses.BadAddress as error:
                self.program.error("ns2.bad_address", error.message)
            return "" if function == self._source else self._known(simulator.swallow(self.program))
        except Enough:
            self._give_up(self.program)

    def _known(self, handle: str) -> str:
        """A handle that is returned for the first time becomes a command."""
        if handle in self.program.things and not self._is_command(handle):
            self._command(handle, handle)
        return handle

    def _is_command(self, name: str) -> bool:
        return bool(self._tcl.call("interp", "alias", "child", name))

    def _command(self, name: str, handle: str) -> None:
        self._expose(name, lambda args: self._method(handle, args))

    def _method(self, handle: str, args: Sequence[str]) -> str:
        if not args:
            raise Wrong("ns2.wrong_arguments", f"{self.program.things[handle].name} is called without a method.")
        return simulator.call(self.program, handle, args[0], args[1:])

    def _named(self, args: Sequence[str]) -> str:
        handle, variable = args
        name = self.program.named(handle, variable)
        exists = self._tcl.call("child", "eval", ["info", "commands", name]) if name else "?"
        if name and not exists:
            self._command(name, handle)
        return ""

    def _tb_command(self, name: str) -> object:
        return lambda args: tb_commands.call(self.program, name, args)

    def _puts(self, args: Sequence[str]) -> str:
        text = args[-1] if args else ""
        if self._written < OUTPUT_LIMIT:
            self.output.append(text[: OUTPUT_LIMIT - self._written])
        self._written += len(text) + 1
        return ""

    def _source(self, args: Sequence[str]) -> str:
        if len(args) != 1:
            raise Wrong("ns2.wrong_arguments", "source takes one argument, a file that was sent along.")
        name = posixpath.basename(args[0])
        if name == "tb_compat.tcl":
            return ""
        text = self._files.get(args[0], self._files.get(name))
        if text is None:
            raise Wrong("ns2.unknown_file", f"There is no file {args[0][:80]!r}; send it along with the program.")
        if not text:
            return ""
        if len(self._stack) > SOURCES_LIMIT:
            raise Wrong("ns2.too_deep", f"Files source one another more than {SOURCES_LIMIT} deep.")
        self._stack.append((name, self._depth() - 1))
        self._failed = None
        return text

    def _sourced(self, args: Sequence[str]) -> str:
        file, _base = self._stack.pop()
        if args[0] == _ERROR and self._failed is None:
            self._failed = file
        return ""

    def _depth(self) -> int:
        return int(str(self._tcl.call("child", "eval", "info frame")))

    def _where(self) -> tuple[str, int | None]:
        """The line being executed: that of the innermost command that still stands literally in the file."""
        file, base = self._stack[-1]
        line: int | None = None
        for level in range(base + 1, self._depth()):
            frame = self._tcl.call("child", "eval", f"info frame {level}")
            details = self._frame(frame)
            if details.get("type") != "eval":
                break
            here = int(details["line"])
            if details.get("cmd", "").startswith("catch $::fed_program"):
                continue
            if line is not None and here < line:
                break  # a string that was put together: its lines are not the file's
            line = here
        return file, line

    def _frame(self, frame: object) -> dict[str, str]:
        flat = [str(item) for item in self._tcl.splitlist(frame)]
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def _tcl_error(self) -> None:
        """An error of Tcl itself: undefined variable, unknown command, wrong syntax."""
        message = str(self._tcl.call("child", "eval", "::fed_set ::fed_message"))
        details = self._frame(self._tcl.call("child", "eval", "::fed_set ::fed_details"))
        code = "ns2.tcl_error"
        unknown = re.match(r'invalid command name "(.*)"', message, re.DOTALL)
        if unknown:
            code = "ns2.unknown_command"
            message = f"There is no command {unknown[1][:80]!r}{self._nearest(unknown[1])}"
        elif message.startswith("can't read"):
            code = "ns2.undefined"
        elif "out of memory" in message or "unable to alloc" in message:
            code = "ns2.limit"
        elif "too many nested" in message:
            code = "ns2.too_deep"
        first, info = int(details.get("-errorline", "1")), details.get("-errorinfo", "")
        file = self._file
        sourced = _SOURCED.search(info)
        if sourced and self._failed:
            file, first, info = self._failed, int(sourced[1]), info[: sourced.start()]
        line = _error_line(first, info)
        self.program.fail(file, line, code, message[:500])

    def _nearest(self, name: str) -> str:
        known = [str(item) for item in self._tcl.splitlist(self._tcl.call("child", "eval", "info commands"))]
        near = difflib.get_close_matches(name, [k for k in known if not k.startswith(("_o", "fed_"))], 1)
        return f"; did you mean {near[0]}?" if near else "."


def _error_line(first: int, info: str) -> int:
    """The line of an error within bodies of loops and branches: Tcl counts each from where it begins, outermost last."""
    line = first
    for what, number in reversed(
        re.findall(
            r'\((?:"([^"\n]*)" (?:body|then script|else script|test expression|arm|.*?)|procedure "[^"\n]*") line (\d+)\)',
            info,
        )
    ):
        if not what:
            break  # within a procedure: the call's own line is told
        line += int(number) - 1
    return line
