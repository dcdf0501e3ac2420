"""`smgctl sim`: simulated parts of a deployment, to try a gateway without accelerators."""

import typer

from smgctl.sim import engine

app = typer.Typer(name="sim", help="Run simulated engines, to try a gateway without accelerators.", no_args_is_help=True)
app.command("engine", epilog=engine.EPILOG)(engine.engine)


@app.callback()
def group() -> None:
    """Run simulated engines, to try a gateway without accelerators."""
