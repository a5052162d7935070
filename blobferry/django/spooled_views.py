"""Files that are still in the spool, for browsers: a URL that is signed and expires, as those of a store are."""

import mimetypes
import posixpath
from contextlib import suppress
from typing import Any, Final

from django.core import signing
from django.core.exceptions import ImproperlyConfigured
from django.http import FileResponse, Http404, HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch, reverse
from django.views.decorators.http import require_safe

from blobferry.contract import JobState
from blobferry.django.ferries import ferry
from blobferry.django.owned_files import spooled_path
from blobferry.errors import JobNotFoundError, UnreachableError
from blobferry.values import Job

SALT: Final = "blobferry.django.spooled"
_SHOWN: Final = ("audio/", "image/", "video/")  #: what a browser shows; all else it saves


def temporary_url(alias: str, job: Job, then: str | None, expiry: int) -> str:
    """The URL of the spooled file of a job, which leads to the store once the job has succeeded.

    Args:
        alias: of the job's database.
        job: that writes the file.
        then: its URL in the store; None: a signed one is asked for.
        expiry: seconds for which the URL is good.

    Raises ImproperlyConfigured if the project's URLs lack those of ``blobferry.django``.
    """
    token = signing.dumps([alias, job.id, then, expiry], salt=SALT)
    try:
        return str(reverse("blobferry:spooled", args=[token, posixpath.basename(job.path or "")]))
    except NoReverseMatch:
        line = 'path("files/", include("blobferry.django.urls"))'
        raise ImproperlyConfigured(f"files in the spool have no URL: add {line} to the project's urlpatterns") from None


@require_safe
def spooled_file(request: Any, token: str, name: str) -> Any:
    """The file as it is in the spool, or the way to the store. 404 for what was changed, is too old, or is gone."""
    alias, job_id, then = _checked(token)
    try:
        job = ferry.using(alias).get(job_id)
        local = spooled_path(job)
        if job.state != JobState.SUCCEEDED and local is not None:
            with suppress(FileNotFoundError):
                return _answer(open(local, "rb"), name)
            job = ferry.using(alias).get(job_id)  # it may have succeeded meanwhile
        if job.state != JobState.SUCCEEDED:
            raise Http404(f"job {job.id} is {job.state}, and its file is gone")
        return HttpResponseRedirect(then or ferry.using(alias).url_for(job.path or "", storage=job.storage))
    except JobNotFoundError as error:
        raise Http404(str(error)) from error
    except UnreachableError:
        return HttpResponse(status=503, headers={"Retry-After": "5"})


def _checked(token: str) -> tuple[str, str, str | None]:
    try:
        alias, job_id, then, expiry = signing.loads(token, salt=SALT)
        signing.loads(token, salt=SALT, max_age=expiry)
    except signing.BadSignature as error:
        raise Http404("the URL has expired, or was changed") from error
    return alias, job_id, then


def _answer(file: Any, name: str) -> FileResponse:
    """Uploads are strangers' files, so none may run a script on this site."""
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    is_shown = kind.startswith(_SHOWN)
    answer = FileResponse(file, as_attachment=not is_shown, filename=name, content_type=kind)
    answer["Content-Security-Policy"] = "sandbox; default-src 'none'; style-src 'unsafe-inline'"
    answer["X-Content-Type-Options"] = "nosniff"
    answer["Cache-Control"] = "private, no-cache"
    return answer
