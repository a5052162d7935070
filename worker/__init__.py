"""The worker. docs/architecture.md has the map; import-linter checks that imports go downwards."""

from worker.neighbours import refuse_strangers

refuse_strangers()
