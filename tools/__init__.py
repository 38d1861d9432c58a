"""Functions *the model* may call; developer scripts live in the Makefile.

Writing one: `registry.tool` on a plain or async function; `context.ToolContext` is what a call knows about its run.
Finding them: `registry` loads every module of this folder and the ones that are named; `schema` makes a tool's JSON
schema from its signature and docstring; `errors` has the one error a wrong tool ends the start with.
Calling them: `execution` checks, limits and answers a call; it runs in a `pool` of threads, on the loop, or in a child
(`isolation` is the parent's side, `child` the other); `outcome` is what the model reads.
Shipped: `documents` (read one by name), `tables` (look up in a CSV), `arithmetic` (exact, without eval).
They stand on `folder` (names that stay inside the data folder), `extract` (files to text, by `readers/`) and `text`
(bytes to text).
"""
