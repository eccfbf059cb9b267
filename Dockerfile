# One image for every role: mafalda-operator, mafalda-mediaserver, mafalda-gateway, mafalda-worker and mafalda.
#
#   docker build -t mafalda-operator .     or     tools/build-image, which uses buildah and this machine's caches
#
# docs/image.md says what is in it. /mnt is empty here; tools/build-image mounts there what this machine has: the
# cache with the worker, the settings of pip and npm. Whatever is missing is made or fetched.
ARG BASE=docker.io/library/debian:bookworm-slim

# What both the worker and the wheels are made with.
FROM ${BASE} AS tools
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      g++ pkg-config libuv1-dev libssl-dev libsrtp2-dev libabsl-dev python3-venv ca-certificates
ENV MAFALDA_CACHE=/mnt/cache PIP_CONFIG_FILE=/mnt/pip.conf NPM_CONFIG_GLOBALCONFIG=/mnt/npmrc \
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# mediasoup-worker and the code of its messages, by the script that makes them everywhere. npm, which is huge in
# Debian, is needed only where no worker of this recipe is in the cache.
FROM tools AS worker
COPY tools/build-worker tools/generate-fbs tools/
COPY tools/lib tools/lib
COPY tools/worker tools/worker
RUN mkdir -p mediaserver/mediasoup \
 && { tools/build-worker --is-built \
      || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends npm ninja-build patch; }; } \
 && tools/build-worker --install /opt/mafalda/libexec \
 && strip /opt/mafalda/libexec/mediasoup-worker

# Other people's packages, pinned by hash. The virtual environment has no pip. Byte code is compiled here, and trusted
# without a look at the source: the image is read-only, and its files' times are not to be relied upon. The Kubernetes
# client's generated models, a quarter of the whole, are kept as byte code without texts only.
FROM tools AS packages
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/mafalda
COPY requirements/image.txt requirements/
RUN /pip/bin/pip --python /opt/mafalda/bin/python install --quiet --no-compile --no-deps --only-binary :all: --require-hashes \
      -r requirements/image.txt \
 && cd /opt/mafalda && rm -rf bin/[Aa]ctivate* include \
 && find lib -type d -name tests -prune -exec rm -rf {} + \
 && find lib -type f \( -name '*.pyi' -o -name '*.py[xd]' -o -name '*.pxd' -o -name '*.[ch]' -o -name '*_test.py' \) -delete \
 && find lib -type f -name '*.so' -not -path '*.libs/*' -exec strip --strip-unneeded {} + \
 && cd lib/python3*/site-packages/kubernetes \
 && python3 -m compileall -q -j 0 -b -o 2 --invalidation-mode unchecked-hash client aio/client \
 && find client aio/client -name '*.py' -delete \
 && cd /opt/mafalda && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash lib

# This project, as a wheel, laid out as it comes to lie in the virtual environment.
FROM packages AS project
COPY requirements/build.txt requirements/
RUN /pip/bin/pip install --quiet --no-deps --only-binary :all: --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
COPY mediaserver mediaserver
COPY --from=worker /src/mediaserver/mediasoup/_fbs mediaserver/mediasoup/_fbs
RUN /pip/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /pip/bin/pip --python /opt/mafalda/bin/python install --quiet --no-compile --no-deps --no-index --prefix /project /wheels/*.whl \
 && find /project -name direct_url.json -delete \
 && cd /project && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash -s /project -p /opt/mafalda lib

FROM ${BASE}
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      python3 libuv1 libssl3 libsrtp2-1 libabsl20220623 libstdc++6 ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
 && echo 'mafalda:x:65532:65532::/var/lib/mafalda:/usr/sbin/nologin' >> /etc/passwd \
 && echo 'mafalda:x:65532:' >> /etc/group \
 && install -d -o 65532 -g 65532 -m 750 /var/lib/mafalda
COPY --from=worker /opt/mafalda/libexec /opt/mafalda/libexec
COPY --from=packages /opt/mafalda /opt/mafalda
COPY --from=project /project /opt/mafalda
ENV PATH=/opt/mafalda/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    MAFALDA_WORKER_BIN=/opt/mafalda/libexec/mediasoup-worker \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /var/lib/mafalda
# No entry point: the command is one of the roles, and runs as process 1 itself.
CMD ["mafalda", "--help"]
ARG VERSION=0.1.0
ARG WORKER_VERSION=3.27.1
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Mafalda Operator" \
      org.opencontainers.image.description="A Kubernetes operator that turns many mediasoup media servers into one" \
      org.opencontainers.image.source="https://github.com/mafalda-sfu/mafalda-operator" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      mafalda.io/worker-version="${WORKER_VERSION}"
