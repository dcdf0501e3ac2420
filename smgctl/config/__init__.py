"""`smgctl config`: configurations, of a file and of a running gateway. A file a command."""

import typer

from smgctl.config import apply, check, hash_key, rollback, schema, show

app = typer.Typer(name="config", help="Check, show and change the configuration of a gateway.", no_args_is_help=True)
app.command("check", epilog=check.EPILOG)(check.check)
app.command("show", epilog=show.EPILOG)(show.show)
app.command("schema", epilog=schema.EPILOG)(schema.schema)
app.command("apply", epilog=apply.EPILOG)(apply.apply)
app.command("rollback", epilog=rollback.EPILOG)(rollback.rollback)
app.command("hash-key", epilog=hash_key.EPILOG)(hash_key.hash_key)
