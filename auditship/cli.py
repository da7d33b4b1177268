"""The command line: one program, whose commands live where their work is done and are imported only when called.

An :class:`~auditship.errors.AuditshipError` ends the program with its own exit code and is printed without a traceback;
anything else is a defect and shows one. Exit codes: 0 done, 1 found something wrong, 2 wrong usage or configuration.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from importlib import import_module
from typing import Final, NoReturn

import click

from auditship import __version__
from auditship.errors import AuditshipError

COMMANDS: Final = {
    "agent": ("agent.command:agent", "Tail audit logs and ship them to an indexer."),
    "alerts": ("indexer.commands.alerts:alerts", "Tell people of critical events and detections."),
    "demo": ("auditship.demo:demo", "See it all at work on this machine: gateways, agent, indexer, store."),
    "export": ("indexer.commands.export:export", "Write what the store holds to a file or to standard output."),
    "indexer": ("indexer.commands.indexer:indexer", "Receive, enrich and store what agents ship."),
    "lint": ("auditship.lint:lint", "Check log files line by line, before a gateway ships."),
    "pseudonym": ("indexer.commands.pseudonym:pseudonym", "Say under which pseudonym a person or a value is kept."),
    "retention": ("indexer.commands.retention:retention", "Say how long whose documents are kept, and why."),
    "rules": ("indexer.commands.rules:rules", "Detections: list them, run their samples, run them over the store."),
    "search": ("indexer.commands.search:search", "Find events."),
    "setup": ("indexer.commands.setup:setup", "Install templates, policies, roles and keys in Elasticsearch."),
    "severity": ("indexer.commands.severity:severity", "Show by which rules an organisation's events are judged."),
    "status": ("indexer.commands.status:status", "Show agents, their lag, rejected lines and gaps."),
    "tail": ("indexer.commands.tail:tail", "Follow new events."),
    "token": ("indexer.commands.token:token", "Make a token for an agent."),
}
"""Each command's place, and its one line of help (told here so that ``--help`` imports none of them)."""


class _Commands(click.Group):
    """Commands that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        try:
            command = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] in {"auditship", "agent", "indexer"}:
                raise
            raise click.ClickException(
                f"`auditship {cmd_name}` needs {error.name}, which is not installed: pip install 'auditship[indexer]'"
            ) from None
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        assert isinstance(command, click.Command)
        return _with_examples(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _with_examples(command: click.Command) -> click.Command:
    """The command, in whose help examples stay lines: docstrings are raw, and click's mark for them is a backspace."""
    command.help = command.help and command.help.replace("\\b\n", "\b\n")
    for each in command.commands.values() if isinstance(command, click.Group) else ():
        _with_examples(each)
    return command


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="auditship")
def cli() -> None:
    r"""The record of who did what in an organisation.

    \b
    Try it:           auditship demo
    On a gateway:     auditship agent --config /etc/auditship/agent.toml
    On the indexer:   auditship indexer --config /etc/auditship/indexer.toml
    Tell people:      auditship alerts --config /etc/auditship/alerts.toml
    Find something:   auditship search 'audit.severity:critical' --since 24h
    """


_with_examples(cli)


def main() -> None:
    """The console script."""
    gc.disable()  # until the command is imported: that is no garbage, and looking for some takes a third of the start
    try:
        try:
            cli.main()
        except SystemExit:
            _flush()
            raise
    except AuditshipError as error:
        click.echo(f"error: {error}", err=True)
        _end(error.exit_code)
    except BrokenPipeError:  # the reader of our output has gone: not our error, and nothing can be told to it
        _end(1)
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        click.echo(f"error: standard output: {error.strerror}", err=True)
        _end(1)


def _flush() -> None:
    if sys.stdout is not None:  # it was closed
        sys.stdout.flush()


def _end(status: int) -> NoReturn:
    """Ends; what could not be written to standard output, if anything, is not tried again."""
    try:
        _flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


if __name__ == "__main__":
    main()
