"""One module for each `thaw <verb>`: `arguments(parser)` says what it takes, `run(given)` does it.

The others are what verbs share. They stand on everything else; nothing else imports them.
"""
