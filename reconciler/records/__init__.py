"""What Trueup remembers: jobs, sessions, audit, observations. Losing it loses history, never a site.

One module per table or two that change together; each class takes the engine and owns its transactions.
``jobs`` is the callers' side of the job store and ``queue`` the workers'; ``locks`` is the rule of who may run.
Clocks and new ids are arguments everywhere.
"""
