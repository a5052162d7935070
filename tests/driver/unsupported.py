"""What a store cannot honour, by the name of the test and with the reason. Nothing else is skipped or expected to fail.

Each of these tests runs all the same, and fails: one that begins to pass must leave the table.
"""

from collections.abc import Mapping
from typing import Final

NO_TAGS = "Swift answers 501 to tags, and has one storage class"
WITH_TAGS = ("test_tags_and_the_storage_class_come_along", "test_a_write_at_an_offset_keeps_tags")
UNCONDITIONAL_WRITES = "Swift answers 501 to If-Match on put and complete"
UNCONDITIONAL_COMPLETION = "moto ignores If-Match on completion"
UNCONDITIONAL_COPIES = "moto ignores If-Match, If-None-Match and x-amz-copy-source-if-match on copies"

UNSUPPORTED: Final[Mapping[tuple[str, str], str]] = {
    ("moto", "test_credentials_that_are_refused_are_no_missing_path"): "moto takes any signature",
    ("moto", "test_a_url_for_get_does_not_allow_head"): "moto takes any signature",
    ("moto", "test_a_source_replaced_before_the_copy_is_an_error_and_both_stay"): UNCONDITIONAL_COPIES,
    ("moto", "test_a_blob_replaced_right_before_completion_is_an_error_and_stays"): UNCONDITIONAL_COMPLETION,
    ("swift", "test_a_blob_replaced_right_before_the_put_is_an_error_and_stays"): UNCONDITIONAL_WRITES,
    ("swift", "test_a_blob_replaced_right_before_completion_is_an_error_and_stays"): UNCONDITIONAL_WRITES,
    **{("swift", test): NO_TAGS for test in WITH_TAGS},
    ("swift", "test_a_key_of_1024_bytes_is_a_blob_like_any_other"): "a key must fit into a file's extended attributes",
}
