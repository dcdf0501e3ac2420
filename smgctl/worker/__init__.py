"""`smgctl worker`: the workers of a running gateway. A file a command."""

import typer

from smgctl.worker import add, drain, list, remove, show

app = typer.Typer(name="worker", help="List, add and remove the workers of a running gateway.", no_args_is_help=True)
app.command("list", epilog=list.EPILOG)(list.list_workers)
app.command("show", epilog=show.EPILOG)(show.show)
app.command("add", epilog=add.EPILOG)(add.add)
app.command("drain", epilog=drain.EPILOG)(drain.drain)
app.command("remove", epilog=remove.EPILOG)(remove.remove)
