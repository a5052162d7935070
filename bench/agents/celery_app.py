"""What people have today: a Celery task around boto3. Runs in an environment that has Celery and boto3 alone."""

import os

import boto3
from botocore.config import Config
from celery import Celery, signals

app = Celery("plain", broker=os.environ["PLAIN_BROKER"], backend=os.environ["PLAIN_BACKEND"])
app.conf.update(task_acks_late=True, task_serializer="json", result_serializer="json", accept_content=["json"])
BUCKET = os.environ["PLAIN_BUCKET"]
store = None


@signals.worker_process_init.connect
def make_client(**kwargs):
    """One client for each child."""
    global store
    store = boto3.client(
        "s3",
        endpoint_url=os.environ["PLAIN_ENDPOINT"],
        verify=os.environ.get("PLAIN_CA") or None,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )


@app.task
def put(key, contents):
    """Write the bytes."""
    store.put_object(Bucket=BUCKET, Key=key, Body=contents)


@app.task
def upload(key, file):
    """Write the file."""
    store.upload_file(file, BUCKET, key)
