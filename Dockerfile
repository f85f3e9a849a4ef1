FROM python:3.12-slim AS build
RUN python -m venv /venv
COPY requirements.txt .
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt

FROM python:3.12-slim
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent chatledger
WORKDIR /app
COPY --from=build /venv /venv
# .dockerignore names what belongs into the image; everything else stays out.
COPY . .
# The file system is read-only later, so byte code is made now.
RUN python -m compileall -q .
# Where the followers list what was erased; a volume takes over whose it is.
RUN install --directory --owner=10001 --group=10001 --mode=0700 /data
USER 10001:10001
EXPOSE 8000
ENTRYPOINT ["python", "manage.py"]
CMD ["serve"]
