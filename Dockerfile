# The worker, as an application: run from its folder, installed nowhere. `--target dev` adds the development tools.
FROM python:3.13-slim AS base
ENV PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
RUN groupadd --gid 10001 blobferry \
    && useradd --uid 10001 --gid 10001 --home-dir /app --no-create-home --shell /usr/sbin/nologin blobferry \
    && install --directory --owner blobferry --group blobferry /srv/outgoing
# A layer of its own: it changes with the lock file, not with the code.
COPY requirements.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore -r requirements.txt

# The development S3 of docker-compose.yml. It keeps everything in memory and believes everybody.
FROM base AS dev
COPY requirements-dev.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore -r requirements-dev.txt
USER blobferry
EXPOSE 9000
CMD ["moto_server", "-H", "0.0.0.0", "-p", "9000"]

FROM base AS worker
COPY alembic.ini ./
COPY alembic alembic
COPY blobferry blobferry
COPY models models
COPY worker worker
COPY tasks tasks
USER blobferry
ENTRYPOINT ["python", "-m", "worker"]
CMD ["run"]
