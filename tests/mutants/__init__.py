"""Small changes to the source, one at a time, that some test must notice.

    python -m tests.mutants N=200 SEED=0 WORKERS=1 fusion/moments infra/dispatch

Every change is made in memory, in a forked process that runs the tests known to execute the changed line, the quickest
first, until one fails. Survivors are printed. Those that no test can notice, because they change nothing that can be
observed, are listed in ``equivalent.yaml`` with the reason.
"""
