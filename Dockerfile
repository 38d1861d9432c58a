FROM python:3.11-slim AS build
# uv, because pip cannot take the lock's versions and hashes for a part of the lock: here without tests and tools.
RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.9 && python -m venv /opt/venv
WORKDIR /source
COPY . .
RUN uv pip install --no-cache --python /opt/venv/bin/python --constraint requirements.lock .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/runwright --create-home runwright
COPY --from=build /opt/venv /opt/venv
COPY assistants.yaml /app/
COPY samples /app/samples
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 RUNWRIGHT_HOME=/var/lib/runwright
WORKDIR /app
USER runwright
# The exec form: SIGTERM reaches Celery itself, which then drains. The health checks stand in docker-compose.yml, and
# docs/runbook.md says what else may ask /livez, /healthz and /metrics (RUNWRIGHT_HTTP).
CMD ["celery", "-A", "worker.app", "worker"]
