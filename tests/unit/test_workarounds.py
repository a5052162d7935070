"""What the libraries still get wrong. A test that fails here says that a workaround may go: delete both."""

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from io import BytesIO
from typing import Any

import boto3
import pytest
import urllib3
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ParamValidationError
from botocore.session import get_session
from celery import Celery
from celery.exceptions import InvalidTaskError
from celery.worker.request import Request
from kombu.connection import Connection
from kombu.entity import Queue
from kombu.message import Message

from dev.process import free_port
from dev.services import valkey

Serve = Callable[[socket.socket], None]


# --- kombu and Celery ------------------------------------------------------------------------------------------------


def test_kombu_raising_attribute_error_for_an_ack_on_a_closed_channel_is_still_there() -> None:
    """Why AttributeError counts as a connection error for our consumer."""
    with valkey() as broker, Connection(broker.url) as connection:  # type: ignore[no-untyped-call]
        channel = connection.channel()
        queue: Any = Queue("q", channel=channel)  # type: ignore[no-untyped-call]
        queue.declare()
        connection.Producer().publish({}, routing_key="q", serializer="json")
        message = queue.get()
        channel.do_restore = False  # nothing to give back, as after a restore by another process
        channel.close()
        with pytest.raises(AttributeError):
            message.ack()
        assert not issubclass(AttributeError, connection.connection_errors + connection.channel_errors)


class LostChannel:
    """A channel whose broker is away."""

    no_ack_consumers = None

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        raise ConnectionResetError


def test_kombu_only_logging_an_ack_that_did_not_get_through_is_still_there() -> None:
    """Why our requests know no connection errors: the message would be counted as unfinished for ever."""
    message: Any = Message(channel=LostChannel(), delivery_tag="1")  # type: ignore[no-untyped-call]
    message.ack_log_error(logging.getLogger("test"), (ConnectionResetError,))
    assert not message.acknowledged


def test_celery_ending_the_worker_for_a_message_of_a_wrong_shape_is_still_there() -> None:
    """Why our strategy turns these errors into InvalidTaskError, the only one that Celery's consumer expects."""
    app = Celery("test", broker="memory://", set_as_current=False)
    told = {"id": "1", "task": "t", "expires": {}}
    message = Message(body=b"[[], {}, {}]", content_type="application/json", headers=told)  # type: ignore[no-untyped-call]
    with pytest.raises((AttributeError, LookupError, TypeError, ValueError)) as caught:
        Request(message, app=app, task=app.Task(), headers=told, decoded=False)
    assert not isinstance(caught.value, InvalidTaskError)


@pytest.fixture
def without_backend() -> Iterator[Celery]:
    """An app whose result backend is away, and that tries again once."""
    away = f"redis://127.0.0.1:{free_port()}/0"
    app = Celery("test", broker=away, backend=away, set_as_current=False)
    app.conf.update(redis_socket_connect_timeout=1)
    app.conf.result_backend_transport_options = {"retry_policy": {"max_retries": 1, "interval_start": 0}}
    yield app
    app.close()


def test_celery_failing_a_task_whose_result_cannot_be_stored_is_still_there(without_backend: Celery) -> None:
    """Why our app catches it: what leaves ``mark_as_done`` makes the run a failure."""
    with pytest.raises(Exception, match="refused"):
        without_backend.backend.mark_as_done("job-1", "done")


def test_celery_subscribing_to_the_result_before_it_sends_a_task_is_still_there(without_backend: Celery) -> None:
    """Why the client's app has no result backend: a submit would wait for this and fail."""
    with pytest.raises(Exception, match="trying to reconnect"):
        without_backend.backend.on_task_call(None, "job-1")


# --- boto3 and botocore ----------------------------------------------------------------------------------------------


def bare_client(endpoint: str = "http://127.0.0.1:9") -> Any:
    access = {"region_name": "us-east-1", "aws_access_key_id": "a", "aws_secret_access_key": "b"}
    unsigned = {"request_checksum_calculation": "when_required", "s3": {"payload_signing_enabled": False}}
    config = Config(retries={"total_max_attempts": 1}, **unsigned)
    return boto3.client("s3", endpoint_url=endpoint, config=config, **access)


def headers_of(operation: str, **arguments: Any) -> dict[str, str]:
    """The headers, in small letters, of the request that a bare client would send."""
    seen: dict[str, str] = {}

    def answer(request: Any, **_: Any) -> AWSResponse:
        seen.update((name.lower(), str(value)) for name, value in request.headers.items())
        return AWSResponse(request.url, 200, {}, urllib3.HTTPResponse(BytesIO(), preload_content=False))

    client = bare_client()
    client.meta.events.register("before-send.s3", answer)
    getattr(client, operation)(Bucket="b", **arguments)
    return seen


class File(BytesIO):
    """A body that is read, as our parts are."""

    def __len__(self) -> int:
        return 4


class BrokenFile(File):
    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError("disk")


def test_botocore_asking_expect_100_continue_for_each_file_is_still_there() -> None:
    assert "expect" in headers_of("put_object", Key="k", Body=File())


def test_botocore_sending_delete_objects_without_content_md5_is_still_there() -> None:
    assert "content-md5" not in headers_of("delete_objects", Delete={"Objects": [{"Key": "k"}]})


def test_botocore_loading_the_description_of_s3_once_a_session_is_still_there() -> None:
    loaders = [get_session().get_component("data_loader") for _ in range(2)]
    assert loaders[0] is not loaders[1]


def test_boto3_adding_its_path_to_a_shared_loader_again_is_still_there() -> None:
    session = get_session()
    boto3.session.Session(botocore_session=session)
    once = len(session.get_component("data_loader").search_paths)
    boto3.session.Session(botocore_session=session)
    assert len(session.get_component("data_loader").search_paths) > once


def test_botocore_refusing_metadata_that_is_not_ascii_is_still_there() -> None:
    with pytest.raises(ParamValidationError):
        headers_of("put_object", Key="k", Metadata={"a": "ä"})


def test_botocore_taking_an_error_of_the_body_for_one_of_the_network_is_still_there() -> None:
    """Why a body on its way out remembers the error of its own ``read``."""

    def read_all(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    with server(read_all) as port, pytest.raises(BotoCoreError):
        bare_client(f"http://127.0.0.1:{port}").put_object(Bucket="b", Key="k", Body=BrokenFile())


# --- urllib3 and http.client -----------------------------------------------------------------------------------------


@contextmanager
def server(serve: Serve) -> Iterator[int]:
    """The port of a server for one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with suppress(OSError):  # the other side has had enough, or never came
                connection, _ = listener.accept()
                with connection:
                    serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_urllib3_sending_a_body_under_the_timeout_for_connecting_is_still_there() -> None:
    """The peer takes nothing; reading may take a minute, connecting a moment."""
    ended = threading.Event()

    def take_nothing(connection: socket.socket) -> None:
        ended.wait(30)

    timeout = urllib3.Timeout(connect=0.2, read=60)
    with server(take_nothing) as port, urllib3.HTTPConnectionPool("127.0.0.1", port, timeout=timeout) as pool:
        try:
            with pytest.raises((urllib3.exceptions.HTTPError, OSError), match="timed out"):
                pool.request("PUT", "/", body=bytes(50_000_000), retries=False)
        finally:
            ended.set()


@pytest.mark.parametrize("sent", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_http_client_taking_the_end_of_a_connection_for_that_of_headers_is_still_there(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        with HTTPResponse(ours) as response:
            response.begin()
            assert (response.status, response.read()) == (200, b"")
