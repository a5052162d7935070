"""How it is done. The map of this package, from the top down; imports go downwards only.

__main__                                 python -m worker run | migrate | sweep | doctor
app, delivery, answering, supervisor     Celery: configuration; what a message means; the caretaker's keeper
runner | caretaker | doctor              a job's life; what keeps jobs moving when something is lost; what works here
ledger                                   aborts what was opened and given up
operations                               what each operation does when its job runs
runtime | lease | retry | drain
checkpoint
driver, reads                            storage operations on paths
transfer/                                bytes: plan, engine, sources, publishing calls. Knows no jobs
stores/                                  object stores. Know keys, no paths
settings | logs
parameters, errors, units
"""
