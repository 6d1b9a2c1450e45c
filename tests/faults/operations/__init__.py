"""The public operations that faults are put into, each with a look at what it made.

An operation is a generator: up to its first ``yield`` it prepares; what it yields is the function that faults are put
into.  The function checks its own result by ``expect``: one that returns has to have done all.  Whether it returned is
sent to the generator, which may look further, and puts back what the next run needs before it yields again.
"""

from __future__ import annotations

from . import blocks, functions, handles, held, looking, loops, naming, programs
from .naming import check_names, names
from .registry import LIVES_ON, ORPHANS, REGISTERED, TOLERANT, WITHOUT_PROC, Body, Operation, make

__all__ = [
    "LIVES_ON",
    "OPERATIONS",
    "ORPHANS",
    "TOLERANT",
    "WITHOUT_PROC",
    "Body",
    "Operation",
    "check_names",
    "make",
    "names",
]

THEMES = blocks, handles, programs, functions, loops, held, naming, looking
# In this order, whichever was imported first.
OPERATIONS = {name: REGISTERED[name] for theme in THEMES for name in vars(theme) if name in REGISTERED}
