"""The list with its form, and how far the films in it are."""

from django import forms
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render

from films.models import Film


class UploadForm(forms.Form):
    """A file to be uploaded."""

    film = forms.FileField(max_length=200)


def index(request: HttpRequest) -> HttpResponse:
    """All films, and the form. A film's row and the job that stores its file exist both, or neither."""
    form = UploadForm(request.POST, request.FILES) if request.method == "POST" else UploadForm()
    if form.is_valid():
        file = form.cleaned_data["film"]
        with transaction.atomic():
            Film.objects.create(title=file.name, file=file)
        return redirect("index")
    films = Film.objects.all()[:100]
    return render(request, "films/index.html", {"form": form, "films": films}, status=422 if form.errors else 200)


def progress(request: HttpRequest) -> JsonResponse:
    """How far the films with these ids are."""
    numbers = [int(number) for number in request.GET.getlist("id") if number.isdecimal()][:100]
    views = {film.pk: film.file.view for film in Film.objects.filter(pk__in=numbers)}
    return JsonResponse({number: view.as_json() for number, view in views.items() if view is not None})
