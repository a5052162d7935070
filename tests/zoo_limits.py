"""What the stores of the zoo really cannot do: reason, profiles, and the tests that fail there and nowhere else.

With ``ZOO_PROFILE`` set, each of these tests runs all the same and has to fail: one that begins to pass must leave the
table, and one that fails without being in it fails the run. A test stands here by its name, for all its cases, or with
its case in brackets, where ``*`` is any text.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limit:
    """Why these profiles fail these tests."""

    reason: str
    profiles: tuple[str, ...]
    tests: tuple[str, ...]


_COMMIT: Final = "test_a_commit_call_whose_condition_does_not_hold_leaves_alone_what_is_there"
_DELETE: Final = "test_a_delete_with_an_etag_deletes_that_blob_only"
_REFUSED_COMPLETION: Final = "test_a_refused_completion_changes_nothing_and_the_upload_stays_open[moto-condition]"
_LATE_MOVE: Final = "test_without_overwrite_a_destination_that_appears_at_the_last_moment_stays"
_LATE_PUT: Final = "test_without_overwrite_a_put_leaves_what_appears_at_the_last_moment"
_LATE_WRITE: Final = "test_without_overwrite_a_blob_that_appears_at_the_last_moment_stays"
_LATE: Final = (_LATE_MOVE, _LATE_PUT, _LATE_WRITE)

LIMITS: Final = (
    Limit(
        "answers the PUT of a browser for the store; only a job looks whether its blob is there",
        ("nothing in 200",),
        ("test_a_url_for_put_takes_the_bytes_that_a_browser_sends",),
    ),
    Limit(
        "compares nothing, so the driver looks right before a commit call: a blob that appears after that is replaced",
        ("gcs-400", "gcs-501", "b2", "ceph, refusing", "ignoring"),
        _LATE,
    ),
    Limit(
        "compares nothing on copies and completions: a blob that appears after the driver's look is replaced",
        ("put only",),
        (_LATE_MOVE, f"{_LATE_WRITE}[complete_upload*]"),
    ),
    Limit(
        "takes a request as if it carried no condition",
        ("gcs-400", "ignoring"),
        (
            f"{_COMMIT}[moto-create where a blob is-put]",
            f"{_COMMIT}[moto-create where a blob is-completion]",
            f"{_COMMIT}[moto-replace a blob that is no longer there-put]",
            f"{_COMMIT}[moto-replace a blob where nothing is-put]",
            f"{_DELETE}[moto-wrong]",
            _REFUSED_COMPLETION,
        ),
    ),
    Limit(
        "answers 501 to every condition; the driver sends the request again without it",
        ("gcs-501", "b2"),
        (_COMMIT, _DELETE, _REFUSED_COMPLETION),
    ),
    Limit(
        "answers 501 to a condition on copy, completion and delete; the driver sends the request again without it",
        ("put only",),
        (f"{_COMMIT}[*-copy]", f"{_COMMIT}[*-completion]", _DELETE, _REFUSED_COMPLETION),
    ),
    Limit(
        "answers 412 to every condition, also to one that holds; after a look the driver does without it",
        ("ceph, refusing",),
        (
            f"{_COMMIT}[moto-create where nothing is-*]",
            f"{_COMMIT}[moto-create where a blob is-copy]",
            f"{_COMMIT}[moto-replace the blob that is there-*]",
            f"{_COMMIT}[moto-replace a blob that is no longer there-copy]",
            f"{_COMMIT}[moto-replace a blob that is no longer there-completion]",
            f"{_COMMIT}[moto-replace a blob where nothing is-copy]",
            f"{_COMMIT}[moto-replace a blob where nothing is-completion]",
            _DELETE,
        ),
    ),
    Limit(
        "answers 412 to an ETag in quotes, as it shows them; after a look the driver does without the condition",
        ("ceph, unquoted",),
        (
            f"{_COMMIT}[moto-replace the blob that is there-*]",
            f"{_COMMIT}[moto-replace a blob that is no longer there-copy]",
            f"{_COMMIT}[moto-replace a blob that is no longer there-completion]",
            f"{_COMMIT}[moto-replace a blob where nothing is-copy]",
            f"{_COMMIT}[moto-replace a blob where nothing is-completion]",
            _DELETE,
        ),
    ),
    Limit(
        "has no tags: blobs are written without them, and moved so if not by a copy of the store",
        ("r2", "b2"),
        (
            "test_tags_come_along[nothing-moto]",
            "test_tags_come_along[copied in parts-moto]",
            "test_tags_are_kept",
            "test_a_copy_carries_tags",
        ),
    ),
    Limit(
        "compares the sizes of parts first, and words its refusal of their list in its own way",
        ("r2",),
        (
            "test_parts_out_of_order_complete_nothing",
            "test_a_dead_upload_id_is_upload_not_found_to_every_verb_and_nothing_became_visible[moto-aborted]",
        ),
    ),
    Limit("takes 1,000 parts", ("scaleway",), ("test_part_numbers_are_1_to_10000",)),
    Limit(
        "does not list unfinished uploads",
        ("no listing of uploads",),
        ("test_unfinished_uploads_are_listed_by_prefix",),
    ),
    Limit(
        "leaves the times out of its listings",
        ("bare listings",),
        (
            "test_a_listing_tells_the_stores_clock",
            "test_head_and_a_listing_tell_size_and_time_in_utc",
            "test_unfinished_uploads_are_listed_by_prefix",
        ),
    ),
    Limit(
        "has ETags that are not in quotes or no MD5, which the test computes",
        ("unquoted etags", "etags of its own"),
        (
            "test_one_etag_is_told_by_put_head_and_listing_quotes_included",
            "test_the_etag_of_an_upload_is_made_of_its_parts_md5s",
            "test_parts_are_listed_by_number_as_their_receipts_say",
            "test_a_part_may_be_copied_out_of_another_key",
        ),
    ),
    Limit(
        "has ETags that are no MD5: not those that the test names in its conditions",
        ("etags of its own",),
        (f"{_COMMIT}[moto-replace the blob that is there-put]", f"{_DELETE}[moto-right]"),
    ),
    Limit(
        "shows neither a checksum nor an MD5: after a lost answer, nothing tells a plain call's blob from another of "
        "its size (jobs send a mark), and it is an error rather than a guess",
        ("etags of its own",),
        (
            "test_a_put_whose_answer_was_lost_is_a_success",
            "test_a_publishing_call_whose_answer_was_lost_is_a_success",
            "test_an_answer_that_was_lost_does_not_fail_a_move[moto-('complete_upload', 4109)]",
        ),
    ),
    Limit(
        "drops what a copy carries; the driver then moves in parts",
        ("forgetful copies",),
        (
            "test_a_copy_carries_bytes_type_metadata_and_headers_and_replaces_what_is_there",
            "test_options_given_to_a_copy_replace_those_of_the_source",
            "test_a_copy_onto_itself_without_a_change_is_refused_and_loses_nothing",
        ),
    ),
    Limit(
        "shows times that are seven minutes ahead",
        ("wrong clock",),
        ("test_a_time_is_aware_and_utc_and_about_now", "test_head_and_a_listing_tell_size_and_time_in_utc"),
    ),
)


def limit_of(profile: str, test: str) -> str | None:
    """Why the profile fails the test, which is named with its case in brackets; None: it has to pass."""
    reasons = (limit.reason for limit in LIMITS if profile in limit.profiles and _names(limit.tests, test))
    return next(reasons, None)


def _names(patterns: Iterable[str], test: str) -> bool:
    name = test.partition("[")[0]
    return any(pattern == name or _pattern(pattern).fullmatch(test) for pattern in patterns)


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(piece) for piece in text.split("*")))
