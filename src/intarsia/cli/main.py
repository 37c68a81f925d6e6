"""`intarsia`: finds the command, and turns every deliberate exception into one clear line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import warnings

import click

from intarsia import __version__
from intarsia.errors import IntarsiaError
from intarsia.registry import did_you_mean

COMMANDS = {
    "demo": "Train on real images that come along, and look at the result: two minutes.",
    "train": "Train on a folder of images and masks.",
    "evaluate": "Score a run on its test images and write the report.",
    "compare": "Put scores of runs side by side, with intervals and paired differences.",
    "predict": "Segment images with a trained model.",
    "export": "Write a trained model for other programs, and prove that it computes the same.",
    "data": "Check, mend, list and download data, or look at them.",
    "anatomy": "Say what a model sees, costs and holds in memory, before it is trained.",
    "list": "List what can be named: models, losses, recipes, encoders, data, weights.",
    "show": "Print a recipe with every setting and its help.",
    "doctor": "Say what this installation can do, and what to install for the rest.",
}


class LazyGroup(click.Group):
    """Knows its commands by name and line of help; imports one only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"intarsia.cli.{name}_command").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            hint = did_you_mean(args[0], COMMANDS)
            raise click.UsageError(f"there is no command {args[0]!r}.{hint} `intarsia --help` lists them.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="intarsia %(version)s")
def group() -> None:
    """Semantic segmentation: from a folder of images to a model one can look at.

    \b
    intarsia demo                         see the whole path on real images
    intarsia train FOLDER                 a model of your own; train.minutes=10 bounds it
    intarsia predict RUN IMAGES --out DIR
    """


def main() -> None:
    """Entry point of the console script."""
    if not os.environ.get("INTARSIA_DEBUG"):
        warnings.simplefilter("ignore")
    # Threads that wait for each other spin, and on a busy machine steal the core of the one they wait for. A shorter spin
    # costs nothing on a quiet machine and halves the time on a busy one (benchmarks/busy_machine.py).
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        code = group.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except IntarsiaError as error:
        fail(str(error), error.exit_code)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        where = f" `{context.command_path} --help` tells more." if context and context.parent else ""
        fail(error.format_message() + where, error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        fail("stopped", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if os.environ.get("INTARSIA_DEBUG"):
            raise
        fail(f"unexpected: {type(error).__name__}: {error}\nINTARSIA_DEBUG=1 shows where; please report it.", 1)


def fail(message: str, code: int) -> None:
    """Print a message to standard error and leave."""
    click.echo(message, err=True)
    sys.exit(code)
