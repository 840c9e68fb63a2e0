"""``shardctl``: the operator's hand on a cluster, one file per verb.

Exit codes, for scripts: 0 all is well · 1 something was found that needs you (``status``, ``doctor``) · 2 the command
line is wrong · 3 the catalog or a node can't be reached, or refused the password · 4 refused: the cluster's state or
the arguments don't allow it.
"""

from shardlib.cli.group import main

__all__ = ["main"]
