# Router and run: no models. In a checkout: docker build -f configs/kubernetes/images/router.Dockerfile .
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
COPY . .
RUN pip install --no-cache-dir --prefix=/installed -c constraints.txt ".[serve,kubernetes]"

FROM python:3.11-slim-bookworm
COPY --from=build /installed /usr/local
COPY configs /srv/configs
RUN useradd --uid 10001 --no-create-home ipa
ENV PYTHONUNBUFFERED=1 HOME=/tmp
USER 10001
WORKDIR /tmp
EXPOSE 8081 8083 9095
CMD ["python", "-m", "ipa_energy.serving.kubernetes.router_pod"]
