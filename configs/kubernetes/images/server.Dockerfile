# Model servers. EXTRAS are those of the pipeline (video, audio); none for kubernetes-stub. PyTorch is
# the registry's: pass PYTORCH=https://download.pytorch.org/whl/cpu for one without CUDA. Pipelines of
# your own go to /srv/pipelines/NAME, weights to /srv/weights.
# In a checkout: docker build -f configs/kubernetes/images/server.Dockerfile --build-arg EXTRAS=video .
FROM python:3.11-slim-bookworm AS build
ARG EXTRAS=video
ARG PYTORCH=https://pypi.org/simple
WORKDIR /build
COPY . .
RUN pip install --no-cache-dir --prefix=/installed --extra-index-url "${PYTORCH}" \
    -c constraints.txt ".[serve,${EXTRAS}]"

FROM python:3.11-slim-bookworm
# What OpenCV, which ultralytics imports, links to.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1=1.* libglib2.0-0=2.* \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /installed /usr/local
RUN useradd --uid 10001 --no-create-home ipa
ENV PYTHONUNBUFFERED=1 HOME=/tmp OMP_WAIT_POLICY=PASSIVE
USER 10001
WORKDIR /tmp
EXPOSE 8080 8081
CMD ["mlserver", "start", "."]
