"""What may be shown: no user part, no signature, no contents, whatever the URL looks like."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from blobferry.redaction import MAX_FOREIGN, cleaned, redacted, redacted_arguments, short_repr


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:///srv/a@2x b/ä.mp4", "file:///srv/a@2x b/ä.mp4"),
        ("blob://archive/a/b", "blob://archive/a/b"),
        ("https://host:8443/a@2x/b", "https://host:8443/a@2x/b"),
        ("https://[::1]/a", "https://[::1]/a"),
        ("https://user:pass@host/a", "https://***@host/a"),
        ("https://token@host", "https://***@host"),
        ("https://host/a?X-Amz-Signature=abc&X-Amz-Date=1", "https://host/a?X-Amz-Signature=***&X-Amz-Date=***"),
        ("https://host/a?token", "https://host/a?***"),
        ("https://host/a?a=b=c&&d", "https://host/a?a=***&&***"),
        ("https://host/a?", "https://host/a?"),
        ("https://host/a?b=c#d?e", "https://host/a?b=***#***"),
        ("https://host/a#access_token=b", "https://host/a#***"),
        ("http://user:pa/ss@host/a", "http://***"),
        ("http://user:pa?ss@host/a", "http://***"),
        ("http:///user:pass@host/a", "http://***"),
        ("http:user:pass@host/a", "http:***@host/a"),
        ("user:pass@host/a", "user:***@host/a"),
        ("/srv/a", "/srv/a"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, expected: str) -> None:
    assert redacted(url) == expected
    assert redacted(expected) == expected


@given(st.text(max_size=30))
def test_any_text_can_be_shown_and_shown_again(text: str) -> None:
    assert redacted(redacted(text)) == redacted(text)


_WORD = st.text(st.characters(exclude_characters="/?#@", codec="utf-8"), max_size=6)


@given(st.sampled_from(["http", "https", "ftp", "s3", "file"]), _WORD, _WORD, _WORD, _WORD)
@example("http", "user:", "", "", "")
def test_a_secret_is_never_shown(scheme: str, before: str, after: str, name: str, path: str) -> None:
    url = f"{scheme}://{before}S3CRET{after}@host/{path}?{name}=S3CRET&S3CRET#S3CRET"
    assert "S3CRET" not in redacted(url)


def test_arguments_are_shown_without_contents_and_secrets() -> None:
    assert redacted_arguments({"path": "/a", "contents": {"base64": "AAA="}}) == {"path": "/a", "contents": "<2 bytes>"}
    assert redacted_arguments({"source": "http://u:p@h/?a=b"}) == {"source": "http://***@h/?a=***"}
    assert redacted_arguments({"paths": ["/a", "/b"]}) == {"paths": ["/a", "/b"]}
    assert redacted_arguments({"paths": ["/a"] * 1000}) == {"paths": ["/a", "/a", "/a", "… 1000 in all"]}
    assert redacted_arguments({"source": None, "contents": "?"}) == {"source": None, "contents": "?"}  # nobody's form


def test_a_value_is_shown_however_odd_it_is() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("odd")

    assert short_repr("a") == "'a'"
    assert len(short_repr("a" * 1000)) == 200
    assert (short_repr(10**5000), short_repr(Odd())) == ("<int>", "<Odd>")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Not\0Found", "Not\\x00Found"),
        ("a\ud800b", "a\\ud800b"),
        ("a\udcffb", "a\\udcffb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("one\r\ntwo\ttab", "one\\r\\ntwo\\ttab"),
        ("right\u202eleft", "right\\u202eleft"),
        ("plain ä 漢 'quoted'", "plain ä 漢 'quoted'"),
    ],
)
def test_text_of_others_is_cleaned(text: str, shown: str) -> None:
    assert cleaned(text) == shown


def test_text_of_others_is_short() -> None:
    assert cleaned("x" * MAX_FOREIGN) == "x" * MAX_FOREIGN
    for text in ("x" * (MAX_FOREIGN + 1), "\0" * MAX_FOREIGN, "y" * 10**7):
        assert len(cleaned(text)) == MAX_FOREIGN
        assert cleaned(text).endswith("…")
