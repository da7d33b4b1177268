"""The command line explains itself."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from auditship.cli import COMMANDS, cli


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["token", "new"]], ids=" ".join)
def test_every_command_has_help_whose_examples_are_lines_of_their_own(command: list[str]) -> None:
    done = CliRunner().invoke(cli, [*command, "--help"])
    assert done.exit_code == 0
    assert "\\b" not in done.output
    examples = [line for line in done.output.splitlines() if line.startswith("  ") and " auditship " in line]
    assert examples or command == ["token"]
