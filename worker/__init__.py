"""How it is done. The map of this package, from the top down; imports go downwards only.

__main__                                 python -m worker run | migrate | sweep | doctor
app
delivery, answering                      what a message means: of a job; of a read
supervisor, consuming, results          Celery's parent: the caretaker's keeper; a broker that is away
revoking, received                       what it hears, and what it shows of tasks
runner | caretaker | doctor              a job's life; what keeps jobs moving when something is lost; what works here
ledger | nudging | arrival               aborts what was given up; sends the next-best messages; rows of bare tasks
operations                               what each operation does when its job runs
runtime | retry | drain
holding | checkpoint                     the paths that a job needs for itself; what a run must not forget
lease | driver, reads                    a run's right to work and to write; storage operations on paths
transfer/                                bytes: plan, engine, sources, publishing calls. Knows no jobs
stores/                                  object stores. Know keys, no paths
family, identity | settings | logs       the processes of a worker, and their names
parameters, errors, units
"""
