"""Filters and pages of the admin's list of jobs, whose statements cost the same at a million rows.

Django's own filters ask for all values of a column, and its pages count all rows.
"""

from collections.abc import Iterable
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import BooleanField
from django.db.models.expressions import RawSQL
from django.utils import timezone

from blobferry.contract import OPERATIONS, JobState
from blobferry.sql.index_conditions import OF_STATE

MOST_COUNTED: Final = 10_000  #: rows; a list that has more says that it has one more
_TIMES: Final = {
    "1h": ("the last hour", timedelta(hours=1)),
    "1d": ("the last 24 hours", timedelta(days=1)),
    "7d": ("the last 7 days", timedelta(days=7)),
}


class BoundedPaginator(Paginator):
    """Counts to ``MOST_COUNTED`` and no further."""

    @cached_property
    def count(self) -> int:
        """The number of rows, or one more than ``MOST_COUNTED``."""
        return int(self.object_list.order_by().values("pk")[: MOST_COUNTED + 1].count())


class StateFilter(admin.SimpleListFilter):
    """By state. The condition is that of an index, word by word: a database does not know it behind a parameter."""

    title = parameter_name = "state"

    def lookups(self, request: Any, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [(str(state), str(state)) for state in JobState]

    def queryset(self, request: Any, queryset: Any) -> Any:
        condition = OF_STATE.get(self.value() or "")
        return queryset.filter(RawSQL(condition, (), output_field=BooleanField())) if condition else queryset


class OperationFilter(admin.SimpleListFilter):
    """By operation."""

    title = parameter_name = "operation"

    def lookups(self, request: Any, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [(name, name) for name in OPERATIONS]

    def queryset(self, request: Any, queryset: Any) -> Any:
        return queryset.filter(operation=self.value()) if self.value() else queryset


class SubmittedFilter(admin.SimpleListFilter):
    """By the time of submission."""

    title, parameter_name = "submitted", "submitted"

    def lookups(self, request: Any, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [(key, words) for key, (words, _) in _TIMES.items()]

    def queryset(self, request: Any, queryset: Any) -> Any:
        found = _TIMES.get(self.value() or "")
        return queryset.filter(created_at__gte=timezone.now() - found[1]) if found else queryset
