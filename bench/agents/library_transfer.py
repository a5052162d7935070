"""A library in a process that is already running: ``library_transfer.py '{"library": "boto3", "do": "upload", …}'``.

It does the same on a small scale first, so that imports, clients and connections count for nobody, as they do not count
for a worker. Prints wall and CPU seconds of the rest, and the most memory that it has held, as JSON.
"""

import json
import os
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor


class Boto3:
    """boto3, as its documentation shows it."""

    def __init__(self, what):
        import boto3
        from boto3.s3.transfer import TransferConfig
        from botocore.config import Config

        self.bucket, self.keys = what["bucket"], (what["access_key"], what["secret_key"])
        self.client = boto3.client(
            "s3",
            endpoint_url=what["endpoint"],
            verify=what["ca"] or None,
            aws_access_key_id=what["access_key"],
            aws_secret_access_key=what["secret_key"],
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, max_pool_connections=32),
        )
        self.config = TransferConfig(preferred_transfer_client="classic")

    def upload(self, file, key):
        self.client.upload_file(file, self.bucket, key, Config=self.config)

    def download(self, key, file):
        self.client.download_file(self.bucket, key, file, Config=self.config)

    def move(self, source, key):
        self.client.copy({"Bucket": self.bucket, "Key": source}, self.bucket, key)
        self.client.delete_object(Bucket=self.bucket, Key=source)

    def delete(self, prefix, _):
        import boto3

        bucket = boto3.resource(
            "s3",
            endpoint_url=self.client.meta.endpoint_url,
            aws_access_key_id=self.keys[0],
            aws_secret_access_key=self.keys[1],
            region_name="us-east-1",
        ).Bucket(self.bucket)
        bucket.objects.filter(Prefix=prefix).delete()


class Crt:
    """awscrt by way of s3transfer, as awscli has it; boto3 itself gives it no endpoint but Amazon's."""

    def __init__(self, what):
        import botocore.session
        from botocore.config import Config
        from botocore.credentials import Credentials
        from s3transfer.crt import (
            BotocoreCRTCredentialsWrapper,
            BotocoreCRTRequestSerializer,
            CRTTransferManager,
            create_s3_crt_client,
        )

        settings = {
            "region_name": "us-east-1",
            "endpoint_url": what["endpoint"],
            "config": Config(s3={"addressing_style": "path"}),
            "aws_access_key_id": what["access_key"],
            "aws_secret_access_key": what["secret_key"],
        }
        credentials = BotocoreCRTCredentialsWrapper(Credentials(what["access_key"], what["secret_key"]))
        client = create_s3_crt_client(
            "us-east-1",
            crt_credentials_provider=credentials.to_crt_credentials_provider(),
            use_ssl=bool(what["ca"]),
            verify=what["ca"] or None,
        )
        self.bucket = what["bucket"]
        self.manager = CRTTransferManager(
            client, BotocoreCRTRequestSerializer(botocore.session.get_session(), settings)
        )

    def upload(self, file, key):
        self.manager.upload(file, self.bucket, key).result()

    def download(self, key, file):
        self.manager.download(self.bucket, key, file).result()


class Obstore:
    """obstore with its defaults."""

    def __init__(self, what):
        from obstore.store import S3Store

        self.store = S3Store(
            what["bucket"],
            endpoint=what["endpoint"],
            access_key_id=what["access_key"],
            secret_access_key=what["secret_key"],
            region="us-east-1",
            virtual_hosted_style_request=False,
            client_options={"allow_http": True, "allow_invalid_certificates": bool(what["ca"])},
        )

    def upload(self, file, key):
        from pathlib import Path

        import obstore

        obstore.put(self.store, key, Path(file))

    def download(self, key, file):
        import obstore

        with open(file, "wb") as output:
            for chunk in obstore.get(self.store, key).stream(min_chunk_size=1024 * 1024):
                output.write(chunk)


def main():
    """Warm up, work, report."""
    what = json.loads(sys.argv[1])
    library = {"boto3": Boto3, "crt": Crt, "obstore": Obstore}[what["library"]](what)
    method = getattr(library, what["do"])
    for pair in what["warm"]:
        method(*pair)
    started, before = time.monotonic(), os.times()
    with ThreadPoolExecutor(what["threads"]) as pool:
        for _ in pool.map(lambda pair: method(*pair), what["pairs"]):
            pass
    after = os.times()
    took = {
        "wall": time.monotonic() - started,
        "cpu": after.user + after.system - before.user - before.system,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(took))


if __name__ == "__main__":
    main()
